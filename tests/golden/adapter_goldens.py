"""What the recipes of adapter families share: build on a tiny base, randomise, save, load back, record.

A recipe module has build(out). With PEFT it is usually a list of `Case`s given to `build_all`: each writes
adapters/<model>/<name>/ with the adapter's files as the library saves them, goldens.safetensors and
golden.json (README.md). Random values depend on the case and the parameter's name alone. Every trainable
parameter must be matched by a rule, so that nothing is left at an initial zero by accident.
"""
import dataclasses
import os
import re
import shutil
from typing import Any, Callable, Optional

import numpy as np
import torch

import golden_lib
import tiny_tokenizer
from golden_lib import weights_io

LENGTHS = (1, 7, 33)
MIN_EFFECT = 0.3  # the largest logit change a golden must show; 1e-4 of the largest logit is allowed
WHAT_TO_BUILD = re.compile("")  # make_goldens.py --only: names of <model>/<name> to build


@dataclasses.dataclass
class Case:
    """One adapter on one base.

    rules: [(pattern, rule)] searched in order in a parameter's or buffer's full name. A rule is a standard
    deviation, a (mean, deviation) pair, a function of the shape giving either, a function of (rng, shape)
    marked by `values`, or None to leave the tensor as the library made it.
    edit_prompts: changes candidate prompts [n, length] in place, where a golden needs certain tokens.
    wrap: model -> what to call as model(input_ids=, attention_mask=, use_cache=) (task ids, second passes).
    prepare: called with the fresh PEFT model before it is randomised; finish: with the saved directory.
    load: (base, path) -> the adapted model; the default is PeftModel.from_pretrained.
    base: changes the base model in place before PEFT sees it, for saving and for loading.
    """
    model: str
    name: str
    config: Any
    rules: list
    stored_type: str = "F32"
    lengths: tuple = LENGTHS
    edit_prompts: Optional[Callable] = None
    wrap: Callable = lambda model: model
    prepare: Optional[Callable] = None
    finish: Optional[Callable] = None
    load: Optional[Callable] = None
    base: Optional[Callable] = None
    extra: dict = dataclasses.field(default_factory=dict)  # more members of golden.json

    @property
    def key(self):
        return f"{self.model}/{self.name}"


def values(function):
    """Marks function(rng, shape) as one that makes the values itself."""
    function.makes_values = True
    return function


def fan_in(shape):
    """1 / sqrt(columns): keeps the size of what the matrix is applied to."""
    return 1 / np.sqrt(shape[-1])


def _draw(rule, rng, shape):
    if getattr(rule, "makes_values", False):
        return rule(rng, shape)
    if callable(rule):
        rule = rule(shape)
    mean, deviation = rule if isinstance(rule, tuple) else (0.0, rule)
    return mean + deviation * rng.standard_normal(shape)


def randomise(model, key, rules):
    """Fills every parameter and buffer that a rule names; a trainable parameter without one is an error."""
    seen = set()
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        if tensor.data_ptr() in seen and tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        rule = next((r for pattern, r in rules if re.search(pattern, name)), "none")
        if rule == "none":
            if tensor.requires_grad:
                raise SystemExit(f"{key}: no rule for the trainable parameter {name}")
            continue
        if rule is not None:
            rng = golden_lib.rng_for("adapter", key, name)
            tensor.data.copy_(torch.from_numpy(np.asarray(_draw(rule, rng, tuple(tensor.shape)))))


def store_as(path, stored_type):
    """Rewrites a directory's adapter_model.safetensors with its floats in stored_type, names sorted."""
    file = f"{path}/adapter_model.safetensors"
    tensors = {k: weights_io.encode(weights_io.bf16_to_f32(a) if dtype == "BF16" else a, stored_type)
               if dtype in ("F32", "F16", "BF16") else (dtype, a)
               for k, (dtype, a) in weights_io.read_safetensors(file).items()}
    weights_io.write_safetensors(file, tensors, {"format": "pt"})


def edit_config(path, **changes):
    """Sets members of adapter_config.json; lists that PEFT keeps as sets are sorted."""
    config = weights_io.read_json(f"{path}/adapter_config.json") | changes
    for key in ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    weights_io.write_json(f"{path}/adapter_config.json", config)


def drop_tensors(pattern):
    """A `finish` that removes tensors: PEFT saves copies of the base beside embeddings and heads, publishers may not."""
    def finish(path):
        file = f"{path}/adapter_model.safetensors"
        tensors = {k: v for k, v in weights_io.read_safetensors(file).items() if not re.search(pattern, k)}
        weights_io.write_safetensors(file, tensors, {"format": "pt"})
    return finish


def save_peft(peft_model, path, case):
    peft_model.save_pretrained(path)
    os.remove(f"{path}/README.md")
    store_as(path, case.stored_type)
    edit_config(path, base_model_name_or_path=f"tiny-{case.model}")


def load_base(out, case):
    base = golden_lib.load_model(f"{out}/models/{case.model}")
    if case.base:
        case.base(base)
    return base.eval()


def largest_change(base, adapted, tensors, count):
    """The largest change of any logit that the golden keeps of its prompts."""
    largest = 0.0
    for i in range(count):
        ids = torch.from_numpy(tensors[f"prompt.{i}.tokens"][1]).long()[None]
        difference = golden_lib.forward(adapted, ids) - golden_lib.forward(base, ids)
        largest = max(largest, difference[:, -golden_lib.KEPT_LOGITS:].abs().max().item())
    return largest


def record(path, base, adapted, case):
    """Writes the golden of `adapted` (anything callable as a model) beside the adapter's files."""
    tensors, summary = golden_lib.make_golden(adapted, case.key, tiny_tokenizer.VOCAB_SIZE, case.lengths,
                                              case.edit_prompts)
    effect = largest_change(base, adapted, tensors, len(case.lengths))
    if effect < MIN_EFFECT:
        raise SystemExit(f"{path}: the adapter hardly shows, largest logit change {effect}")
    summary |= {"model": case.model, "adapter": case.name, "largest_logit_change": round(effect, 4)}
    golden_lib.write_golden(path, tensors, summary | case.extra)
    size = sum(os.path.getsize(f"{path}/{f}") for f in os.listdir(path)) // 1024
    print(f"adapters/{case.key}: smallest greedy margin {summary['min_greedy_margin']}, largest logit "
          f"change {effect:.2f}, {size} KiB", flush=True)


def fresh_directory(out, case):
    path = f"{out}/adapters/{case.key}"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def wanted(case):
    return WHAT_TO_BUILD.search(case.key) is not None


def build(out, case):
    """The whole way for a PEFT adapter: fresh, random, saved, loaded back, recorded."""
    from peft import PeftModel, get_peft_model
    path = fresh_directory(out, case)
    torch.manual_seed(0)
    fresh = get_peft_model(load_base(out, case), case.config)
    if case.prepare:
        case.prepare(fresh)
    randomise(fresh, case.key, case.rules)
    save_peft(fresh, path, case)
    if case.finish:
        case.finish(path)
    load = case.load or PeftModel.from_pretrained
    adapted = case.wrap(load(load_base(out, case), path).eval())
    record(path, load_base(out, case), adapted, case)


def build_all(out, cases):
    for case in cases:
        if wanted(case):
            build(out, case)
