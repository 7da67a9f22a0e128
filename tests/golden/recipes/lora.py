"""LoRA and rsLoRA: adapters/<model>/<adapter>/ in PEFT format with a golden from PeftModel in float32.

Both factors are random (PEFT would start B at zero), scaled so that the change is about a third of the
layer's own output. The golden is made from the saved directory, loaded back, so it shows what the file says.
"""
import math
import os
import shutil

import torch

import golden_lib
import tiny_tokenizer
from golden_lib import weights_io

LENGTHS = (1, 7, 40)
_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_ALL = _ATTENTION + ["gate_proj", "up_proj", "down_proj"]
_LLAMA_LIKE = {
    "plain": ({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}, "F32"),
    "all_linear": ({"r": 16, "lora_alpha": 16, "target_modules": "all-linear"}, "F32"),
    "rslora": ({"r": 8, "lora_alpha": 4, "use_rslora": True, "target_modules": _ATTENTION}, "F32"),
    "patterns": ({"r": 8, "lora_alpha": 16, "target_modules": _ALL,
                  "rank_pattern": {"down_proj": 2, "layers.1.self_attn.q_proj": 5},
                  "alpha_pattern": {"down_proj": 6, "layers.0.mlp.up_proj": 3}}, "F32"),
    "rank3": ({"r": 3, "lora_alpha": 5, "target_modules": ["k_proj", "o_proj", "gate_proj"]}, "F32"),
    "rank33": ({"r": 33, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]}, "F32"),
    "bf16": ({"r": 8, "lora_alpha": 16, "target_modules": _ALL}, "BF16"),
    "regex": ({"r": 6, "lora_alpha": 12,
               "target_modules": r".*\.layers\.1\.(self_attn\.v_proj|mlp\.(up|down)_proj)"}, "F16"),
}
_GPT2 = {
    "plain": ({"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"]}, "F32"),
    "all_linear": ({"r": 16, "lora_alpha": 16, "target_modules": ["c_attn", "c_proj", "c_fc"]}, "F32"),
    "rslora": ({"r": 5, "lora_alpha": 4, "use_rslora": True, "target_modules": ["c_attn", "c_fc"]},
               "F32"),
    "patterns": ({"r": 8, "lora_alpha": 16, "target_modules": ["c_attn", "c_fc"],
                  "rank_pattern": {"h.0.attn.c_attn": 3}, "alpha_pattern": {"c_fc": 4}}, "F32"),
    "bf16": ({"r": 33, "lora_alpha": 16, "target_modules": ["attn.c_attn", "attn.c_proj"]}, "BF16"),
}
ADAPTERS = {"llama": _LLAMA_LIKE, "qwen3": _LLAMA_LIKE, "gpt2": _GPT2}


def _randomise(peft_model, key):
    """Fills A and B so that s B A x is about 0.35 per element for inputs of unit size."""
    for name, module in peft_model.named_modules():
        if not hasattr(module, "lora_A") or "default" not in module.lora_A:
            continue
        factors = (module.lora_A["default"].weight, module.lora_B["default"].weight)
        rank, fan_in = factors[0].shape
        b_scale = 0.35 / (abs(module.scaling["default"]) * math.sqrt(rank))
        for factor, tag, scale in zip(factors, "AB", (1 / math.sqrt(fan_in), b_scale)):
            x = golden_lib.rng_for("lora", key, name, tag).standard_normal(tuple(factor.shape))
            factor.data.copy_(torch.from_numpy(x * scale))


def _save(peft_model, path, stored_type, model_name):
    peft_model.save_pretrained(path)
    os.remove(f"{path}/README.md")
    file = f"{path}/adapter_model.safetensors"
    tensors = {k: weights_io.encode(v, stored_type) for k, v in weights_io.read_f32(file).items()}
    weights_io.write_safetensors(file, tensors, {"format": "pt"})
    config = weights_io.read_json(f"{path}/adapter_config.json")
    config["base_model_name_or_path"] = f"tiny-{model_name}"
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])
    weights_io.write_json(f"{path}/adapter_config.json", config)


def _effect(base, adapted, tensors):
    """The largest change of any logit that the golden keeps of its prompts: a golden must show its adapter."""
    largest = 0.0
    for i in range(len(LENGTHS)):
        ids = torch.from_numpy(tensors[f"prompt.{i}.tokens"][1]).long()[None]
        difference = golden_lib.forward(adapted, ids) - golden_lib.forward(base, ids)
        largest = max(largest, difference[:, -golden_lib.KEPT_LOGITS:].abs().max().item())
    return largest


def _build_one(out, model_name, name, options, stored_type):
    from peft import LoraConfig, PeftModel, get_peft_model
    base_path, path = f"{out}/models/{model_name}", f"{out}/adapters/{model_name}/{name}"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    is_gpt2 = model_name == "gpt2"
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, fan_in_fan_out=is_gpt2, **options)
    fresh = get_peft_model(golden_lib.load_model(base_path), config)
    _randomise(fresh, f"{model_name}/{name}")
    _save(fresh, path, stored_type, model_name)
    adapted = PeftModel.from_pretrained(golden_lib.load_model(base_path), path).eval()
    tensors, summary = golden_lib.make_golden(adapted, f"{model_name}/{name}",
                                              tiny_tokenizer.VOCAB_SIZE, LENGTHS)
    effect = _effect(golden_lib.load_model(base_path), adapted, tensors)
    if effect < 0.5:
        raise SystemExit(f"{path}: the adapter hardly shows, largest logit change {effect}")
    summary |= {"model": model_name, "adapter": name, "largest_logit_change": round(effect, 4)}
    golden_lib.write_golden(path, tensors, summary)
    print(f"adapters/{model_name}/{name}: smallest greedy margin {summary['min_greedy_margin']}, "
          f"largest logit change {effect:.2f}", flush=True)


def build(out):
    for model_name, adapters in ADAPTERS.items():
        for name, (options, stored_type) in adapters.items():
            _build_one(out, model_name, name, options, stored_type)
