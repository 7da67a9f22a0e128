#!/usr/bin/env python3
"""Converts AdaMix's LoRA experts to one PEFT LoRA directory: adamix.py STATE.pt OUT --alpha A --base NAME

For GPT-2's c_attn the file has <module>.experts_lora_A.k [2 r, d] and experts_lora_B.k [2 d, r], r rows and d rows for
q and for v, and lora_expert_score_weight. At inference the experts are one: their softmax-weighted sum, of A and of
B apart (one alone where it was shared). B's parts act on their own r rows of A, and k has none. Needs torch and numpy.
"""
import numpy as np

from command import arguments, read_state, write_lora

_SCORES = "lora_expert_score_weight"


def _mean(part, leaf, weights):
    experts = sorted((name for name in part if name.startswith(f"{leaf}.")), key=lambda name: int(name.split(".")[1]))
    if len(experts) == 1:
        return part[experts[0]]
    if len(experts) != len(weights):
        raise SystemExit(f"{leaf}: {len(experts)} experts for {len(weights)} scores")
    return sum(weight * part[name] for weight, name in zip(weights, experts))


def convert(tensors, alpha):
    """{name: array} of the file -> (the LoRA's {name: array}, its configuration)."""
    modules, rank = {}, 0
    for name, value in tensors.items():
        path, mark, leaf = name.partition(".experts_lora_")
        if name.endswith(f".{_SCORES}"):
            path, leaf = name[:-len(_SCORES) - 1], _SCORES
        elif not mark:
            raise SystemExit(f"tensor {name}: expected experts_lora_A, experts_lora_B or {_SCORES}")
        modules.setdefault(path, {})[leaf] = np.asarray(value, dtype=np.float64)
    state = {}
    for path, part in modules.items():
        scores = np.exp(part[_SCORES] - part[_SCORES].max())
        a, b = (_mean(part, leaf, scores / scores.sum()) for leaf in "AB")
        rank, width = b.shape[1], len(b) // 2
        spread = np.zeros((3 * width, 2 * rank))
        spread[:width, :rank], spread[2 * width:, rank:] = b[:width], b[width:]
        state[f"{path}.lora_A.weight"], state[f"{path}.lora_B.weight"] = a, spread
    return state, {"r": 2 * rank, "lora_alpha": 2 * alpha, "fan_in_fan_out": True,
                   "target_modules": sorted({path.rpartition(".")[2] for path in modules})}


def main():
    args = arguments(__doc__, "state", "out", alpha=float, base=str)
    state, config = convert(read_state(args.state), args.alpha)
    write_lora(args.out, state, args.base, config)


if __name__ == "__main__":
    main()
