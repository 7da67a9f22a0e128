#!/usr/bin/env python3
"""Converts a GGUF model (llama architecture, byte-level BPE) for tests and load tests.

  convert_gguf.py hf   IN.gguf OUT_DIR                 bfloat16 Hugging Face directory
  convert_gguf.py gguf IN.gguf OUT.gguf --type T       the same bfloat16 weights as f32, f16, bf16, q8_0 or q4_0
  convert_gguf.py lora PEFT_DIR OUT.gguf --base HF_DIR PEFT LoRA directory -> LoRA adapter GGUF

Every output is made from the weights rounded to bfloat16 first, so that all of them describe one model.
q4_0 keeps the embedding (and head) in q8_0. Needs gguf and numpy.
"""
import argparse
import os

import numpy as np
import gguf
from gguf.quants import dequantize, quantize

import gguf_names
from weights_io import (base_name, bf16_to_f32, encode, f32_to_bf16, read_f32, read_json, write_json,
                        write_safetensors)

_TYPES = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
          "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0,
          "q4_0": gguf.GGMLQuantizationType.Q4_0, "q4_1": gguf.GGMLQuantizationType.Q4_1}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
               "bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
               "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0, "q4_1": gguf.LlamaFileType.MOSTLY_Q4_1}
_CONTROL_TOKEN = 3


def read_gguf(path):
    """-> (reader, {key: value})."""
    reader = gguf.GGUFReader(path)
    return reader, {name: field.contents() for name, field in reader.fields.items()}


def tensor_f32(tensor):
    return dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def add_weight(writer, name, x, type_name):
    """Adds a float matrix at a precision; vectors stay float32, as llama.cpp keeps them."""
    if x.ndim == 1 or type_name == "f32":
        writer.add_tensor(name, np.ascontiguousarray(x, dtype=np.float32))
    elif type_name == "f16":
        writer.add_tensor(name, x.astype(np.float16))
    elif type_name == "bf16":
        writer.add_tensor(name, f32_to_bf16(x).view(np.uint8), raw_dtype=_TYPES["bf16"])
    else:
        is_table = name.split(".")[0] in ("token_embd", "output", "position_embd")
        kind = _TYPES["q8_0" if is_table else type_name]
        writer.add_tensor(name, quantize(x, kind), raw_dtype=kind)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def hf_config(kv, tied):
    heads, hidden = kv["llama.attention.head_count"], kv["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": len(kv["tokenizer.ggml.tokens"]), "hidden_size": hidden,
        "intermediate_size": kv["llama.feed_forward_length"],
        "num_hidden_layers": kv["llama.block_count"], "num_attention_heads": heads,
        "num_key_value_heads": kv["llama.attention.head_count_kv"], "head_dim": hidden // heads,
        "max_position_embeddings": kv["llama.context_length"],
        "rms_norm_eps": float(f'{kv["llama.attention.layer_norm_rms_epsilon"]:.6g}'),
        "rope_theta": float(kv["llama.rope.freq_base"]), "rope_scaling": None, "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": tied,
        "bos_token_id": kv["tokenizer.ggml.bos_token_id"],
        "eos_token_id": kv["tokenizer.ggml.eos_token_id"],
        "pad_token_id": kv.get("tokenizer.ggml.padding_token_id"),
    }


def hf_tokenizer(kv):
    """-> (tokenizer.json, tokenizer_config.json) of a byte-level BPE vocabulary."""
    tokens, types = kv["tokenizer.ggml.tokens"], kv["tokenizer.ggml.token_type"]
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True}
             for i, (t, kind) in enumerate(zip(tokens, types)) if kind == _CONTROL_TOKEN]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    split = [byte_level]
    if kv["tokenizer.ggml.pre"] == "smollm":
        split.insert(0, {"type": "Digits", "individual_digits": True})
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens)},
             "merges": [m.split(" ") for m in kv["tokenizer.ggml.merges"]]}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                 "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
                 "post_processor": None, "decoder": byte_level | {"add_prefix_space": True},
                 "model": model}
    name = lambda key: tokens[kv[f"tokenizer.ggml.{key}_token_id"]]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": name("bos"),
              "eos_token": name("eos"), "pad_token": name("padding"), "unk_token": name("unknown"),
              "model_max_length": kv["llama.context_length"], "add_prefix_space": False,
              "clean_up_tokenization_spaces": False, "chat_template": kv["tokenizer.chat_template"]}
    return tokenizer, config


def convert_to_hf(source, out_dir):
    reader, kv = read_gguf(source)
    if kv["general.architecture"] != "llama":
        raise SystemExit(f'{source}: expected architecture llama, got {kv["general.architecture"]}')
    os.makedirs(out_dir, exist_ok=True)
    heads = {"attn_q": kv["llama.attention.head_count"], "attn_k": kv["llama.attention.head_count_kv"]}
    tensors = {}
    for tensor in reader.tensors:
        x = tensor_f32(tensor)
        site = tensor.name.split(".")[-2]
        if site in heads:
            x = gguf_names.split_rotary(x, heads[site])
        tensors[gguf_names.to_hf(tensor.name, "llama")] = encode(x, "BF16")
    write_safetensors(f"{out_dir}/model.safetensors", tensors, {"format": "pt"})
    config = hf_config(kv, tied="lm_head.weight" not in tensors)
    write_json(f"{out_dir}/config.json", config)
    write_json(f"{out_dir}/generation_config.json",
               {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")})
    tokenizer, tokenizer_config = hf_tokenizer(kv)
    write_json(f"{out_dir}/tokenizer.json", tokenizer)
    write_json(f"{out_dir}/tokenizer_config.json", tokenizer_config)


def convert_to_gguf(source, out, type_name):
    reader, kv = read_gguf(source)
    writer = gguf.GGUFWriter(out, arch=kv["general.architecture"])
    skipped = ("general.architecture", "general.file_type", "general.quantization_version")
    for field in reader.fields.values():
        if field.name in skipped or field.name.startswith("GGUF."):
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(field.name, field.contents(), field.types[0],
                             sub_type=field.types[-1] if is_array else None)
    writer.add_file_type(FILE_TYPES[type_name])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for tensor in reader.tensors:
        x = bf16_to_f32(f32_to_bf16(tensor_f32(tensor)))
        add_weight(writer, tensor.name, x, type_name)
    finish(writer)


def convert_lora(source, out, base_dir, type_name):
    config = read_json(f"{source}/adapter_config.json")
    base = read_json(f"{base_dir}/config.json")
    heads = {"attn_q": base["num_attention_heads"], "attn_k": base["num_key_value_heads"]}
    writer = gguf.GGUFWriter(out, arch="llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("general.name", base_name(source))
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    for name, x in sorted(read_f32(f"{source}/adapter_model.safetensors").items()):
        module, factor, _ = name.removeprefix("base_model.model.").rsplit(".", 2)
        target = gguf_names.to_gguf(module + ".weight", "llama")
        site = target.split(".")[-2]
        if factor == "lora_B" and site in heads:
            x = gguf_names.interleave_rotary(x, heads[site])
        add_weight(writer, f"{target}.{factor.lower()}", x, type_name)
    finish(writer)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["hf", "gguf", "lora"])
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--type", default="f32", choices=sorted(_TYPES))
    parser.add_argument("--base", help="Hugging Face directory of the adapter's base (lora)")
    args = parser.parse_args()
    if args.mode == "hf":
        convert_to_hf(args.source, args.out)
    elif args.mode == "gguf":
        convert_to_gguf(args.source, args.out, args.type)
    elif args.base is None:
        parser.error("lora needs --base")
    else:
        convert_lora(args.source, args.out, args.base, args.type)


if __name__ == "__main__":
    main()
