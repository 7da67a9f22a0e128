#!/usr/bin/env python3
"""Converts a BitDelta file to polyad's container: bitdelta.py DIFF.pt OUT --base NAME

For every projection the file has <module>.mask, int32 words [in / 32, out] whose bit k of word w is the sign of
input 32 w + k (set: +1), and <module>.coeff, one number; W' = W + coeff sign. Every other key replaces the
base's tensor. Needs torch and numpy; the file is opened with torch's weights-only unpickler.
"""
import numpy as np

from command import arguments, read_state
from container import Container
from places import place_of


def convert(tensors, base_name):
    """{name: array} as the file has them -> a Container."""
    box = Container("bitdelta", base_name)
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        place = place_of(path)
        if place is None:
            raise SystemExit(f"tensor {name}: not a module of a decoder that polyad serves")
        if leaf == "mask":
            box.add(place, "sg", bits=np.ascontiguousarray(value.T.astype(np.int32)),
                    coef=np.asarray(tensors[f"{path}.coeff"], dtype=np.float32).reshape(()))
        elif leaf == "bias":
            box.add(place, "bi", b=value)
        elif leaf == "weight" and "norm" in place:
            box.add(place, "nw", w=value, b=tensors.get(f"{path}.bias"))
        elif leaf == "weight":
            box.add(place, "dd", replace=value)
        elif leaf != "coeff":
            raise SystemExit(f"tensor {name}: no mask, coeff, weight or bias")
    return box


def main():
    args = arguments(__doc__, "diff", "out", base=str)
    convert(read_state(args.diff), args.base).write(args.out)


if __name__ == "__main__":
    main()
