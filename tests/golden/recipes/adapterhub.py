"""AdapterHub: adapters/<model>/hub_<variant>/ as `adapters` saves them, with a golden from that library.

Needs tests/golden/requirements_adapterhub.txt, another interpreter than the rest: adapters 1.3.0 wants
transformers 4.57, which reads rope_theta and not rope_parameters, so the base is checked against its own
golden first. Every tensor of an adapter is random (the library starts many at zero). Prefixes cannot be
saved as safetensors by the library; tools/export/adapterhub.py converts what it saves.
"""
import functools
import os
import shutil
import sys

import numpy as np
import torch

import golden_lib
import tiny_tokenizer
from golden_lib import weights_io

sys.path.append(os.path.join(golden_lib.HERE, "..", "..", "tools", "export"))
import adapterhub as exporter  # noqa: E402

LENGTHS = (1, 7, 24)
NAME = "task"
_LIBRARIES = ("torch", "transformers", "adapters", "tokenizers", "safetensors", "numpy")


def _seq(**changes):
    return ("SeqBnConfig", {"reduction_factor": 8.0} | changes)


def _houlsby(**changes):
    return ("DoubleSeqBnConfig", {"reduction_factor": 8.0} | changes)


def _lora(**changes):
    return ("LoRAConfig", {"r": 4, "alpha": 8} | changes)


_ALL_LORA = {"intermediate_lora": True, "output_lora": True, "attn_matrices": ["q", "k", "v"]}
_BOTTLENECKS = {
    "seq_bn": _seq(),
    "double_seq_bn": _houlsby(),
    "par_bn": ("ParBnConfig", {}),
    "scaled_par_bn": ("ParBnConfig", {"scaling": "learned", "reduction_factor": 4.0}),
    "adapter_plus": ("AdapterPlusConfig", {"stochastic_depth": 0.0, "reduction_factor": 96.0}),
    "norms": _seq(ln_before=True, ln_after=True, non_linearity="gelu", scaling=0.5),
    "norm_outside": _seq(ln_after=True, adapter_residual_before_ln=True, non_linearity="tanh"),
    "residual_after": _houlsby(original_ln_before=True, residual_before_ln=False,
                               original_ln_after=False, non_linearity="leakyrelu"),
    "per_layer": _houlsby(reduction_factor={"0": 4.0, "default": 16.0}, scaling="channel",
                          non_linearity="gelu_new"),
    "leave_out": _houlsby(leave_out=[0]),
    "par_both": ("ParBnConfig", {"mh_adapter": True, "reduction_factor": 16.0, "scaling": 1.5,
                                 "ln_after": True, "ln_before": True, "non_linearity": "quick_gelu"}),
    "compacter": ("CompacterConfig", {"reduction_factor": 8.0}),
    "compacter_pp": ("CompacterPlusPlusConfig", {"reduction_factor": 16.0}),
    "phm_own": ("CompacterConfig", {"reduction_factor": 8.0, "shared_phm_rule": False,
                                    "factorized_phm_rule": True, "factorized_phm_W": False,
                                    "phm_bias": False, "phm_dim": 2}),
    "phm_shared": ("CompacterPlusPlusConfig", {"reduction_factor": 8, "shared_W_phm": True,
                                               "factorized_phm_rule": True, "phm_rank": 2}),
}
_LORAS = {
    "lora": _lora(),
    "lora_all": _lora(leave_out=[0], **_ALL_LORA),
    "ia3": ("IA3Config", {"alpha": 2}),
    "ia3_output": ("IA3Config", {"output_lora": True, "attn_matrices": ["q", "v"]}),
    "dora": ("DoRAConfig", {"r": 4, "alpha": 8, "intermediate_lora": True}),
    "vera": ("VeraConfig", {"r": 6, "alpha": 3, "attn_matrices": ["q"]}),
    "mtl_lora": ("MTLLoRAConfig", {"r": 3, "alpha": 6, "n_up_projection": 2, "output_lora": True}),
}
_PREFIX = ("PrefixTuningConfig", {"prefix_length": 5, "bottleneck_size": 16})
_PREFIX_FLAT = ("PrefixTuningConfig", {"prefix_length": 3, "flat": True, "leave_out": [1]})
_PREFIXES = {
    "prefix": _PREFIX,
    "prefix_flat": _PREFIX_FLAT,
    "mam": [_PREFIX, ("ParBnConfig", {"reduction_factor": 8.0})],
    "union": [_lora(leave_out=[1]), _houlsby(leave_out=[0]), _PREFIX_FLAT],
}
_GATED = {
    "gated_lora": _lora(use_gating=True, **_ALL_LORA),
    "gated_ia3": ("IA3Config", {"use_gating": True}),
    "gated_prefix": ("PrefixTuningConfig", {"prefix_length": 20, "flat": True, "use_gating": True,
                                            "shared_gating": False, "leave_out": [0]}),
    "unipelt": [("PrefixTuningConfig", {"prefix_length": 4, "bottleneck_size": 8, "use_gating": True}),
                _seq(use_gating=True), _lora(use_gating=True)],
}
_FIRST = {"r": 3, "prefix_positions": 3, "suffix_positions": 0}
_REFTS = {
    "loreft": ("LoReftConfig", _FIRST | {"layers": [0, 2]}),
    "noreft": ("NoReftConfig", _FIRST | {"r": 5, "non_linearity": "tanh"}),
}
# With suffix positions a cached pass intervenes on every later token, as we do.
_SUFFIX = {
    "reft_suffix": ("NoReftConfig", {"r": 4, "prefix_positions": 2, "suffix_positions": 1}),
    "reft_tied": ("LoReftConfig", {"r": 3, "prefix_positions": 3, "suffix_positions": 1,
                                   "tied_weights": True, "layers": [1]}),
}
_INVERTIBLE = {
    "inv": ("SeqBnInvConfig", {"reduction_factor": 8.0, "inv_adapter_reduction_factor": 4.0}),
}
_CACHED = _GATED | _SUFFIX
_GPT2 = ("seq_bn", "double_seq_bn", "par_bn", "norms", "compacter", "lora", "ia3", "ia3_output",
         "prefix", "prefix_flat", "mam", *_CACHED, "inv")
_KNOWN = _BOTTLENECKS | _LORAS | _PREFIXES | _REFTS | _INVERTIBLE | _CACHED
ADAPTERS = {
    "llama": [name for name in _KNOWN if name not in _CACHED],
    "qwen2": ["seq_bn", "par_bn", "lora_all", "dora"],
    "qwen3": ["double_seq_bn", "ia3", "compacter_pp"],
    "mistral": ["residual_after", "lora", "scaled_par_bn"],
    "gpt2": list(_GPT2),
}


def load_base(path):
    """A float32 eager model of a directory, with rotary settings where transformers 4 looks for them."""
    from transformers import AutoConfig, AutoModelForCausalLM
    config = AutoConfig.from_pretrained(path)
    rope = weights_io.read_json(f"{path}/config.json").get("rope_parameters")
    if rope:
        config.rope_theta = rope["rope_theta"]
        config.rope_scaling = None
        if rope["rope_type"] != "default":
            config.rope_scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
    return AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32,
                                                attn_implementation="eager").eval()


def check_base(path, model):
    golden = weights_io.read_safetensors(f"{path}/goldens.safetensors")
    ids = torch.from_numpy(golden["prompt.5.tokens"][1].copy()).long()[None]
    logits = golden_lib.forward(model, ids)[0, -golden_lib.KEPT_LOGITS:].numpy()
    difference = np.abs(logits - golden["prompt.5.logits"][1]).max()
    if difference > 1e-4:
        raise SystemExit(f"{path}: the base differs between the two transformers by {difference}")


def make_config(what):
    import adapters
    if isinstance(what, list):
        return adapters.ConfigUnion(*[make_config(part) for part in what])
    kind, options = what
    return getattr(adapters, kind)(**options)


def _scaled(x, name, shape):
    """Random values of a size that shows: maps keep their input's size, up-projections halve it."""
    leaf = name.rsplit(".", 1)[-1]
    if "norm" in name or ("adapter_down.0" in name and len(shape) == 1 and leaf == "weight"):
        return 1 + 0.3 * x if leaf == "weight" else 0.3 * x
    if leaf == "scaling":
        return 1.5 + 0.5 * x
    if "adapter_down" in name or leaf.startswith("W_down"):
        fan_in = shape[-2] if leaf[0] == "W" else shape[-1]
        return (0.1 * x) if len(shape) == 1 else x / np.sqrt(fan_in)
    if "adapter_up" in name or leaf.startswith("W_up"):
        fan_in = shape[-2] if leaf[0] == "W" else shape[-1]
        return (0.1 * x) if len(shape) == 1 else 0.8 * x / np.sqrt(fan_in)
    if leaf.startswith("phm_rule"):
        return 0.7 * x
    if leaf == "control_trans" or "wte" in name:
        return 1.5 * x
    if leaf == "bias":
        return 0.2 * x
    return x / np.sqrt(shape[-1])


def _random_lora(module, key, name):
    x = lambda tag, shape: torch.from_numpy(golden_lib.rng_for("hub", key, name, tag).standard_normal(
        tuple(shape))).float()
    if module.composition_mode == "scale":
        module.lora_B.data.copy_((1 + 0.5 * x("B", module.lora_B.shape)))
    elif hasattr(module, "vera_D"):
        module.vera_D.data.copy_(x("D", module.vera_D.shape) / np.sqrt(module.r))
        module.vera_B.data.copy_(x("B", module.vera_B.shape) / np.sqrt(len(module.vera_B)))
    else:
        rank = module.lora_B.shape[-1]
        if hasattr(module, "task_specific"):
            module.task_specific.values.data.copy_(1 + 0.5 * x("task", (rank,)))
            module.weights.data.copy_(x("weights", module.weights.shape))
        scale = 1 if module.use_gating else module.scaling
        module.lora_A.data.copy_(x("A", module.lora_A.shape) / np.sqrt(module.lora_A.shape[1]))
        module.lora_B.data.copy_(0.5 * x("B", module.lora_B.shape) / (scale * np.sqrt(rank)))
    if module.use_dora:
        module.m.weight.data *= (1 + 0.3 * x("m", module.m.weight.shape)).abs()
    if module.use_gating:
        module.gate.weight.data.copy_(x("gate", module.gate.weight.shape) / np.sqrt(module.gate.weight.shape[1]))


def _random_projection(module, key, name):
    """An orthogonal map: another base, and reflections below the diagonal, which stays as it is."""
    x = lambda tag, shape: torch.from_numpy(golden_lib.rng_for("hub", key, name, tag).standard_normal(
        tuple(shape))).float()
    module.weight = torch.linalg.qr(x("base", module.weight.shape).T)[0].T
    stored = module.parametrizations.weight.original
    stored.data += 0.3 * torch.triu(x("reflections", stored.shape), diagonal=1)


def randomise(model, name, key):
    """Fills every tensor of the adapter; LoRA factors by module, the rest by name."""
    from adapters.loading import AdapterLoader
    mine = AdapterLoader(model).filter_func(name)
    for path, parameter in model.named_parameters():
        if mine(path) and ".loras." not in path and ".parametrizations." not in path:
            x = golden_lib.rng_for("hub", key, path).standard_normal(tuple(parameter.shape))
            parameter.data.copy_(torch.from_numpy(_scaled(x, path, parameter.shape)))
    for path, module in model.named_modules():
        if hasattr(module, "parametrizations") and f".refts.{name}." in path:
            _random_projection(module, key, path)
        if path.endswith(f".loras.{name}"):
            _random_lora(module, key, path)


def save(model, name, path, model_name):
    """What the library saves, converted to safetensors, with neither paths nor dates in it."""
    os.makedirs(path, exist_ok=True)
    model.save_adapter(path, name)
    exporter.convert(path)
    for file in os.listdir(path):
        if file.endswith(".bin") or file == "head_config.json":
            os.remove(f"{path}/{file}")
    config = weights_io.read_json(f"{path}/adapter_config.json")
    config["model_name"] = f"tiny-{model_name}"
    weights_io.write_json(f"{path}/adapter_config.json", config)


def load(base_path, path):
    import adapters
    model = load_base(base_path)
    adapters.init(model)
    info = {}
    model.load_adapter(path, set_active=True, use_safetensors=True, loading_info=info)
    if info.get("missing_keys") or info.get("unexpected_keys"):
        raise SystemExit(f"{path}: does not load back: {info}")
    return model.eval()


def _effect(base, adapted, tensors):
    largest = 0.0
    for i in range(len(LENGTHS)):
        ids = torch.from_numpy(tensors[f"prompt.{i}.tokens"][1].copy()).long()[None]
        difference = golden_lib.forward(adapted, ids) - golden_lib.forward(base, ids)
        largest = max(largest, difference[:, -golden_lib.KEPT_LOGITS:].abs().max().item())
    return largest


def write(path, model_name, name, base, adapted, cached=False, masked=True, extra=None):
    """Makes, checks and writes the golden of an adapter that is loaded."""
    plain = golden_lib.greedy
    if cached:
        # With a mask the library's ReFT would take a cached step for the whole sequence.
        golden_lib.greedy = functools.partial(golden_lib.greedy_with_cache, masked=masked)
    try:
        tensors, summary = golden_lib.make_golden(adapted, f"{model_name}/{name}",
                                                  tiny_tokenizer.VOCAB_SIZE, LENGTHS)
    finally:
        golden_lib.greedy = plain
    effect = _effect(base, adapted, tensors)
    if effect < 0.5:
        raise SystemExit(f"{path}: the adapter hardly shows, largest logit change {effect}")
    from importlib.metadata import version
    summary |= {"model": model_name, "adapter": name, "largest_logit_change": round(effect, 4),
                "made_with": {lib: version(lib).split("+")[0] for lib in _LIBRARIES}} | (extra or {})
    weights_io.write_safetensors(f"{path}/goldens.safetensors", tensors)
    weights_io.write_json(f"{path}/golden.json", summary)
    print(f"adapters/{model_name}/{name}: smallest greedy margin {summary['min_greedy_margin']}, "
          f"largest logit change {effect:.2f}", flush=True)


def _build_one(out, model_name, variant):
    import adapters
    name = f"hub_{variant}"
    base_path, path = f"{golden_lib.HERE}/models/{model_name}", f"{out}/adapters/{model_name}/{name}"
    shutil.rmtree(path, ignore_errors=True)
    base, fresh = load_base(base_path), load_base(base_path)
    check_base(base_path, base)
    adapters.init(fresh)
    fresh.add_adapter(NAME, config=make_config(_KNOWN[variant]))
    randomise(fresh, NAME, f"{model_name}/{variant}")
    save(fresh, NAME, path, model_name)
    write(path, model_name, name, base, load(base_path, path), cached=variant in _CACHED,
          masked=variant not in _SUFFIX)


def _soup(model):
    """Two adapters averaged (AdapterSoup)."""
    model.average_adapter(NAME, ["one", "two"], weights=[0.7, 0.3])


def _modules(model, name):
    """The adapter's modules by place."""
    return {path.removesuffix(f".{name}"): module for path, module in model.named_modules()
            if path.endswith(f"adapters.{name}")}


def _merged(model):
    """MerA (He et al. 2023): the second adapter's hidden units carried onto the first's by optimal transport between
    equal masses, which is a permutation, with the weights' distance as the cost; then the mean of both."""
    model.add_adapter(NAME, config=make_config(_seq()))
    one, two, merged = (_modules(model, name) for name in ("one", "two", NAME))
    for place, target in merged.items():
        pairs = [(m.adapter_down[0], m.adapter_up) for m in (one[place], two[place])]
        units = [torch.cat([down.weight, down.bias[:, None], up.weight.T], dim=1) for down, up in pairs]
        to = _assignment(torch.cdist(units[0], units[1]).detach().numpy())
        (down, up), (other_down, other_up) = pairs
        target.adapter_down[0].weight.data = (down.weight + other_down.weight[to]).data / 2
        target.adapter_down[0].bias.data = (down.bias + other_down.bias[to]).data / 2
        target.adapter_up.weight.data = (up.weight + other_up.weight[:, to]).data / 2
        target.adapter_up.bias.data = (up.bias + other_up.bias).data / 2


def _assignment(cost):
    """The permutation with the least total cost, by dynamic programming over subsets."""
    best = {0: (0.0, ())}
    for row in range(len(cost)):
        following = {}
        for taken, (total, order) in best.items():
            for col in range(len(cost)):
                if taken >> col & 1:
                    continue
                key, candidate = taken | 1 << col, (total + cost[row, col], (*order, col))
                if key not in following or candidate < following[key]:
                    following[key] = candidate
        best = following
    return list(next(iter(best.values()))[1])


def _pruned(model):
    """SparseAdapter (He et al. 2022): a wide adapter whose smallest weights, four of five, are zero."""
    model.add_adapter(NAME, config=make_config(_seq(reduction_factor=4.0)))
    randomise(model, NAME, "llama/sparse")
    for module in _modules(model, NAME).values():
        for linear in (module.adapter_down[0], module.adapter_up):
            kept = linear.weight.abs() >= torch.quantile(linear.weight.abs().flatten(), 0.8)
            linear.weight.data = 2 * linear.weight.data * kept


OFFLINE = {"soup": _soup, "mera": _merged, "sparse": _pruned}


@torch.no_grad()
def _build_offline(out, model_name, variant):
    """Made from others without the library's training: what is saved is a plain adapter."""
    import adapters
    base_path, path = f"{golden_lib.HERE}/models/{model_name}", f"{out}/adapters/{model_name}/hub_{variant}"
    shutil.rmtree(path, ignore_errors=True)
    model = load_base(base_path)
    adapters.init(model)
    for ingredient in ("one", "two"):
        model.add_adapter(ingredient, config=make_config(_seq()))
        randomise(model, ingredient, f"{model_name}/soup")
    OFFLINE[variant](model)
    save(model, NAME, path, model_name)
    write(path, model_name, f"hub_{variant}", load_base(base_path), load(base_path, path))


def build(out, only=()):
    for variant in OFFLINE:
        if not only or variant in only:
            _build_offline(out, "llama", variant)
    for model_name, variants in ADAPTERS.items():
        for variant in variants:
            if not only or variant in only or f"{model_name}/{variant}" in only:
                _build_one(out, model_name, variant)
