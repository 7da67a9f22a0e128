#!/usr/bin/env python3
"""Writes random adapters of eight families for load tests, in their original libraries' formats.

  make_family_adapters.py MODEL_DIR OUT_DIR [--count 4] [--rank 16] [--seed 1000]

For a llama-like model: lora, dora, ia3, prefix, bottleneck (AdapterHub's sequential), sparse (SHiRA),
lokr and prompt, `count` of each, named <family>-<i> and seeded by seed + i. Those whose size is a
choice weigh about as much as a LoRA of the rank over all linear layers. Needs numpy only.
"""
import os

import numpy as np

from make_random_adapters import adapter_config, parse, random_tensors, write_adapter
from weights_io import encode, read_f32

PREFIX_TOKENS = 32
PROMPT_TOKENS = 32
KRON_OUT, KRON_IN = 8, 8  # the first factor of a LoKr delta; the second is the rest of the site


def peft_config(peft_type, **more):
    return {"peft_type": peft_type, "task_type": "CAUSAL_LM", "base_model_name_or_path": None,
            "inference_mode": True} | more


def per_site(config, shapes, make):
    """{full name: tensor} of make(layer, site, out, in), which gives {leaf: array}."""
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for site, (out, inner) in shapes.items():
            for leaf, values in make(layer, site, out, inner).items():
                tensors[f"base_model.model.model.layers.{layer}.{site}.{leaf}"] = values
    return tensors


def lora(args, config, shapes, rng, seed):
    return adapter_config(shapes, args.rank, 2 * args.rank), random_tensors(config, shapes, args.rank, seed)


def row_norms(args, config, shapes):
    """{full name: |W| of each row}, what a fresh DoRA starts its magnitudes from."""
    norms = {}
    for file in sorted(os.listdir(args.model)):
        if not file.endswith(".safetensors"):
            continue
        for name, values in read_f32(f"{args.model}/{file}").items():
            module = name.removesuffix(".weight")
            if any(module.endswith(site) for site in shapes):
                norms[f"base_model.model.{module}"] = np.linalg.norm(values, axis=1)
    return norms


def dora(args, config, shapes, rng, seed):
    settings, tensors = lora(args, config, shapes, rng, seed)
    for name, norm in row_norms(args, config, shapes).items():
        tensors[f"{name}.lora_magnitude_vector"] = encode(norm * rng.uniform(0.95, 1.05, norm.shape), "F32")
    return settings | {"use_dora": True}, tensors


def ia3(args, config, shapes, rng, seed):
    targets = {"self_attn.k_proj": False, "self_attn.v_proj": False, "mlp.down_proj": True}

    def scales(_layer, site, out, inner):
        if site not in targets:
            return {}
        shape = (1, inner) if targets[site] else (out, 1)
        return {"ia3_l": encode(rng.uniform(0.9, 1.1, shape), "F32")}
    return peft_config("IA3", target_modules=["down_proj", "k_proj", "v_proj"], feedforward_modules=["down_proj"],
                       fan_in_fan_out=False, init_ia3_weights=True, modules_to_save=None,
                       exclude_modules=None), per_site(config, shapes, scales)


def kv_width(config):
    return config["num_key_value_heads"] * (config.get("head_dim") or
                                            config["hidden_size"] // config["num_attention_heads"])


def prefix(args, config, shapes, rng, seed):
    width = 2 * config["num_hidden_layers"] * kv_width(config)
    values = rng.normal(0, 0.3, (PREFIX_TOKENS, width))
    return peft_config("PREFIX_TUNING", num_virtual_tokens=PREFIX_TOKENS, token_dim=kv_width(config),
                       num_transformer_submodules=1, num_attention_heads=config["num_key_value_heads"],
                       num_layers=config["num_hidden_layers"], encoder_hidden_size=config["hidden_size"],
                       prefix_projection=False), {"prompt_embeddings": encode(values, "F32")}


def prompt(args, config, shapes, rng, seed):
    values = rng.normal(0, 0.1, (PROMPT_TOKENS, config["hidden_size"]))
    return peft_config("PROMPT_TUNING", num_virtual_tokens=PROMPT_TOKENS, token_dim=config["hidden_size"],
                       num_transformer_submodules=1, num_attention_heads=config["num_attention_heads"],
                       num_layers=config["num_hidden_layers"], prompt_tuning_init="RANDOM",
                       prompt_tuning_init_text=None, tokenizer_name_or_path=None, tokenizer_kwargs=None
                       ), {"prompt_embeddings": encode(values, "F32")}


def values_like_lora(args, shapes):
    """Values a layer of a LoRA of the rank holds."""
    return sum(args.rank * (out + inner) for out, inner in shapes.values())


def bottleneck(args, config, shapes, rng, seed):
    hidden = config["hidden_size"]
    reduction = max(1, round(hidden / (values_like_lora(args, shapes) / (2 * hidden))))
    width = hidden // reduction
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}.output_adapters.adapters.random"
        tensors[f"{name}.adapter_down.0.weight"] = encode(rng.normal(0, hidden ** -0.5, (width, hidden)), "BF16")
        tensors[f"{name}.adapter_down.0.bias"] = encode(rng.normal(0, 0.01, width), "F32")
        tensors[f"{name}.adapter_up.weight"] = encode(rng.normal(0, 0.003, (hidden, width)), "BF16")
        tensors[f"{name}.adapter_up.bias"] = encode(rng.normal(0, 0.001, hidden), "F32")
    return {"model_type": "llama", "hidden_size": hidden, "model_name": "base", "model_class": "LlamaForCausalLM",
            "name": "random", "version": "adapters.1.3.0",
            "config": {"architecture": None, "mh_adapter": False, "output_adapter": True,
                       "reduction_factor": float(reduction), "non_linearity": "relu", "original_ln_before": True,
                       "original_ln_after": True, "residual_before_ln": True,
                       "adapter_residual_before_ln": False, "ln_before": False, "ln_after": False,
                       "is_parallel": False, "scaling": 1.0, "use_gating": False, "leave_out": [],
                       "phm_layer": False, "inv_adapter": None, "dropout": 0.0}}, tensors


def sparse(args, config, shapes, rng, seed):
    # In the file a bf16 value and its two indices weigh five times a bf16 factor.
    def entries(_layer, site, out, inner):
        count = args.rank * (out + inner) // 5
        flat = np.sort(rng.choice(out * inner, count, replace=False))
        return {"shira_weight": encode(rng.normal(0, 0.01, count), "BF16"),
                "shira_indices": ("I32", np.stack([flat // inner, flat % inner]).astype(np.int32))}
    return peft_config("SHIRA", r=args.rank, mask_type="random", random_seed=None, fan_in_fan_out=False,
                       init_weights=True, target_modules=sorted(s.split(".")[1] for s in shapes),
                       modules_to_save=None), per_site(config, shapes, entries)


def lokr(args, config, shapes, rng, seed):
    def factors(_layer, site, out, inner):
        return {"lokr_w1": encode(rng.normal(0, 0.05, (KRON_OUT, KRON_IN)), "F32"),
                "lokr_w2": encode(rng.normal(0, 0.02, (out // KRON_OUT, inner // KRON_IN)), "F32")}
    return peft_config("LOKR", r=args.rank, alpha=args.rank, rank_dropout=0.0, module_dropout=0.0,
                       use_effective_conv2d=False, decompose_both=False, decompose_factor=-1,
                       rank_dropout_scale=False, init_weights=True, rank_pattern={}, alpha_pattern={},
                       target_modules=sorted(s.split(".")[1] for s in shapes), exclude_modules=None,
                       modules_to_save=None), per_site(config, shapes, factors)


FAMILIES = {"lora": lora, "dora": dora, "ia3": ia3, "prefix": prefix, "bottleneck": bottleneck,
            "sparse": sparse, "lokr": lokr, "prompt": prompt}


def main():
    args, config, shapes = parse(__doc__, count=4, rank=16, seed=1000)
    for family, make in FAMILIES.items():
        for i in range(args.count):
            seed = args.seed + i
            settings, tensors = make(args, config, shapes, np.random.default_rng(seed), seed)
            file = "adapter" if "version" in settings else "adapter_model"
            write_adapter(f"{args.out}/{family}-{i}", settings, tensors, file)


if __name__ == "__main__":
    main()
