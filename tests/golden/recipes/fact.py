"""FacT: changes of every layer cut from one tensor, y += s V(S(U x)) (zoo 5.1), on GPT-2.

The reference computes the published modules' forward (four chunks for the wide side of the MLP) as hooks; the files
are made by tools/export/fact.py from tensors named as FacT's own files are.
"""
import numpy as np
import torch

from container_goldens import build_all, case, module, take
import fact  # tools/export, which container_goldens puts on the path

_RANK, _SCALE, _WIDE = 4, 2.0, 4


def _hook(target, change):
    target.register_forward_hook(lambda _, args, out: out + change(args[0]))


def _tensor(array):
    return torch.from_numpy(array).float()


def _run_as_published(model, layer, factors, cores):
    """cores: "q", "k", "v", "o" as [r, r] applied S (U x); "fc1" [4 r, r]; "fc2" [r, 4 r]."""
    u, v = (_tensor(f) for f in factors)
    c = {name: _tensor(core) for name, core in cores.items()}

    def attention(x):
        return torch.cat([_SCALE * (x @ u.T @ c[name].T) @ v.T for name in "qkv"], dim=-1)

    def widen(x):
        inner = x @ u.T @ c["fc1"].T
        return _SCALE * torch.cat([part @ v.T for part in inner.chunk(_WIDE, dim=-1)], dim=-1)

    def narrow(x):
        inner = torch.cat([part @ u.T for part in x.chunk(_WIDE, dim=-1)], dim=-1)
        return _SCALE * (inner @ c["fc2"].T) @ v.T

    _hook(module(model, f"L{layer}.qkv"), attention)
    _hook(module(model, f"L{layer}.o"), lambda x: _SCALE * (x @ u.T @ c["o"].T) @ v.T)
    _hook(module(model, f"L{layer}.fc1"), widen)
    _hook(module(model, f"L{layer}.fc2"), narrow)


def _factors(model, rng):
    width = model.config.n_embd
    return rng("u", _RANK, width) / np.sqrt(width), rng("v", width, _RANK) / np.sqrt(_RANK)


def _tensor_train(model, rng):
    factors = _factors(model, rng)
    tensors = {"FacTu.weight": factors[0], "FacTv.weight": factors[1]}
    for layer in range(model.config.n_layer):
        cores = {name: 0.2 * rng(f"{layer}.{name}", _RANK, _RANK) for name in "qkvo"}
        cores["fc1"] = 0.2 * rng(f"{layer}.fc1", _WIDE * _RANK, _RANK)
        cores["fc2"] = 0.1 * rng(f"{layer}.fc2", _RANK, _WIDE * _RANK)
        _run_as_published(model, layer, factors, cores)
        names = {"q": "attn.q", "k": "attn.k", "v": "attn.v", "o": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
        tensors |= {f"blocks.{layer}.{names[site]}_FacTs.weight": core for site, core in cores.items()}
    return tensors


def _tucker(model, rng):
    """Cores are slices of C x_3 P; 12 per layer: q, k, v, o, four for fc1, four for fc2."""
    factors = _factors(model, rng)
    c = 0.3 * rng("c", _RANK, _RANK, _RANK)
    p = 0.5 * rng("p", _RANK, 12 * model.config.n_layer)
    slices = torch.einsum("abc,ck->abk", torch.from_numpy(c), torch.from_numpy(p)).numpy()
    for layer in range(model.config.n_layer):
        at = slices[:, :, 12 * layer:]
        cores = {name: at[:, :, i].T for i, name in enumerate("qkvo")}  # applied as (U x)' core
        cores["fc1"] = at[:, :, 4:8].reshape(_RANK, _WIDE * _RANK).T
        cores["fc2"] = at[:, :, 8:12].reshape(_RANK, _WIDE * _RANK)
        _run_as_published(model, layer, factors, cores)
    return {"FacTu.weight": factors[0], "FacTv.weight": factors[1], "FacTc": c, "FacTp": p}


def _make(tensors_of):
    def make(model, box, rng):
        made = fact.convert(tensors_of(model, rng), _SCALE, box.base_name)
        take(box, made)
    return make


CASES = [
    case("gpt2", "fact_tt", "fact_tt", _make(_tensor_train)),
    case("gpt2", "fact_tk", "fact_tk", _make(_tucker)),
]


def build(out):
    build_all(out, CASES)
