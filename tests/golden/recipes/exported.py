"""Families whose files are not complete, through tools/export: FourierFT, WaveFT, Uni-LoRA, VeRA, PVeRA, RandLoRA, PSOFT,
AdaMSS, BitDelta, LyCORIS.

A PEFT adapter is saved, converted from what was saved, and recorded as PEFT runs it. BitDelta and LyCORIS files
are made here and recorded by their formulas.
"""
import os
import tempfile

import numpy as np
import torch
from peft import (AdamssConfig, FourierFTConfig, PeftModel, PsoftConfig, PveraConfig, RandLoraConfig, UniLoraConfig,
                  VeraConfig, WaveFTConfig, get_peft_model)

import adapter_goldens
from adapter_goldens import Case
from container_goldens import module, places, replace, replace_norm, weight
import bitdelta  # tools/export, which container_goldens puts on the path
import lycoris
import peft_complete
from container import sign_bits

_SHORT = (1, 7, 20)  # prompts of goldens that need no long ones
_PEFT = [
    Case("llama", "fourierft", FourierFTConfig(task_type="CAUSAL_LM", n_frequency=120, scaling=150,
                                               target_modules=["q_proj", "v_proj"]),
         [("fourierft_spectrum", 0.6)]),
    Case("mistral", "waveft", WaveFTConfig(task_type="CAUSAL_LM", n_frequency=150, scaling=25,
                                           target_modules=["k_proj", "o_proj"]), [("waveft_spectrum", 0.03)]),
    Case("qwen3", "waveft_sparse", WaveFTConfig(task_type="CAUSAL_LM", n_frequency=400, scaling=25,
                                                use_idwt=False, target_modules=["v_proj", "down_proj"]),
         [("waveft_spectrum", 0.03)]),
    Case("qwen2", "unilora_converted", UniLoraConfig(task_type="CAUSAL_LM", r=2, theta_d_length=96,
                                                     target_modules=["q_proj", "o_proj"]),
         [("unilora_theta_d", 2.0)]),
    Case("llama", "vera_converted", VeraConfig(task_type="CAUSAL_LM", r=8, save_projection=False,
                                               projection_prng_key=5, target_modules=["q_proj", "o_proj"]),
         [("vera_lambda_d", 1.5), ("vera_lambda_b", 1.5)]),
    Case("qwen2", "pvera_converted", PveraConfig(task_type="CAUSAL_LM", r=8, save_projection=False,
                                                 projection_prng_key=3, target_modules=["q_proj", "o_proj"]),
         [("pvera_lambda_d", 1.5), ("pvera_lambda_b", 1.5)], lengths=_SHORT),
    Case("mistral", "randlora_converted", RandLoraConfig(task_type="CAUSAL_LM", r=16, randlora_alpha=16,
                                                         save_projection=False, projection_prng_key=7,
                                                         target_modules=["v_proj"]),
         [("randlora_lambda", 0.5), ("randlora_gamma", (1.0, 0.3))], lengths=_SHORT),
    Case("llama", "psoft", PsoftConfig(task_type="CAUSAL_LM", r=8, psoft_alpha=8,
                                       target_modules=["q_proj", "down_proj"]),
         [("vector", (1.0, 0.3)), ("psoft_R", 0.2)], lengths=_SHORT),
    Case("qwen3", "adamss", AdamssConfig(task_type="CAUSAL_LM", r=16, num_subspaces=3, subspace_rank=2,
                                         target_modules=["q_proj", "v_proj"]),
         [("adamss_A", 0.6), ("adamss_B", 0.6)], lengths=_SHORT),
]


def _build_peft(out, case):
    path, base = adapter_goldens.fresh_directory(out, case), f"{out}/models/{case.model}"
    with tempfile.TemporaryDirectory() as saved:
        torch.manual_seed(0)
        fresh = get_peft_model(adapter_goldens.load_base(out, case), case.config)
        adapter_goldens.randomise(fresh, case.key, case.rules)
        adapter_goldens.save_peft(fresh, saved, case)
        peft_complete.convert(saved, base, path)
        adapted = PeftModel.from_pretrained(adapter_goldens.load_base(out, case), saved).eval()
    for extra in ("README.md",):
        if os.path.exists(f"{path}/{extra}"):
            os.remove(f"{path}/{extra}")
    if os.path.exists(f"{path}/adapter_config.json"):
        adapter_goldens.store_as(path, case.stored_type)
        adapter_goldens.edit_config(path, base_model_name_or_path=f"tiny-{case.model}")
    adapter_goldens.record(path, adapter_goldens.load_base(out, case), adapted, case)


def _bitdelta(model, rng):
    """-> a BitDelta file's tensors; the model gets what they mean."""
    tensors = {}
    for place in places(model, "q", "k", "v", "o", "gate", "up", "down"):
        target = module(model, place)
        w = weight(target)
        signs = rng(place, *w.shape) >= 0
        replace(target, w + 0.04 * np.where(signs, 1.0, -1.0))
        path = next(name for name, found in model.named_modules() if found is target)
        tensors[f"{path}.mask"] = sign_bits(signs).T
        tensors[f"{path}.coeff"] = np.float32(0.04)
    norm = module(model, "normf").weight.detach().numpy() * (1 + 0.2 * rng("normf", 64))
    replace_norm(module(model, "normf"), norm)
    tensors["model.norm.weight"] = norm.astype(np.float32)
    return bitdelta.convert(tensors, f"tiny-{model.config.model_type}")


def _lycoris(model, rng):
    """LoKr (one factor low rank, alpha 3 at rank 2) and LoHa (rank 1)."""
    tensors = {}
    for place in places(model, "q", "o"):
        target = module(model, place)
        w = weight(target)
        prefix = f"lycoris_model_layers_{place[1]}_self_attn_{place[3]}_proj"
        w1 = rng(f"{place}.w1", 8, 4) / 2
        a, b = rng(f"{place}.a", w.shape[0] // 8, 2), rng(f"{place}.b", 2, w.shape[1] // 4) / 8
        if place.endswith("q"):
            replace(target, w + 3 / 2 * np.kron(w1, a @ b))
            tensors |= {f"{prefix}.lokr_w1": w1, f"{prefix}.lokr_w2_a": a, f"{prefix}.lokr_w2_b": b}
        else:
            left, right = rng(f"{place}.l", 2, w.shape[0], 1), rng(f"{place}.r", 2, 1, w.shape[1])
            right[0] *= 0.05
            replace(target, w + 3 * (left[0] @ right[0]) * (left[1] @ right[1]))
            tensors |= {f"{prefix}.hada_w1_a": left[0], f"{prefix}.hada_w1_b": right[0],
                        f"{prefix}.hada_w2_a": left[1], f"{prefix}.hada_w2_b": right[1]}
        tensors[f"{prefix}.alpha"] = np.float32(3)
    return lycoris.convert(tensors, {"model_type": "llama", "num_hidden_layers": 2}, "tiny-llama")


def _build_formula(out, case):
    import golden_lib
    path, adapted = adapter_goldens.fresh_directory(out, case), adapter_goldens.load_base(out, case)

    def rng(name, *shape):
        x = golden_lib.rng_for("exported", case.key, name).standard_normal(shape)
        return x.astype(np.float32).astype(np.float64)

    case.config(adapted, rng).write(path)
    adapter_goldens.record(path, adapter_goldens.load_base(out, case), adapted.eval(), case)


def build(out):
    for case in filter(adapter_goldens.wanted, _PEFT):
        _build_peft(out, case)
    for case in filter(adapter_goldens.wanted, [Case("mistral", "bitdelta", _bitdelta, []),
                                                Case("llama", "lycoris", _lycoris, [])]):
        _build_formula(out, case)
