#!/usr/bin/env python3
"""Converts ProPETL adapters to polyad's container: propetl.py STATE.bin OUT --sparsity K --base NAME [--act relu]

One prototype adapter is shared by all layers; each layer (and task) has scores down_mask [d, b] and up_mask [b, d]
in <layer>.<place>.adapters_mask.<name>, of which the share K with the largest magnitude is kept:
W_d = W masked by down_mask', W_u = W masked by up_mask'. The adapter stands as AdapterHub's sequential one does:
behind the MLP (output) it reads r + o, behind attention (attention.output) it reads o. Several names become tasks in
the order of their names, which is printed. Needs torch and numpy.
"""
import re

import numpy as np

from command import arguments, read_state
from container import Container

_NAME = re.compile(r"(?:.*\.)?(\d+)\.(attention\.)?output\.(adapters|adapters_mask)\.([^.]+)\.(.+)")
_PROTOTYPE = {"wd": "adapter_down.0.weight", "bd": "adapter_down.0.bias", "wu": "adapter_up.weight",
              "bu": "adapter_up.bias"}


def mask_of(scores, kept):
    """1 for the share `kept` of scores with the largest magnitude; the lowest floor((1 - kept) n) become 0."""
    flat = np.abs(np.asarray(scores)).reshape(-1)
    mask = np.ones(flat.size, dtype=np.float32)
    mask[np.argsort(flat, kind="stable")[:int((1 - kept) * flat.size)]] = 0
    return mask.reshape(np.shape(scores))


def convert(tensors, kept, act, base):
    """{name: array} of the file -> (a Container, the names in the order of their tasks)."""
    prototypes, masks = {}, {}
    for name, value in tensors.items():
        found = _NAME.fullmatch(name)
        if not found:
            raise SystemExit(f"tensor {name}: no adapter of a layer")
        place = f"L{found[1]}.{'attn' if found[2] else 'mlp'}"
        if found[3] == "adapters":
            prototypes.setdefault(place, {})[found[5]] = np.asarray(value)
        else:
            masks.setdefault(found[4], {}).setdefault(place, {})[found[5]] = np.asarray(value)
    box, names = Container("propetl", base), sorted(masks)
    for task, name in enumerate(names):
        for place, scores in masks[name].items():
            parts = {key: prototypes[place][leaf] for key, leaf in _PROTOTYPE.items()}
            parts["wd"] = parts["wd"] * mask_of(scores["down_mask"], kept).T
            parts["wu"] = parts["wu"] * mask_of(scores["up_mask"], kept).T
            options = {"tap": "z" if place.endswith("mlp") else "o", "act": act}
            box.add(place, "bn", options | ({"task": task} if len(names) > 1 else {}), **parts)
    return box, names


def main():
    args = arguments(__doc__, "state", "out", sparsity=float, act=(str, "relu"), base=str)
    box, names = convert(read_state(args.state), args.sparsity, args.act, args.base)
    box.write(args.out)
    for task, name in enumerate(names):
        print(f"task {task}: {name}")


if __name__ == "__main__":
    main()
