"""DyLoRA and SoRA through their exporters (zoo 5.1). The goldens are the published formulas put into the dense weights:
DyLoRA at rank b of r, dW = (alpha / r) sqrt(r / b)^2 B[:, :b] A[:b]; SoRA, dW = (alpha / r) B diag(gate) A."""
import os
import sys

import numpy as np
import torch

import golden_lib
from adapter_goldens import Case, fresh_directory, record, wanted

sys.path.append(os.path.join(golden_lib.HERE, "..", "..", "tools", "export"))
import dylora  # noqa: E402
import sora  # noqa: E402

_RANK, _ALPHA = 6, 9.0


def _state(case, sites, base):
    """Random factors of some sites as the original repositories name them."""
    state = {}
    for path in sites:
        out, fan_in = base.get_submodule(path).weight.shape
        for leaf, shape, scale in (("lora_A", (_RANK, fan_in), fan_in ** -0.5), ("lora_B", (out, _RANK), 0.15)):
            rng = golden_lib.rng_for("adapter", case.key, path, leaf)
            state[f"{path}.{leaf}"] = scale * rng.standard_normal(shape)
    return state


def _merge(base, path, delta):
    base.get_submodule(path).weight.data += torch.from_numpy(delta).float()


def _dylora(out, case, sites, rank):
    path, base_path = fresh_directory(out, case), f"{out}/models/{case.model}"
    adapted = golden_lib.load_model(base_path)
    state = _state(case, sites, adapted)
    dylora.write(state, rank, _ALPHA, f"tiny-{case.model}", path)
    for site in sites:
        a, b = state[f"{site}.lora_A"], state[f"{site}.lora_B"]
        _merge(adapted, site, _ALPHA / _RANK * np.sqrt(_RANK / rank) ** 2 * b[:, :rank] @ a[:rank])
    record(path, golden_lib.load_model(base_path), adapted, case)


def _sora(out, case, sites):
    path, base_path = fresh_directory(out, case), f"{out}/models/{case.model}"
    adapted = golden_lib.load_model(base_path)
    state = _state(case, sites, adapted)
    for i, site in enumerate(sites):
        gate = golden_lib.rng_for("adapter", case.key, site, "gate").standard_normal((1, _RANK))
        gate[0, i % _RANK:i % _RANK + 2] = 0
        state[f"{site}.gate"] = gate
        _merge(adapted, site, _ALPHA / _RANK * (state[f"{site}.lora_B"] * gate) @ state[f"{site}.lora_A"])
    sora.write(state, _ALPHA, f"tiny-{case.model}", path)
    record(path, golden_lib.load_model(base_path), adapted, case)


def build(out):
    sites = [f"model.layers.{i}.{m}" for i in range(2) for m in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")]
    for rank in (1, 4):
        case = Case("llama", f"dylora_rank{rank}", None, [])
        if wanted(case):
            _dylora(out, case, sites, rank)
    case = Case("qwen3", "sora", None, [])
    if wanted(case):
        _sora(out, case, sites)
