"""RepAdapter: x <- x + s (B(A x + a) + b) before the projections (zoo 5.5), B in two groups."""
import numpy as np
import torch

from container_goldens import build_all, case, module, places

_RANK, _GROUPS, _SCALE = 4, 2, 0.8


def _make(sites):
    def make(model, box, rng):
        for place in places(model, "attention", "mlp"):
            layer, kind = place.split(".")
            targets = [f"{layer}.{site}" for site in sites[kind]]
            width = module(model, targets[0]).weight.shape[0 if model.config.model_type == "gpt2" else 1]
            a, a_bias = rng(f"{place}.a", _RANK, width) / np.sqrt(width), 0.3 * rng(f"{place}.ab", _RANK)
            groups = 0.6 * rng(f"{place}.b", _GROUPS, width // _GROUPS, _RANK // _GROUPS)
            b_bias = 0.3 * rng(f"{place}.bb", width)
            b = np.zeros((width, _RANK))
            for g in range(_GROUPS):
                b[g * width // _GROUPS:(g + 1) * width // _GROUPS,
                  g * _RANK // _GROUPS:(g + 1) * _RANK // _GROUPS] = groups[g]
            t = [torch.from_numpy(x).float() for x in (a, a_bias, groups, b_bias)]

            def before(_, args, t=t):
                x, = args
                inner = (x @ t[0].T + t[1]).chunk(_GROUPS, dim=-1)
                up = torch.cat([part @ group.T for part, group in zip(inner, t[2])], dim=-1)
                return (x + _SCALE * (up + t[3]),)

            for target in targets:
                module(model, target).register_forward_pre_hook(before)
                box.add(target, "il", {"scale": _SCALE}, a=a, a_bias=a_bias, b=b, b_bias=b_bias)
    return make


CASES = [
    case("qwen2", "repadapter", "repadapter", _make({"attention": "qkv", "mlp": ["gate", "up"]})),
    case("gpt2", "repadapter", "repadapter", _make({"attention": ["qkv"], "mlp": ["fc1"]})),
]


def build(out):
    build_all(out, CASES)
