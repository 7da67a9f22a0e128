"""Writes gguf_dequant_goldens.txt: blocks of every type that GGUF files decode from, and what they hold.

Random blocks (fixed seed, finite scales) are decoded by the gguf package's quants module. A line is
`type number, type name, block bytes as hex, decoded f32 bits as hex`. Run with gguf and numpy
installed: `python3 make_dequant_goldens.py > gguf_dequant_goldens.txt` (gguf 0.19 made the committed file).
"""
import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T

# Byte offsets of the f16 scales in a block.
SCALES = {T.Q5_0: [0], T.Q5_1: [0, 2], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0]}


def main():
    rng = np.random.default_rng(7)
    for kind, offsets in SCALES.items():
        elements, size = GGML_QUANT_SIZES[kind]
        for _ in range(2):
            block = rng.integers(0, 256, size, dtype=np.uint8)
            for offset in offsets:
                scale = np.float16(rng.normal() * 0.1)
                block[offset:offset + 2] = np.frombuffer(scale.tobytes(), np.uint8)
            values = quants.dequantize(block.reshape(1, size), kind).astype(np.float32)
            assert values.size == elements and np.isfinite(values).all()
            print(int(kind), kind.name, block.tobytes().hex(), values.tobytes().hex())


if __name__ == "__main__":
    main()
