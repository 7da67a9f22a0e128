"""AdaMix (Wang et al. 2022): LoRA and bottleneck experts that are one at inference, through tools/export/adamix.py, on
GPT-2 (zoo 5.5)."""
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
_BOTTLENECKS = Case("gpt2", "adamix_bottleneck", None, [], lengths=(1, 7, 20))


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


def _soup(side, experts):
    """The repository's expert_soup: one weight and one bias from all experts'."""
    share = torch.softmax(tensor(side["expert_score_weight"]), dim=-1)
    return [sum(share[k] * tensor(side[f"deepspeed_experts.{k}.{leaf}"]) for k in range(experts))
            for leaf in ("weight", "bias")]


def _behind_the_mlp(part):
    """The repository's forward: the MLP's output through both soups, added to itself."""
    (down, down_bias), (up, up_bias) = (_soup(part[leaf], count) for leaf, count in (("MoA_A", _EXPERTS), ("MoA_B", 1)))

    def hook(_, args, out):
        inner = torch.nn.functional.gelu(out @ down.T + down_bias, approximate="tanh")
        return inner @ up.T + up_bias + out
    return hook


def _build_bottlenecks(out):
    """Four experts down, one shared up."""
    path = adapter_goldens.fresh_directory(out, _BOTTLENECKS)
    adapted, state = adapter_goldens.load_base(out, _BOTTLENECKS), {}
    width, inner = adapted.config.n_embd, 6

    def rng(name, *shape):
        return golden_lib.rng_for("adamix", _BOTTLENECKS.key, name).standard_normal(shape).astype(np.float32)
    for layer in range(adapted.config.n_layer):
        part = {"MoA_A": {"expert_score_weight": rng(f"{layer}.score", _EXPERTS)},
                "MoA_B": {"expert_score_weight": rng(f"{layer}.score_up", 1)}}
        for k in range(_EXPERTS):
            part["MoA_A"][f"deepspeed_experts.{k}.weight"] = 2 * rng(f"{layer}.a{k}", inner, width) / np.sqrt(width)
            part["MoA_A"][f"deepspeed_experts.{k}.bias"] = 0.3 * rng(f"{layer}.ab{k}", inner)
        part["MoA_B"]["deepspeed_experts.0.weight"] = rng(f"{layer}.b", width, inner)
        part["MoA_B"]["deepspeed_experts.0.bias"] = 0.2 * rng(f"{layer}.bb", width)
        adapted.transformer.h[layer].mlp.register_forward_hook(_behind_the_mlp(part))
        state |= {f"transformer.h.{layer}.mlp.ExpertSoup.{side}.{name}": value
                  for side, tensors in part.items() for name, value in tensors.items()}
    adamix.convert_bottlenecks(state, f"tiny-{_BOTTLENECKS.model}").write(path)
    adapter_goldens.record(path, adapter_goldens.load_base(out, _BOTTLENECKS), adapted, _BOTTLENECKS)


def build(out):
    if adapter_goldens.wanted(_BOTTLENECKS):
        _build_bottlenecks(out)
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
