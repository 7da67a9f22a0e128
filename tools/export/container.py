"""Writes polyad's own adapter directory, zoo.json and zoo.safetensors, for families without a public format.

    box = Container("ssf", "my-base")
    box.add("L0.q", "os", c=gamma)            # tensors of one op at one place; more of a kind get i = 1, 2 ...
    box.add("L0.q", "lr", a="u", b=b)         # "u" names a tensor given to share()
    box.write(path)

A place is L<layer>.<site> with site one of q k v qkv o gate up down fc1 fc2 norm1 norm2, or embed, head, normf.
Arrays are float32 or integers; docs/container.md lists the ops and their tensors.
"""
import os
import sys

import numpy as np

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import weights_io  # noqa: E402

_INTEGERS = {np.dtype(np.int8): "I8", np.dtype(np.int32): "I32", np.dtype(np.int64): "I64"}


def _encode(array, dtype):
    array = np.asarray(array)
    if array.dtype in _INTEGERS:
        return _INTEGERS[array.dtype], np.ascontiguousarray(array)
    return weights_io.encode(array.astype(np.float32), dtype)


class Container:
    def __init__(self, family, base_name, dtype="F32", base_sha256=""):
        self.family, self.base_name, self.dtype, self.base_sha256 = family, base_name, dtype, base_sha256
        self.tensors, self.sites, self.hooks, self._counts = {}, {}, [], {}

    def share(self, name, array):
        self.tensors[f"shared.{name}"] = _encode(array, self.dtype)
        return name

    def add(self, place, op, options=None, **tensors):
        """One op; a string in place of an array refers to a shared tensor. options go to zoo.json."""
        index = self._counts.setdefault((place, op), 0)
        self._counts[place, op] += 1
        name, options = f"{place}.{op}.{index}", dict(options or {})
        for key, value in tensors.items():
            if isinstance(value, str):
                options[key] = f"shared.{value}"
            elif value is not None:
                self.tensors[f"{name}.{key}"] = _encode(value, self.dtype)
        if options:
            self.sites[name] = options

    def write(self, path):
        os.makedirs(path, exist_ok=True)
        weights_io.write_safetensors(f"{path}/zoo.safetensors", self.tensors)
        digest = {"weights_sha256": self.base_sha256} if self.base_sha256 else {}
        weights_io.write_json(f"{path}/zoo.json", {
            "zoo_version": 1, "family": self.family, "base": {"name": self.base_name} | digest,
            "dtype": self.dtype.lower(), "sites": self.sites, "hooks": self.hooks})


def sparse_rows(delta):
    """A dense change [out, in] -> its rowptr, col, val (CSR) for the op sp."""
    rows, cols = np.nonzero(delta)
    counts = np.bincount(rows, minlength=delta.shape[0])
    rowptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return {"rowptr": rowptr, "col": cols.astype(np.int32), "val": delta[rows, cols].astype(np.float32)}


def sign_bits(signs):
    """[out, in] of booleans -> [out, ceil(in / 32)] words, as int32; bit k of word w is input 32 w + k."""
    out, width = signs.shape
    words = -(-width // 32)
    padded = np.zeros((out, words * 32), dtype=np.uint8)
    padded[:, :width] = signs
    return np.packbits(padded, axis=1, bitorder="little").view("<i4").reshape(out, words)
