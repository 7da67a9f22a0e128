"""Weight bytes without a tensor framework: bfloat16 rounding and the safetensors container.

A tensor is a (dtype, array) pair here; dtype is the safetensors name ("F32", "F16", "BF16", "I32").
BF16 arrays hold the raw 16 bits as uint16. Source of the container: safetensors 0.8 format page
(8-byte little-endian header length, JSON header, then the bytes; offsets count from the bytes' start).
"""
import json
import os
import struct

import numpy as np

_NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16,
          "I64": np.int64, "I32": np.int32, "U8": np.uint8, "I8": np.int8, "F8_E4M3": np.uint8}


def f32_to_bf16(x):
    """float32 values -> bfloat16 bits, rounded to nearest even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def encode(x, dtype):
    """float array -> (dtype, stored array)."""
    if dtype == "BF16":
        return dtype, f32_to_bf16(x)
    return dtype, np.ascontiguousarray(x, dtype=_NUMPY[dtype])


def write_safetensors(path, tensors, metadata=None):
    """tensors: {name: (dtype, array)}. Names are written sorted, so that equal input gives equal bytes."""
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    names = sorted(tensors)
    for name in names:
        dtype, array = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            out.write(np.ascontiguousarray(tensors[name][1]).tobytes())


def read_safetensors(path):
    """-> {name: (dtype, array)}; BF16 as raw bits."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
        data = f.read()
    header.pop("__metadata__", None)
    result = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], dtype=_NUMPY[entry["dtype"]])
        result[name] = (entry["dtype"], array.reshape(entry["shape"]))
    return result


def read_f32(path):
    """-> {name: float32 array}, whatever the stored float type."""
    return {name: bf16_to_f32(a) if dtype == "BF16" else a.astype(np.float32)
            for name, (dtype, a) in read_safetensors(path).items()}


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def base_name(path):
    return os.path.basename(os.path.normpath(path))
