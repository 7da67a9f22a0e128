#!/usr/bin/env python3
"""Converts a SoRA file to a PEFT LoRA directory: sora.py STATE.pt OUT --alpha A --base NAME

A SoRA file has <module>.lora_A [r, in], <module>.lora_B [out, r] and <module>.gate [1, r]:
y += alpha / r B (gate * (A x)). Directions whose gate is zero are dropped, so ranks differ by module. Needs torch and
numpy.
"""
import numpy as np

from command import arguments, read_state, write_lora


def folded(tensors, alpha):
    """{name: array} of the file -> (the LoRA's {name: array}, {module: rank}, {module: alpha})."""
    result, ranks, alphas = {}, {}, {}
    for path in sorted({name.rpartition(".")[0] for name in tensors}):
        try:
            a, b, gate = (tensors.pop(f"{path}.{leaf}") for leaf in ("lora_A", "lora_B", "gate"))
        except KeyError as missing:
            raise SystemExit(f"tensor {missing}: missing") from None
        gate = gate.reshape(-1)
        if not a.shape[0] == b.shape[1] == gate.size:
            raise SystemExit(f"module {path}: lora_A {a.shape}, lora_B {b.shape}, gate {gate.size}: ranks differ")
        kept = np.flatnonzero(gate)
        if not kept.size:
            continue
        result[f"{path}.lora_A.weight"] = (gate[kept, None] * a[kept]).astype(np.float32)
        result[f"{path}.lora_B.weight"] = np.ascontiguousarray(b[:, kept], dtype=np.float32)
        ranks[path], alphas[path] = int(kept.size), alpha * kept.size / gate.size
    if tensors:
        raise SystemExit(f"tensor {sorted(tensors)[0]}: expected lora_A, lora_B or gate")
    return result, ranks, alphas


def write(tensors, alpha, base, out):
    state, ranks, alphas = folded(dict(tensors), alpha)
    write_lora(out, state, base, {
        "r": max(ranks.values()), "lora_alpha": alpha, "rank_pattern": ranks, "alpha_pattern": alphas,
        "target_modules": sorted({path.rpartition(".")[2] for path in ranks})})


def main():
    args = arguments(__doc__, "state", "out", alpha=float, base=str)
    write(read_state(args.state), args.alpha, args.base, args.out)


if __name__ == "__main__":
    main()
