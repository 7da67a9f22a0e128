"""Tiny GGUF files: models/<name>/model.gguf with a golden computed from the dequantised weights.

The weights and the tokenizer are those of a base model in models/; the golden therefore shows what a
loader must compute from the stored bits, whatever the quantiser chose. Keys: gguf 0.19 constants.
"""
import os
import shutil

import gguf
import numpy as np

import convert_gguf
import gguf_names
import golden_lib
import tiny_tokenizer
from base_models import MODELS
from golden_lib import weights_io

LENGTHS = (1, 7, 40)
# name: (base model, precision of matrices)
FILES = {
    "llama_gguf_f32": ("llama", "f32"), "llama_gguf_f16": ("llama", "f16"),
    "llama_gguf_bf16": ("llama", "bf16"), "llama_gguf_q8_0": ("llama", "q8_0"),
    "llama_gguf_q4_0": ("llama", "q4_0"), "llama_gguf_q4_1": ("llama", "q4_1"),
    "llama3_gguf_f16": ("llama3", "f16"), "qwen2_gguf_f16": ("qwen2", "f16"),
    "qwen3_gguf_f16": ("qwen3", "f16"), "gpt2_gguf_f16": ("gpt2", "f16"),
}


def _llama3_factors(config):
    """The rope_freqs.weight tensor: what each inverse frequency is divided by."""
    rope = config["rope_parameters"]
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    wave = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    turns = rope["original_max_position_embeddings"] / wave
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _add_llama_like_keys(writer, config):
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta")}
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if config["model_type"] == "llama":
        writer.add_rope_dimension_count(head_dim)
    if "head_dim" in config:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)


def _add_gpt2_keys(writer, config):
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def _add_tokenizer(writer, path, flavour):
    tokens, merges = tiny_tokenizer.gguf_lists(path)
    control = set(tiny_tokenizer.SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(flavour)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in control else gguf.TokenType.NORMAL
                            for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(flavour == "llama-bpe")
    writer.add_chat_template(tiny_tokenizer.CHAT_TEMPLATE)


def _gguf_tensors(config, weights):
    """Hugging Face names and layout -> GGUF names and layout."""
    arch = config["model_type"]
    for name, x in sorted(weights.items()):
        target = gguf_names.to_gguf(name, arch)
        site = target.split(".")[-2]
        if arch == "llama" and site in ("attn_q", "attn_k"):
            key = "num_attention_heads" if site == "attn_q" else "num_key_value_heads"
            x = gguf_names.interleave_rotary(x, config[key])
        if arch == "gpt2" and site in gguf_names.GPT2_CONV1D and x.ndim == 2:
            x = x.T
        yield target, np.ascontiguousarray(x)


def _hf_weights(file, config):
    """What the file's bits mean, under Hugging Face names and in its layout."""
    reader, _ = convert_gguf.read_gguf(file)
    arch, weights = config["model_type"], {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        x, site = convert_gguf.tensor_f32(tensor), tensor.name.split(".")[-2]
        if arch == "llama" and site in ("attn_q", "attn_k"):
            key = "num_attention_heads" if site == "attn_q" else "num_key_value_heads"
            x = gguf_names.split_rotary(x, config[key])
        if arch == "gpt2" and site in gguf_names.GPT2_CONV1D and x.ndim == 2:
            x = x.T
        weights[gguf_names.to_hf(tensor.name, arch)] = x
    return weights


def stored_weights(out, name):
    """What models/<name>/model.gguf holds, dequantised, under Hugging Face names."""
    return _hf_weights(f"{out}/models/{name}/model.gguf", MODELS[FILES[name][0]][0])


def _write(path, base_path, config, flavour, type_name):
    writer = gguf.GGUFWriter(path, arch=config["model_type"])
    writer.add_name("tiny " + config["model_type"])
    add_keys = _add_gpt2_keys if config["model_type"] == "gpt2" else _add_llama_like_keys
    add_keys(writer, config)
    _add_tokenizer(writer, base_path, flavour)
    writer.add_file_type(convert_gguf.FILE_TYPES[type_name])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if config.get("rope_parameters", {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(config))
    weights = weights_io.read_f32(f"{base_path}/model.safetensors")
    for name, x in _gguf_tensors(config, weights):
        convert_gguf.add_weight(writer, name, x, type_name)
    convert_gguf.finish(writer)


def build(out):
    for name, (base, type_name) in FILES.items():
        path, base_path = f"{out}/models/{name}", f"{out}/models/{base}"
        config, flavour, _, _ = MODELS[base]
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        _write(f"{path}/model.gguf", base_path, config, flavour, type_name)
        model = golden_lib.load_model(base_path, _hf_weights(f"{path}/model.gguf", config))
        tensors, summary = golden_lib.make_golden(model, name, tiny_tokenizer.VOCAB_SIZE, LENGTHS)
        texts = weights_io.read_json(f"{base_path}/golden.json")["texts"]
        summary |= {"vocab_size": config["vocab_size"], "tokenizer": flavour, "texts": texts,
                    "weights_of": base, "matrices": type_name}
        golden_lib.write_golden(path, tensors, summary)
        print(f"models/{name}: smallest greedy margin {summary['min_greedy_margin']}", flush=True)
