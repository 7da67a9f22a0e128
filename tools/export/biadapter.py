#!/usr/bin/env python3
"""Converts Bi-Adapter files to polyad's container:
biadapter.py FILE.bin OUT --layers L --width D --dim R --base NAME [--bit 1] [--scale 1] [--method adaptformer]

The file is bytes: for each quantised matrix, in the order of the modules, its codes (8 / bit a byte, the lowest digit
first), then its mean and deviation as float32; then a classifier head, which a decoder has no place for and which
is left out. A value is code * deviation + mean; the codes are a normal distribution's cells of equal weight, moved
until each cell's border lies between its neighbours' medians. Bi-AdaptFormer has a pair [R, D], [D, R] a layer:
beside the MLP, x + s W_u relu(W_d x); Bi-LoRA (--method lora) has one for q and one for v. Needs numpy.
"""
from statistics import NormalDist

import numpy as np

from command import arguments
from container import Container

_ROUNDS = 500  # what the original runs; it has long settled by then


def codebook(bit):
    """The 2^bit levels."""
    normal, levels = NormalDist(), [0.0] * 2 ** bit
    for _ in range(_ROUNDS):
        borders = [normal.cdf((a + b) / 2) for a, b in zip(levels, levels[1:])]
        levels = [normal.inv_cdf((a + b) / 2) for a, b in zip([0.0, *borders], [*borders, 1.0])]
    return np.array(levels, dtype=np.float32)


class _Reader:
    def __init__(self, data, bit):
        self.data, self.bit, self.levels = data, bit, codebook(bit)

    def matrix(self, rows, cols):
        per_byte = 8 // self.bit
        count = rows * cols // per_byte
        if len(self.data) < count + 8:
            raise SystemExit(f"the file ends within a matrix [{rows}, {cols}]: expected {count + 8} bytes, "
                             f"got {len(self.data)}")
        digits = np.frombuffer(self.data[:count], dtype=np.uint8)[:, None] >> (self.bit * np.arange(per_byte))
        mean, deviation = np.frombuffer(self.data[count:count + 8], dtype="<f4")
        self.data = self.data[count + 8:]
        return (self.levels[(digits & (2 ** self.bit - 1)).reshape(rows, cols)] * deviation + mean).astype(np.float32)

    def pair(self, dim, width):
        return self.matrix(dim, width), self.matrix(width, dim)


def convert(data, shape, bit, scale, method, base):
    """The file's bytes; shape: (layers, width, dim) -> a Container."""
    layers, width, dim = shape
    if 8 % bit or dim * width * bit % 8:
        raise SystemExit(f"--bit {bit}: a matrix [{dim}, {width}] of such codes is no whole number of bytes")
    reader, box = _Reader(data, bit), Container("bi_adapter", base)
    for layer in range(layers):
        if method == "lora":
            for site in "qv":
                a, b = reader.pair(dim, width)
                box.add(f"L{layer}.{site}", "lr", {"scale": scale}, a=a, b=b)
            continue
        down, up = reader.pair(dim, width)
        box.add(f"L{layer}.mlp", "bn", {"tap": "r", "act": "relu", "scale": scale}, wd=down, bd=np.zeros(dim), wu=up,
                bu=np.zeros(width))
    if len(reader.data) % (4 * (width + 1)):
        raise SystemExit(f"{len(reader.data)} bytes are left: expected a head of classes of {width} + 1 float32")
    return box


def main():
    args = arguments(__doc__, "file", "out", layers=int, width=int, dim=int, bit=(int, 1), scale=(float, 1.0),
                     method=["adaptformer", "lora"], base=str)
    with open(args.file, "rb") as file:
        data = file.read()
    convert(data, (args.layers, args.width, args.dim), args.bit, args.scale, args.method, args.base).write(args.out)


if __name__ == "__main__":
    main()
