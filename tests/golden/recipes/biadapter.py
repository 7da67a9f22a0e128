"""Bi-Adapter (Jie et al. 2023): adapters of one or two bits an entry, through tools/export/biadapter.py (zoo 5.3).

The files' bytes are made here from random codes, and the reference decodes them one entry at a time.
"""
import struct

import numpy as np
import torch

from bottleneck_hooks import add_to_sub_layer, beside, tensor
from container_goldens import build_all, case, module, take
import biadapter  # tools/export, which container_goldens puts on the path


def _levels(bit):
    """Each level is the median of its cell, each border the middle of two levels."""
    normal, levels = torch.distributions.Normal(0.0, 1.0), torch.linspace(-1, 1, 2 ** bit, dtype=torch.float64)
    for _ in range(2000):
        borders = normal.cdf((levels[1:] + levels[:-1]) / 2)
        edges = torch.cat([torch.zeros(1), borders, torch.ones(1)])
        levels = normal.icdf((edges[1:] + edges[:-1]) / 2)
    return levels.numpy()


class _File:
    """Bytes of a file, and what they mean."""

    def __init__(self, rng, bit):
        self.rng, self.bit, self.data = rng, bit, b""
        self.levels = _levels(bit)

    def matrix(self, name, rows, cols, deviation):
        codes = (self.rng(name, rows * cols) * 1e6).astype(np.int64) % 2 ** self.bit
        per_byte = 8 // self.bit
        for start in range(0, len(codes), per_byte):
            self.data += bytes([sum(int(code) * (2 ** self.bit) ** i for i, code in enumerate(codes[start:start + per_byte]))])
        mean = 0.05 * deviation
        self.data += struct.pack("f", mean) + struct.pack("f", deviation)
        return np.array([self.levels[code] * deviation + mean for code in codes]).reshape(rows, cols)


def _adaptformer(model, box, rng):
    file, dim, width = _File(rng, 1), 8, 64
    for layer in range(model.config.num_hidden_layers):
        down, up = file.matrix(f"{layer}.d", dim, width, 0.15), file.matrix(f"{layer}.u", width, dim, 0.4)
        add_to_sub_layer(model, f"L{layer}.mlp",
                         lambda u, d=tensor(down), w=tensor(up): 0.5 * torch.relu(u @ d.T) @ w.T, "r")
    head = np.zeros(3 * (width + 1), dtype=np.float32).tobytes()  # of three classes
    shape = (model.config.num_hidden_layers, width, dim)
    take(box, biadapter.convert(file.data + head, shape, 1, 0.5, "adaptformer", box.base_name))


def _lora(model, box, rng):
    file, dim, width = _File(rng, 2), 4, 64
    for layer in range(model.config.num_hidden_layers):
        for site in "qv":
            down, up = file.matrix(f"{layer}.{site}d", dim, width, 0.12), file.matrix(f"{layer}.{site}u", width, dim, 0.3)
            beside(module(model, f"L{layer}.{site}"), lambda x, d=tensor(down), w=tensor(up): 2.0 * (x @ d.T) @ w.T)
    shape = (model.config.num_hidden_layers, width, dim)
    take(box, biadapter.convert(file.data, shape, 2, 2.0, "lora", box.base_name))


CASES = [
    case("llama", "bi_adaptformer", "bi_adapter", _adaptformer, lengths=(1, 7, 20)),
    case("llama_sharded", "bi_lora", "bi_adapter", _lora, lengths=(1, 7, 20)),
]


def build(out):
    build_all(out, CASES)
