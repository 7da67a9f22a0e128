#!/usr/bin/env python3
"""Converts QA-LoRA's own files to a PEFT LoRA directory: qalora.py STATE OUT --alpha A --base NAME [--group 32]

The repository's adapters read the means of runs of `group` inputs: y += alpha / r B (A mean(x)), with A
[r, in / group]; PEFT's own form of the method multiplies by in / group besides. Every input gets its run's column
over the group's size, which is a plain LoRA. Needs torch and numpy.
"""
import numpy as np

from command import arguments, read_state, write_lora

_PREFIX = "base_model.model."


def convert(tensors, group, alpha):
    """{name: array} of the file -> (the LoRA's {name: array}, its configuration)."""
    state, rank = {}, 0
    for name, value in tensors.items():
        name = name.removeprefix(_PREFIX).replace(".default.weight", ".weight")
        if name.endswith(".lora_A.weight"):
            value, rank = np.repeat(value, group, axis=1) / group, len(value)
        elif not name.endswith(".lora_B.weight"):
            raise SystemExit(f"tensor {name}: expected lora_A or lora_B")
        state[name] = value
    paths = {name.rpartition(".lora_")[0] for name in state}
    return state, {"r": rank, "lora_alpha": alpha, "target_modules": sorted({p.rpartition(".")[2] for p in paths})}


def main():
    args = arguments(__doc__, "state", "out", group=(int, 32), alpha=float, base=str)
    state, config = convert(read_state(args.state), args.group, args.alpha)
    write_lora(args.out, state, args.base, config)


if __name__ == "__main__":
    main()
