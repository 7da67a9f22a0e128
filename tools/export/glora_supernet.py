#!/usr/bin/env python3
"""Converts GLoRA's own files to polyad's container: glora_supernet.py STATE.pt CONFIG.json BASE OUT

STATE has every path of the supernet for each linear module (<module>.Ad, .Au, .Bd, .Bu, .Cd, .Cu, .D, .E); CONFIG
says which one the search chose: {"blocks.0.attn.qkv": {"A": "LoRA_4", "B": "vector", "C": "none", "D": "constant",
"E": "none"}, ...}. W' = W + W * A + B, b' = b + b * D + E + W C; LoRA_k multiplies the leading k directions, vector
takes the first column, constant the first entry. BASE is the base's directory (GPT-2's shape): D and C move its
bias. Needs torch and numpy.
"""
import numpy as np

from command import arguments, base_name, read_state, weights_io
from container import Container
from places import vit_place

_GPT2 = {"qkv": "attn.c_attn", "o": "attn.c_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}


def _factors(part, name, choice):
    """(down [out, k], up [k, in]) whose product the path is; None for none."""
    down, up = part[f"{name}d"], part[f"{name}u"]
    if choice.startswith("LoRA_"):
        rank = int(choice.removeprefix("LoRA_"))
        return down[:, :rank], up[:rank]
    if choice == "vector":
        return down[:, :1], np.ones((1, up.shape[1]))
    if choice == "constant":
        return np.full((len(down), 1), down[0, 0]), np.ones((1, up.shape[1]))
    if choice != "none":
        raise SystemExit(f"CONFIG: {name}: {choice} is not understood")
    return None


def _vector(values, choice):
    return {"none": 0.0, "vector": values, "constant": values[0]}[choice]


def _add(box, place, part, choices, base):
    weight, bias = base
    scales = _factors(part, "A", choices["A"])
    if scales and choices["A"].startswith("LoRA_"):
        box.add(place, "hd", u=scales[1], v=scales[0])
    elif scales:
        box.add(place, "os", c=1 + scales[0][:, 0])
    if change := _factors(part, "B", choices["B"]):
        box.add(place, "lr", a=change[1], b=change[0])
    delta = bias * _vector(part["D"], choices["D"]) + _vector(part["E"], choices["E"])
    if prompt := _factors(part, "C", choices["C"]):
        delta = delta + (weight @ prompt[0] @ prompt[1])[:, 0]
    if np.any(delta):
        box.add(place, "bi", delta=np.broadcast_to(delta, bias.shape))


def convert(tensors, chosen, base, name):
    """The file's and the base's {name: array} (GPT-2's names) and the chosen paths -> a Container."""
    box = Container("glora", name)
    prefix = "transformer." if "transformer.ln_f.weight" in base else ""
    for module, choices in chosen.items():
        layer, place = vit_place(module)
        part = {leaf: np.asarray(tensors[f"{module}.{leaf}"], dtype=np.float64)
                for leaf in ("Ad", "Au", "Bd", "Bu", "Cd", "Cu", "D", "E")}
        path = f"{prefix}h.{layer}.{_GPT2[place.split('.')[1]]}"
        of_base = (base[f"{path}.weight"].T.astype(np.float64), base[f"{path}.bias"].astype(np.float64))
        _add(box, place, part, choices, of_base)
    return box


def main():
    args = arguments(__doc__, "state", "config", "base", "out")
    base = weights_io.read_f32(f"{args.base}/model.safetensors")
    chosen = weights_io.read_json(args.config)
    convert(read_state(args.state), chosen, base, base_name(args.base)).write(args.out)


if __name__ == "__main__":
    main()
