"""DyLoRA, SoRA and QA-LoRA's own files through their exporters (zoo 5.1). The goldens are the published formulas:
DyLoRA at rank b of r, dW = (alpha / r) sqrt(r / b)^2 B[:, :b] A[:b]; SoRA, dW = (alpha / r) B diag(gate) A; QA-LoRA,
y += (alpha / r) B A mean(x) with the mean of each run of inputs (torch's AvgPool1d)."""
import os
import sys

import numpy as np
import torch

import golden_lib
from adapter_goldens import Case, fresh_directory, record, wanted

sys.path.append(os.path.join(golden_lib.HERE, "..", "..", "tools", "export"))
import dylora  # noqa: E402
import qalora  # noqa: E402
import sora  # noqa: E402
from command import write_lora  # noqa: E402

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


def _qalora(out, case, sites, group):
    path, base_path = fresh_directory(out, case), f"{out}/models/{case.model}"
    adapted, pool, tensors = golden_lib.load_model(base_path), torch.nn.AvgPool1d(group), {}
    for site in sites:
        target = adapted.get_submodule(site)
        rows, width = target.weight.shape
        rng = golden_lib.rng_for("adapter", case.key, site)
        a = (2 * rng.standard_normal((_RANK, width // group)) / np.sqrt(width // group)).astype(np.float32)
        b = (0.3 * rng.standard_normal((rows, _RANK))).astype(np.float32)
        tensors |= {f"base_model.model.{site}.lora_A.weight": a, f"base_model.model.{site}.lora_B.weight": b}
        target.register_forward_hook(lambda _, args, y, a=torch.from_numpy(a), b=torch.from_numpy(b):
                                     y + _ALPHA / _RANK * pool(args[0]) @ a.T @ b.T)
    state, config = qalora.convert(tensors, group, _ALPHA)
    write_lora(path, state, f"tiny-{case.model}", config)
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
    case = Case("llama", "qalora_own", None, [], lengths=(1, 7, 20))
    if wanted(case):
        _qalora(out, case, sites, 8)
