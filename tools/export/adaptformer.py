#!/usr/bin/env python3
"""Converts AdaptFormer files to polyad's container: adaptformer.py STATE.pt OUT --scale S --base NAME

Beside the MLP of block i: x + s (W_u relu(W_d norm(x) + b_d) + b_u) of the stream entering it, from
blocks.i.adaptmlp.{down_proj,up_proj}.{weight,bias}, with .adapter_layer_norm_before.{weight,bias} where the file
has it and .scale where it was trained (S is then not needed). Needs torch and numpy.
"""
import numpy as np

from command import arguments, read_state
from container import Container


def _bias(part, name):
    return part.get(f"{name}.bias", np.zeros(len(part[f"{name}.weight"]), dtype=np.float32))


def convert(tensors, scale, base_name):
    """{name: array} of the file -> a Container."""
    box = Container("adaptformer", base_name)
    layers = sorted({int(name.split(".")[1]) for name in tensors if ".adaptmlp." in name})
    for layer in layers:
        prefix = f"blocks.{layer}.adaptmlp."
        part = {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}
        strength = float(part["scale"].reshape(-1)[0]) if "scale" in part else scale
        if strength is None:
            raise SystemExit(f"{prefix}scale: not in the file, give --scale")
        box.add(f"L{layer}.mlp", "bn", {"tap": "r", "act": "relu", "scale": strength},
                wd=part["down_proj.weight"], bd=_bias(part, "down_proj"), wu=part["up_proj.weight"],
                bu=_bias(part, "up_proj"), ln_w=part.get("adapter_layer_norm_before.weight"),
                ln_b=part.get("adapter_layer_norm_before.bias"))
    return box


def main():
    args = arguments(__doc__, "state", "out", scale=(float, None), base=str)
    convert(read_state(args.state), args.scale, args.base).write(args.out)


if __name__ == "__main__":
    main()
