#!/usr/bin/env python3
"""Converts a DyLoRA file to a PEFT LoRA directory at one of its ranks: dylora.py STATE.pt OUT --rank B --alpha A --base NAME

A DyLoRA file has <module>.lora_A [r, in] and <module>.lora_B [out, r] as loralib names them and serves every
rank b <= r: y += alpha / b B[:, :b] A[:b] x, which is a LoRA of rank b. Needs torch and numpy.
"""
import numpy as np

from command import arguments, read_state, write_lora


def truncated(tensors, rank):
    """{name: array} of the file -> the LoRA's {name: array} at the rank; other tensors are refused."""
    result, targets = {}, set()
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        if leaf not in ("lora_A", "lora_B"):
            raise SystemExit(f"tensor {name}: expected lora_A or lora_B")
        available = value.shape[0 if leaf == "lora_A" else 1]
        if not 1 <= rank <= available:
            raise SystemExit(f"tensor {name}: rank {rank} of {available}")
        part = value[:rank] if leaf == "lora_A" else value[:, :rank]
        result[f"{path}.{leaf}.weight"] = np.ascontiguousarray(part, dtype=np.float32)
        targets.add(path.rpartition(".")[2])
    return result, sorted(targets)


def write(tensors, rank, alpha, base, out):
    state, targets = truncated(tensors, rank)
    write_lora(out, state, base, {"r": rank, "lora_alpha": alpha, "target_modules": targets})


def main():
    args = arguments(__doc__, "state", "out", rank=int, alpha=float, base=str)
    write(read_state(args.state), args.rank, args.alpha, args.base, args.out)


if __name__ == "__main__":
    main()
