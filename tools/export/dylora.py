#!/usr/bin/env python3
"""Converts a DyLoRA file to a PEFT LoRA directory at one of its ranks: dylora.py STATE.pt OUT --rank B --alpha A --base NAME

A DyLoRA file has <module>.lora_A [r, in] and <module>.lora_B [out, r] as loralib names them and serves every
rank b <= r: y += alpha / b B[:, :b] A[:b] x, which is a LoRA of rank b. Needs torch and numpy.
"""
import argparse
import os
import sys

import numpy as np

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import weights_io  # noqa: E402


def truncated(tensors, rank):
    """{name: array} of the file -> PEFT's {name: array} at the rank; other tensors are refused."""
    result, targets = {}, set()
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        if leaf not in ("lora_A", "lora_B"):
            raise SystemExit(f"tensor {name}: expected lora_A or lora_B")
        available = value.shape[0 if leaf == "lora_A" else 1]
        if not 1 <= rank <= available:
            raise SystemExit(f"tensor {name}: rank {rank} of {available}")
        part = value[:rank] if leaf == "lora_A" else value[:, :rank]
        result[f"base_model.model.{path}.{leaf}.weight"] = np.ascontiguousarray(part, dtype=np.float32)
        targets.add(path.rpartition(".")[2])
    return result, sorted(targets)


def write(tensors, rank, alpha, base, out):
    state, targets = truncated(tensors, rank)
    os.makedirs(out, exist_ok=True)
    weights_io.write_safetensors(f"{out}/adapter_model.safetensors",
                                 {k: weights_io.encode(v, "F32") for k, v in state.items()}, {"format": "pt"})
    weights_io.write_json(f"{out}/adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank,
        "lora_alpha": alpha, "target_modules": targets, "inference_mode": True})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state")
    parser.add_argument("out")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--alpha", type=float, required=True)
    parser.add_argument("--base", required=True)
    args = parser.parse_args()
    import torch
    state = torch.load(args.state, map_location="cpu", weights_only=True)
    write({k: v.float().numpy() for k, v in state.items()}, args.rank, args.alpha, args.base, args.out)


if __name__ == "__main__":
    main()
