"""Tiny random base models of every architecture: models/<name>/ with config, weights, tokenizer, golden."""
import os
import shutil

import numpy as np
import torch

import golden_lib
import tiny_tokenizer
from golden_lib import weights_io

LENGTHS = (1, 2, 7, 16, 33, 40)
_IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2}


def _llama(**changes):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 320,
              "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
              "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
              "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False} | _IDS
    return {k: v for k, v in (config | changes).items() if v != "absent"}


_LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}

# name: (config, tokenizer flavour, stored type, number of shards)
MODELS = {
    "llama": (_llama(rope_theta=10000.0, rope_scaling=None, torch_dtype="float32"), "gpt-2", "F32", 1),
    "llama3": (_llama(rope_parameters=_LLAMA3_ROPE, dtype="float32"), "llama-bpe", "F32", 1),
    "llama_linear": (_llama(rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0},
                            tie_word_embeddings=True, torch_dtype="float32"), "gpt-2", "F32", 1),
    "llama_odd": (_llama(hidden_size=48, intermediate_size=80, num_attention_heads=4,
                         num_key_value_heads=1, vocab_size=323, num_hidden_layers=3,
                         rope_theta=5000.0, rope_scaling=None, torch_dtype="float32"),
                  "gpt-2", "F32", 1),
    "llama_sharded": (_llama(num_key_value_heads=4, rope_theta=10000.0, rope_scaling=None,
                             torch_dtype="float16"), "gpt-2", "F16", 2),
    "mistral": (_llama(architectures=["MistralForCausalLM"], model_type="mistral", head_dim=24,
                       sliding_window=8, rope_theta=10000.0, torch_dtype="float32"),
                "gpt-2", "F32", 1),
    "qwen2": (_llama(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-6,
                     rope_theta=1000000.0, use_sliding_window=False, sliding_window=None,
                     max_window_layers=2, tie_word_embeddings=True, torch_dtype="float32"),
              "qwen2", "F32", 1),
    "qwen3": (_llama(architectures=["Qwen3ForCausalLM"], model_type="qwen3", rms_norm_eps=1e-6,
                     head_dim=32, attention_bias=False, use_sliding_window=False,
                     sliding_window=None, max_window_layers=2, dtype="float32",
                     rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
              "qwen2", "F32", 1),
    "smollm2": (_llama(hidden_size=96, intermediate_size=256, num_attention_heads=3,
                       num_key_value_heads=1, head_dim=32, rope_theta=100000.0, rope_scaling=None,
                       tie_word_embeddings=True, torch_dtype="bfloat16"), "smollm", "BF16", 1),
    "gpt2": ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 320,
              "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_ctx": 128,
              "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
              "tie_word_embeddings": True, "torch_dtype": "float32"} | _IDS, "gpt-2", "F32", 1),
}


def random_tensor(model_name, name, shape):
    """Random values scaled by what the tensor is, so that logits spread and attention is far from uniform."""
    x = golden_lib.rng_for("weights", model_name, name).standard_normal(shape)
    module, leaf = name.rsplit(".", 1)
    last = module.rsplit(".", 1)[-1]
    if "norm" in last or last.startswith("ln_"):
        return 1 + 0.2 * x if leaf == "weight" else 0.2 * x
    if leaf == "bias":
        return 0.3 * x
    if last in ("embed_tokens", "wte", "wpe"):
        return (0.2 if last == "wpe" else 0.4) * x
    fan_in = shape[0] if last.startswith("c_") else shape[1]
    gain = {"lm_head": 3.5, "o_proj": 1.0, "down_proj": 1.0, "c_proj": 1.0}.get(last, 1.5)
    return gain * x / np.sqrt(fan_in)


def _weights(name, config, stored_type):
    from transformers import AutoConfig, AutoModelForCausalLM
    settings = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **settings))
    tied = config["tie_word_embeddings"]
    return {key: weights_io.encode(random_tensor(name, key, tuple(value.shape)), stored_type)
            for key, value in model.state_dict().items() if not (tied and key == "lm_head.weight")}


def _write_weights(path, tensors, num_shards):
    if num_shards == 1:
        weights_io.write_safetensors(f"{path}/model.safetensors", tensors, {"format": "pt"})
        return
    names, where = sorted(tensors), {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        part = {n: tensors[n] for n in names[shard::num_shards]}
        weights_io.write_safetensors(f"{path}/{file}", part, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    total = sum(array.nbytes for _, array in tensors.values())
    weights_io.write_json(f"{path}/model.safetensors.index.json",
                          {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})


def build(out):
    for name, (config, flavour, stored_type, num_shards) in MODELS.items():
        path = f"{out}/models/{name}"
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        weights_io.write_json(f"{path}/config.json", config)
        _write_weights(path, _weights(name, config, stored_type), num_shards)
        texts = tiny_tokenizer.save(path, flavour)
        model = golden_lib.load_model(path)
        tensors, summary = golden_lib.make_golden(model, name, tiny_tokenizer.VOCAB_SIZE, LENGTHS)
        summary |= {"vocab_size": config["vocab_size"], "tokenizer": flavour, "texts": texts}
        golden_lib.write_golden(path, tensors, summary)
        print(f"models/{name}: smallest greedy margin {summary['min_greedy_margin']}, "
              f"logits std {summary['logits_std']}", flush=True)
