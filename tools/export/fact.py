#!/usr/bin/env python3
"""Converts FacT files to polyad's container: fact.py STATE.pt OUT --scale S --base NAME

FacT cuts every layer's change from one tensor: y += s V(S(U x)) with U [r, d] (FacTu.weight) and V [d, r]
(FacTv.weight) for the whole model. Tensor-train files store S per site: blocks.i.attn.{q,k,v,proj}_FacTs.weight
[r, r], blocks.i.mlp.fc1_FacTs.weight [4 r, r] and fc2_FacTs.weight [r, 4 r]. Tucker files store FacTc [r, r, r] and
FacTp [r, 12 * layers]; a layer's S are twelve slices of their product, for q, k, v, proj, four for fc1, four for fc2.
The wide side of the MLP is four widths of d. The decoder must have that shape (GPT-2). Needs torch and numpy.
"""
import numpy as np

from command import arguments, read_state
from container import Container

_WIDE = 4
_ATTENTION = {"q": "q", "k": "k", "v": "v", "o": "proj"}


def _train_cores(tensors, layer):
    block = f"blocks.{layer}"
    cores = {site: tensors[f"{block}.attn.{name}_FacTs.weight"] for site, name in _ATTENTION.items()}
    return cores | {name: tensors[f"{block}.mlp.{name}_FacTs.weight"] for name in ("fc1", "fc2")}


def _tucker_cores(slices, layer):
    """Slices act as (U x)' core; the four of an MLP matrix are read as one [r, 4 r]."""
    at, rank = slices[:, :, 12 * layer:], slices.shape[0]
    cores = {site: at[:, :, i].T for i, site in enumerate(_ATTENTION)}
    cores["fc1"] = at[:, :, 4:8].reshape(rank, _WIDE * rank).T
    cores["fc2"] = at[:, :, 8:12].reshape(rank, _WIDE * rank)
    return cores


def convert(tensors, scale, base_name):
    """{name: array} of the file -> a Container."""
    u, v = tensors["FacTu.weight"], tensors["FacTv.weight"]
    tucker = "FacTc" in tensors
    box = Container("fact_tk" if tucker else "fact_tt", base_name)
    box.share("u", u)
    box.share("v", v)
    options = {"scale": scale}
    if tucker:
        slices = np.einsum("abc,ck->abk", tensors["FacTc"], tensors["FacTp"])
        layers = [_tucker_cores(slices, layer) for layer in range(slices.shape[2] // 12)]
    else:
        count = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        layers = [_train_cores(tensors, layer) for layer in range(count)]
    for layer, cores in enumerate(layers):
        box.add(f"L{layer}.qkv", "lr", options, a="u", b=np.concatenate([v @ cores[site] for site in "qkv"]))
        box.add(f"L{layer}.o", "lr", options, a="u", b=v @ cores["o"])
        chunks = np.split(cores["fc1"], _WIDE)
        box.add(f"L{layer}.fc1", "lr", options, a="u", b=np.concatenate([v @ chunk for chunk in chunks]))
        parts = np.split(cores["fc2"], _WIDE, axis=1)
        box.add(f"L{layer}.fc2", "lr", options, a=np.concatenate([part @ u for part in parts], axis=1), b="v")
    return box


def main():
    args = arguments(__doc__, "state", "out", scale=float, base=str)  # the file lacks the configuration's scale
    convert(read_state(args.state), args.scale, args.base).write(args.out)


if __name__ == "__main__":
    main()
