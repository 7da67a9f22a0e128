"""X-LoRA: a classifier of the base's last hidden state weighs several LoRAs for each token (zoo 5.6).

The LoRAs lie in folders called as their keys. PEFT's save_pretrained drops every tensor whose name has one of
these keys in it (".0.", ".1."), so the LoRAs are saved alone and the classifier from its state.
"""
import shutil
import tempfile

import torch
from peft import LoraConfig, PeftModel, XLoraConfig, get_peft_model

from adapter_goldens import Case, edit_config, fresh_directory, load_base, randomise, record, save_peft, wanted
from golden_lib import weights_io

_LORA_RULES = [("lora_A", 0.3), ("lora_B", 1.0)]
_CLASSIFIER = "internal_xlora_classifier."


def _lora(rank, alpha, *modules):
    return LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=list(modules))


def _sharp(shape):
    return 2.0 / shape[-1] ** 0.5


_CLASSIFIER_RULES = [(r"classifier.*bias", 0.5), (r"classifier.*weight", _sharp)]


# model/name: (LoRAs, X-LoRA's options)
CASES = {
    ("llama", "xlora"): ([_lora(2, 6, "q_proj", "v_proj"), _lora(3, 6, "q_proj", "down_proj"), _lora(2, 4, "o_proj")],
                         dict(xlora_depth=2, xlora_size=12, softmax_temperature=0.7)),
    ("llama", "xlora_top_of_each"): ([_lora(2, 6, "k_proj", "gate_proj"), _lora(2, 6, "k_proj"), _lora(2, 8, "up_proj")],
                                     dict(layerwise_scalings=True, top_k_lora=2, enable_softmax_topk=True,
                                          global_scaling_weight=1.5)),
    ("mistral", "xlora_deep"): ([_lora(2, 4, "q_proj", "o_proj"), _lora(2, 4, "v_proj", "o_proj")],
                                dict(xlora_depth=3, xlora_size=10, xlora_dropout_p=0.0, enable_softmax=False)),
    ("qwen2", "xlora_first_pass"): ([_lora(2, 6, "q_proj", "up_proj"), _lora(2, 6, "v_proj")],
                                    dict(layerwise_scalings=True, scaling_pass_value=0.5)),
}


def _load(out, case, path):
    base = load_base(out, case)
    base.config.use_cache = False
    config = XLoraConfig.from_pretrained(path)
    config.adapters = {key: f"{path}/{key}" for key in config.adapters}
    return PeftModel.from_pretrained(base, path, config=config)


def _build(out, case, loras, options):
    path = fresh_directory(out, case)
    for i, config in enumerate(loras):
        part = Case(case.model, f"{case.name}/{i}", config, _LORA_RULES)
        torch.manual_seed(0)
        model = get_peft_model(load_base(out, part), config)
        randomise(model, part.key, part.rules)
        save_peft(model, f"{path}/{i}", part)
    base = load_base(out, case)
    base.config.use_cache = False
    names = [str(i) for i in range(len(loras))]
    config = XLoraConfig(task_type="CAUSAL_LM", hidden_size=base.config.hidden_size, **options,
                         adapters={name: f"{path}/{name}" for name in names})
    model = get_peft_model(base, config)
    randomise(model, case.key, _CLASSIFIER_RULES + [("lora_", None)])
    state = {f"base_model.{k[k.index(_CLASSIFIER):]}": v for k, v in model.state_dict().items() if _CLASSIFIER in k}
    with tempfile.TemporaryDirectory() as whole:
        save_peft(model, whole, case)
        shutil.copy(f"{whole}/adapter_config.json", path)
    weights_io.write_safetensors(f"{path}/adapter_model.safetensors",
                                 {k: weights_io.encode(v.numpy(), "F32") for k, v in state.items()}, {"format": "pt"})
    edit_config(path, adapters={name: name for name in names})
    record(path, load_base(out, case), _load(out, case, path).eval(), case)


def build(out):
    for (model, name), (loras, options) in CASES.items():
        case = Case(model, name, None, _CLASSIFIER_RULES)
        if wanted(case):
            _build(out, case, loras, options)
