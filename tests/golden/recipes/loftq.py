"""LoftQ: a LoRA that makes up for what quantising its base lost; the base that goes with it is the quantised one
(zoo 5.1). Formula of the LoftQ paper (Li et al. 2023): Q = quantise(W - BA), BA = the largest singular part of W - Q, in
turns; here one turn, with the Q4_0 base of models/."""
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import gguf_models
import golden_lib
from adapter_goldens import Case, fresh_directory, record, save_peft, wanted

_RANK = 8
_CASE = Case("llama_gguf_q4_0", "loftq", None, [])


def _bases(out):
    """-> (full-precision model, what the quantised file holds)."""
    name, kind = gguf_models.FILES[_CASE.model]
    full = golden_lib.load_model(f"{out}/models/{name}")
    return full, golden_lib.load_model(f"{out}/models/{name}", gguf_models.stored_weights(out, _CASE.model))


def _make_up(peft_model, full):
    """A and B of each site from the loss of its weight; a last random part makes the golden one's own."""
    originals = dict(full.named_modules())
    for name, module in peft_model.base_model.model.named_modules():
        if not hasattr(module, "lora_A") or "default" not in module.lora_A:
            continue
        lost = (originals[name].weight - module.base_layer.weight).detach().double()
        u, s, v = torch.linalg.svd(lost, full_matrices=False)
        root = s[:_RANK].sqrt()
        noise = golden_lib.rng_for("loftq", name).standard_normal(tuple(module.lora_B["default"].weight.shape))
        module.lora_A["default"].weight.data.copy_(root[:, None] * v[:_RANK])
        module.lora_B["default"].weight.data.copy_(u[:, :_RANK] * root + torch.from_numpy(0.4 * noise))


def build(out):
    if not wanted(_CASE):
        return
    path = fresh_directory(out, _CASE)
    full, base = _bases(out)
    config = LoraConfig(task_type="CAUSAL_LM", r=_RANK, lora_alpha=_RANK, target_modules=["q_proj", "v_proj"])
    fresh = get_peft_model(base, config)
    _make_up(fresh, full)
    save_peft(fresh, path, _CASE)
    adapted = PeftModel.from_pretrained(_bases(out)[1], path).eval()
    record(path, _bases(out)[1], adapted, _CASE)
