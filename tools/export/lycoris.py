#!/usr/bin/env python3
"""Converts LyCORIS LoKr and LoHa files to polyad's container: lycoris.py FILE.safetensors BASE OUT

LyCORIS names modules with underscores (lycoris_model_layers_0_self_attn_q_proj.lokr_w1); BASE/config.json says
which modules there are. `alpha` is a tensor; the change is alpha / rank times the product, and just the product
where both factors of a LoKr are whole. Needs numpy.
"""
import re

import numpy as np

from command import arguments, base_name, weights_io
from container import Container
from deltas import cheapest
from places import paths_of, place_of

_PREFIX = re.compile(r"^(?:lycoris|lora_unet|lora_te\d*|lora)_")
_KNOWN = {"alpha", "scalar", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "hada_w1_a",
          "hada_w1_b", "hada_w2_a", "hada_w2_b"}


def _factor(part, name):
    """(whole factor, rank or None)."""
    if name in part:
        return part[name], None
    return part[f"{name}_a"] @ part[f"{name}_b"], part[f"{name}_b"].shape[0]


def _scale(part, rank):
    alpha = float(part["alpha"].reshape(-1)[0]) if "alpha" in part and rank else rank or 1
    scalar = float(part["scalar"].reshape(-1)[0]) if "scalar" in part else 1.0
    return scalar * alpha / (rank or 1)


def _add(box, place, part):
    if "hada_w1_a" in part:
        rank = part["hada_w1_b"].shape[0]
        first, second = (part[f"hada_{w}_a"] @ part[f"hada_{w}_b"] for w in ("w1", "w2"))
        op, tensors = cheapest(_scale(part, rank) * first * second)
        box.add(place, op, **tensors)
        return
    (c, rank_c), (d, rank_d) = _factor(part, "lokr_w1"), _factor(part, "lokr_w2")
    box.add(place, "kr", {"scale": _scale(part, rank_d or rank_c)}, c=c, d=d)


def convert(tensors, base_config, base):
    """{name: array} of the file -> a Container."""
    paths = {path.replace(".", "_"): path
             for path in paths_of(base_config["model_type"],
                                  base_config.get("num_hidden_layers") or base_config["n_layer"])}
    modules = {}
    for name, value in tensors.items():
        module, _, leaf = name.partition(".")
        if leaf not in _KNOWN:
            raise SystemExit(f"tensor {name}: not served (a magnitude, or no LoKr or LoHa tensor)")
        path = paths.get(_PREFIX.sub("", module))
        if path is None:
            raise SystemExit(f"tensor {name}: the base has no module of this name")
        modules.setdefault(path, {})[leaf] = np.asarray(value, dtype=np.float64)
    box = Container("lycoris", base)
    for path, part in modules.items():
        _add(box, place_of(path), part)
    return box


def main():
    args = arguments(__doc__, "file", "base", "out")
    config = weights_io.read_json(f"{args.base}/config.json")
    convert(weights_io.read_f32(args.file), config, base_name(args.base)).write(args.out)


if __name__ == "__main__":
    main()
