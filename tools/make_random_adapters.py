#!/usr/bin/env python3
"""Writes N random LoRA adapters in PEFT format for load tests.

  make_random_adapters.py MODEL_DIR OUT_DIR [--count 32] [--rank 16] [--alpha 32] [--seed 1000]

All linear layers of a llama-like model, bfloat16 tensors, B non-zero, adapter i named lora-<i> and
seeded by seed + i. Needs numpy only.
"""
import argparse
import os

import numpy as np

from weights_io import encode, read_json, write_json, write_safetensors


def site_shapes(config):
    """-> {module path inside a layer: (out, in)}."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    return {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner)}


def adapter_config(shapes, rank, alpha):
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None,
            "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none",
            "fan_in_fan_out": False, "use_rslora": False, "use_dora": False, "inference_mode": True,
            "init_lora_weights": True, "modules_to_save": None, "rank_pattern": {},
            "alpha_pattern": {}, "target_modules": sorted(s.split(".")[1] for s in shapes)}


def random_tensors(config, shapes, rank, seed):
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for site, (out, inner) in shapes.items():
            name = f"base_model.model.model.layers.{layer}.{site}"
            bound = inner ** -0.5
            tensors[f"{name}.lora_A.weight"] = encode(rng.uniform(-bound, bound, (rank, inner)), "BF16")
            tensors[f"{name}.lora_B.weight"] = encode(rng.normal(0, 0.01, (out, rank)), "BF16")
    return tensors


def parse(doc, **defaults):
    """MODEL_DIR OUT_DIR and an option for each default; -> (arguments, the model's config, its site shapes)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "out"):
        parser.add_argument(name)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    args = parser.parse_args()
    config = read_json(f"{args.model}/config.json")
    return args, config, site_shapes(config)


def write_adapter(path, settings, tensors, file="adapter_model"):
    os.makedirs(path, exist_ok=True)
    write_json(f"{path}/adapter_config.json", settings)
    write_safetensors(f"{path}/{file}.safetensors", tensors, {"format": "pt"})


def main():
    args, config, shapes = parse(__doc__, count=32, rank=16, alpha=32.0, seed=1000)
    for i in range(args.count):
        write_adapter(f"{args.out}/lora-{i:02d}", adapter_config(shapes, args.rank, args.alpha),
                      random_tensors(config, shapes, args.rank, args.seed + i))


if __name__ == "__main__":
    main()
