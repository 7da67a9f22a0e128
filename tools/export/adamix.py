#!/usr/bin/env python3
"""Converts AdaMix's experts on GPT-2 to one adapter: adamix.py STATE.pt OUT [--alpha A] --base NAME

LoRA experts become a PEFT LoRA directory, which needs --alpha; bottleneck experts a container. For GPT-2's c_attn the file has <module>.experts_lora_A.k [2 r, d] and experts_lora_B.k [2 d, r], r rows and d rows for
q and for v, and lora_expert_score_weight. At inference the experts are one: their softmax-weighted sum, of A and of
B apart (one alone where it was shared). B's parts act on their own r rows of A, and k has none.

Behind the MLP of a layer the file has <layer>.mlp.ExpertSoup.{MoA_A,MoA_B}.deepspeed_experts.k.{weight,bias}, each
side with its own expert_score_weight: h + W_B gelu(W_A h + b_A) + b_B of the MLP's output h, gelu by tanh, with each
side's experts summed likewise. Needs torch and numpy.
"""
import re

import numpy as np

from command import arguments, read_state, write_lora
from container import Container

_SCORES = "lora_expert_score_weight"
_SOUP = re.compile(r"transformer\.h\.(\d+)\.mlp\.ExpertSoup\.MoA_([AB])\."
                   r"(expert_score_weight|deepspeed_experts\.(\d+)\.(weight|bias))")


def _softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


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
        a, b = (_mean(part, leaf, _softmax(part[_SCORES])) for leaf in "AB")
        rank, width = b.shape[1], len(b) // 2
        spread = np.zeros((3 * width, 2 * rank))
        spread[:width, :rank], spread[2 * width:, rank:] = b[:width], b[width:]
        state[f"{path}.lora_A.weight"], state[f"{path}.lora_B.weight"] = a, spread
    return state, {"r": 2 * rank, "lora_alpha": 2 * alpha, "fan_in_fan_out": True,
                   "target_modules": sorted({path.rpartition(".")[2] for path in modules})}


def _soup(side, where):
    """One side's experts as one linear map: its weight and bias."""
    weights, count = _softmax(side["scores"]), len(side["scores"])
    if sorted(side["weight"]) != list(range(count)) or sorted(side["bias"]) != list(range(count)):
        raise SystemExit(f"{where}: {len(side['weight'])} experts for {count} scores")
    return [sum(weight * side[leaf][k] for k, weight in enumerate(weights)).astype(np.float32)
            for leaf in ("weight", "bias")]


def convert_bottlenecks(tensors, base):
    """{name: array} of the file -> a Container."""
    layers = {}
    for name, value in tensors.items():
        found = _SOUP.fullmatch(name)
        if not found:
            raise SystemExit(f"tensor {name}: expected an expert of transformer.h.<layer>.mlp.ExpertSoup")
        side = layers.setdefault(int(found[1]), {}).setdefault(found[2], {"weight": {}, "bias": {}, "scores": []})
        value = np.asarray(value, dtype=np.float64)
        if found[4] is None:
            side["scores"] = value
        else:
            side[found[5]][int(found[4])] = value
    box = Container("adamix", base)
    for layer, sides in sorted(layers.items()):
        if sorted(sides) != ["A", "B"] or any(len(side["scores"]) == 0 for side in sides.values()):
            raise SystemExit(f"transformer.h.{layer}.mlp.ExpertSoup: expected MoA_A and MoA_B with their scores")
        (down, down_bias), (up, up_bias) = (_soup(sides[leaf], f"layer {layer}, MoA_{leaf}") for leaf in "AB")
        box.add(f"L{layer}.mlp", "bn", {"tap": "o", "act": "gelu_new"}, wd=down, bd=down_bias, wu=up, bu=up_bias)
    return box


def main():
    args = arguments(__doc__, "state", "out", alpha=(float, None), base=str)
    tensors = read_state(args.state)
    if any(".ExpertSoup." in name for name in tensors):
        convert_bottlenecks(tensors, args.base).write(args.out)
        return
    if args.alpha is None:
        raise SystemExit("LoRA experts need --alpha")
    state, config = convert(tensors, args.alpha)
    write_lora(args.out, state, args.base, config)


if __name__ == "__main__":
    main()
