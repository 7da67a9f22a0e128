#!/usr/bin/env python3
"""Puts LoRAs that Arrow routes among in one directory: arrow.py OUT TASK... [--general DIR...] [--top-k K] [--seed N]

Arrow (Ostapenko et al. 2024) takes, token by token and site by site, the LoRAs whose own direction the token's
input points along most: y += sum_k c_k s_k B_k A_k x, with c the softmax over the top K of |p_k . x| / temperature
and p_k the main right singular vector of B_k A_k. With --general, the mean of those LoRAs' factors is taken from
every task's first (GenKnowSub, Bagherifard et al. 2025). PEFT keeps no file of it: it is made from the LoRAs'
directories each time, p_k by 15 rounds of power iteration from a random start, which --seed chooses as PEFT's
rng_seed does. Written: polyad's container. Needs torch for that start.
"""
import argparse
import os
import re
import sys

import numpy as np

from container import Container
from places import place_of

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import weights_io  # noqa: E402

_ROUNDS = 15
_FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_REFUSED = ("use_dora", "use_rslora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "lora_bias",
            "rank_pattern", "alpha_pattern")


def read_lora(path):
    """-> ({module path: {"A": a, "B": b}}, scale) of a plain LoRA directory."""
    config = weights_io.read_json(f"{path}/adapter_config.json")
    unusable = [key for key in _REFUSED if config.get(key)]
    if config["peft_type"] != "LORA" or unusable:
        raise SystemExit(f"{path}: Arrow routes among plain LoRAs, got {config['peft_type']} {unusable}")
    modules = {}
    for name, value in weights_io.read_f32(f"{path}/adapter_model.safetensors").items():
        found = _FACTOR.fullmatch(name)
        if not found or place_of(found[1]) is None:
            raise SystemExit(f"{path}: tensor {name}: expected lora_A or lora_B of a linear module")
        modules.setdefault(found[1], {})[found[2]] = value
    return modules, config["lora_alpha"] / config["r"]


def prototype(a, b, start):
    """The main right singular vector of b a, in float32, as far as the rounds bring it."""
    v, inner = start / (np.linalg.norm(start) + 1e-8), b.T @ b
    for _ in range(_ROUNDS):
        w = a.T @ (inner @ (a @ v))
        v = w / (np.linalg.norm(w) + 1e-8)
    return v


def _start(size, seed):
    import torch
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).numpy()


def convert(tasks, general, rule, seed, base):
    """tasks, general: what read_lora gives; rule: the options of the container's op mx."""
    box, paths = Container("arrow", base), sorted(tasks[0][0])
    for modules, _ in [*tasks, *general]:
        if sorted(modules) != paths:
            raise SystemExit("Arrow needs LoRAs of the same modules")
    for path in paths:
        experts = [dict(modules[path]) for modules, _ in tasks]
        for factor in "AB":
            if general:
                mean = np.mean([modules[path][factor] for modules, _ in general], axis=0, dtype=np.float32)
                for expert in experts:
                    expert[factor] = expert[factor] - mean
        start = _start(experts[0]["A"].shape[1], seed)
        box.add(place_of(path), "mx", rule, w=np.stack([prototype(e["A"], e["B"], start) for e in experts]))
        for index, (expert, (_, scale)) in enumerate(zip(experts, tasks)):
            box.add(place_of(path), "lr", {"scale": scale, "expert": index}, a=expert["A"], b=expert["B"])
    return box


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("tasks", nargs="+", metavar="TASK")
    parser.add_argument("--general", nargs="*", default=[])
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", default="base")
    args = parser.parse_args()
    rule = {"top_k": args.top_k, "temperature": args.temperature, "absolute": 1}
    tasks, general = ([read_lora(path) for path in paths] for paths in (args.tasks, args.general))
    convert(tasks, general, rule, args.seed, args.base).write(args.out)


if __name__ == "__main__":
    main()
