#!/usr/bin/env python3
"""Converts SSF files to polyad's container: ssf.py STATE.pt BASE OUT

SSF scales and shifts what every linear layer and norm puts out: y = scale f(x) + shift. Its files name the pairs by
module and order: blocks.i.ssf_{scale,shift}_{1: first norm, 2: second norm}, blocks.i.attn.ssf_*_{1: qkv, 2: proj},
blocks.i.mlp.ssf_*_{1: fc1, 2: fc2} and ssf_*_1 for the last norm. BASE is the base's directory: a scale moves its
bias and its norms' weights too. A decoder with an RMS norm has nowhere to put that norm's shift: it must be zero.
Needs torch and numpy.
"""
import numpy as np

from command import arguments, base_name, read_state, weights_io
from container import Container

_LINEAR = {"attn.{}_1": "qkv", "attn.{}_2": "o", "mlp.{}_1": "fc1", "mlp.{}_2": "fc2"}
_NORM = {"{}_1": "norm1", "{}_2": "norm2"}
_GPT2 = {"qkv": "attn.c_attn", "o": "attn.c_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj", "norm1": "ln_1",
         "norm2": "ln_2"}


def _pair(tensors, pattern):
    return (tensors[pattern.format(part)].astype(np.float64) for part in ("ssf_scale", "ssf_shift"))


def _norm(box, place, base, name, scale, shift):
    bias = base.get(f"{name}.bias")
    if bias is None and np.any(shift):
        raise SystemExit(f"{name}: this norm has no bias to take the shift")
    box.add(place, "nw", w=scale * base[f"{name}.weight"], b=None if bias is None else scale * bias + shift)


def convert(tensors, base, name):
    """The file's and the base's {name: array} (GPT-2's names) -> a Container."""
    box = Container("ssf", name)
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    prefix = "transformer." if "transformer.ln_f.weight" in base else ""
    for layer in range(layers):
        module = f"{prefix}h.{layer}"
        for pattern, site in _LINEAR.items():
            scale, shift = _pair(tensors, f"blocks.{layer}.{pattern}")
            box.add(f"L{layer}.{site}", "os", c=scale)
            box.add(f"L{layer}.{site}", "bi", b=scale * base[f"{module}.{_GPT2[site]}.bias"] + shift)
        for pattern, site in _NORM.items():
            _norm(box, f"L{layer}.{site}", base, f"{module}.{_GPT2[site]}",
                  *_pair(tensors, f"blocks.{layer}.{pattern}"))
    _norm(box, "normf", base, f"{prefix}ln_f", *_pair(tensors, "{}_1"))
    return box


def main():
    args = arguments(__doc__, "state", "base", "out")
    base = weights_io.read_f32(f"{args.base}/model.safetensors")
    convert(read_state(args.state), base, base_name(args.base)).write(args.out)


if __name__ == "__main__":
    main()
