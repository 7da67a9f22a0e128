"""AdaMix (Wang et al. 2022): LoRA experts that are one at inference, through tools/export/adamix.py, on GPT-2 (zoo 5.5)."""
import numpy as np
import torch

import adapter_goldens
import golden_lib
from adapter_goldens import Case
from bottleneck_hooks import tensor
from container_goldens import module
import adamix  # tools/export, which container_goldens puts on the path
from command import write_lora

_RANK, _ALPHA, _EXPERTS = 3, 4.0, 4
_CASE = Case("gpt2", "adamix", None, [], lengths=(1, 7, 20))


def _published(part, width):
    """The repository's forward on q and v: weights of the experts, grouped convolution, zeros for k."""
    weights = torch.softmax(tensor(part["lora_expert_score_weight"]), dim=-1)
    a = sum(w * tensor(part[f"experts_lora_A.{k}"]) for k, w in enumerate(weights))
    b = sum(w * tensor(part[f"experts_lora_B.{k}"]) for k, w in enumerate(weights))

    def hook(_, args, out):
        after = torch.nn.functional.conv1d((args[0] @ a.T).transpose(-2, -1), b.unsqueeze(-1), groups=2).transpose(-2, -1)
        q, v = after[..., :width], after[..., width:]
        return out + _ALPHA / _RANK * torch.cat([q, torch.zeros_like(q), v], dim=-1)
    return hook


def build(out):
    if not adapter_goldens.wanted(_CASE):
        return
    path, adapted, state = adapter_goldens.fresh_directory(out, _CASE), adapter_goldens.load_base(out, _CASE), {}
    width = adapted.config.n_embd

    def rng(name, *shape):
        return golden_lib.rng_for("adamix", _CASE.key, name).standard_normal(shape).astype(np.float32)
    for layer in range(adapted.config.n_layer):
        part = {"lora_expert_score_weight": rng(f"{layer}.score", _EXPERTS)}
        for k in range(_EXPERTS):
            part[f"experts_lora_A.{k}"] = 1.5 * rng(f"{layer}.a{k}", 2 * _RANK, width) / np.sqrt(width)
            part[f"experts_lora_B.{k}"] = 1.5 * rng(f"{layer}.b{k}", 2 * width, _RANK)
        module(adapted, f"L{layer}.qkv").register_forward_hook(_published(part, width))
        state |= {f"transformer.h.{layer}.attn.c_attn.{name}": value for name, value in part.items()}
    tensors, config = adamix.convert(state, _ALPHA)
    write_lora(path, tensors, f"tiny-{_CASE.model}", config)
    adapter_goldens.record(path, adapter_goldens.load_base(out, _CASE), adapted, _CASE)
