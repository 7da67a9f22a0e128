"""Tiny quantised bases: models/llama_<format>/ (Hugging Face directories, quantized_formats.py) and models/llama_gguf_k/
(every GGUF type that is read into grouped rows). Matrices of layers are quantised, embedding and head are float16; the
golden is transformers' on the dequantised weights."""
import os
import shutil

import gguf
import numpy as np

import convert_gguf
import golden_lib
import gguf_models
import quantized_formats
import tiny_tokenizer
from base_models import MODELS, random_tensor
from golden_lib import weights_io

LENGTHS = (1, 7, 16)
_BASE = "llama_linear"
# Those with an end-to-end golden; all have one of their weights (quantized_weights.py).
NAMES = ("nf4_double", "fp4", "gptq_act_order", "awq", "ct_int4", "ct_int8", "ct_fp8", "polyad4", "polyad8")
_K_TYPES = {"attn_q": "Q4_K", "attn_k": "Q5_K", "attn_v": "Q6_K", "attn_output": "Q3_K", "ffn_gate": "Q2_K",
            "ffn_up": "Q5_0", "ffn_down": "Q5_1", "token_embd": "Q6_K"}


def _is_quantised(name):
    return name.endswith("_proj.weight")


def stored_weights(out, name):
    """What models/llama_<name> holds, dequantised by the formulas, under the names of plain weights."""
    weights = weights_io.read_f32(f"{out}/models/{_BASE}/model.safetensors")
    return {key: _quantise(name, key, x)[1] if _is_quantised(key) else x.astype(np.float16).astype(np.float32)
            for key, x in weights.items()}


def _quantise(name, key, weight):
    rng = golden_lib.rng_for("quantised", name, key)
    parts, values = quantized_formats.FORMATS[name][1](weight, rng)
    return parts, values.astype(np.float32)


def _record(path, name, model, texts, base):
    tensors, summary = golden_lib.make_golden(model, name, tiny_tokenizer.VOCAB_SIZE, LENGTHS)
    summary |= {"tokenizer": MODELS[base][1], "texts": texts, "weights_of": base}
    golden_lib.write_golden(path, tensors, summary)
    print(f"models/{name}: smallest greedy margin {summary['min_greedy_margin']}", flush=True)


def _build_directory(out, name):
    base_path, path = f"{out}/models/{_BASE}", f"{out}/models/llama_{name}"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    config = MODELS[_BASE][0] | {"quantization_config": quantized_formats.FORMATS[name][0]}
    weights_io.write_json(f"{path}/config.json", config)
    tensors = {}
    for key, x in weights_io.read_f32(f"{base_path}/model.safetensors").items():
        if _is_quantised(key):
            module = key.removesuffix(".weight")
            tensors |= {module + suffix: part for suffix, part in _quantise(name, key, x)[0].items()}
        else:
            tensors[key] = weights_io.encode(x, "F16")
    weights_io.write_safetensors(f"{path}/model.safetensors", tensors, {"format": "pt"})
    texts = tiny_tokenizer.save(path, MODELS[_BASE][1])
    _record(path, f"llama_{name}", golden_lib.load_model(base_path, stored_weights(out, name)), texts, _BASE)


def k_config():
    """A llama whose rows are whole super-blocks."""
    return MODELS["llama"][0] | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1,
                                 "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64,
                                 "tie_word_embeddings": True}


def _random_blocks(rng, kind, shape, deviation):
    """Blocks of random bits whose scales make values of about this deviation."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // elements, size), dtype=np.uint8)
    scales = {"Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
              "Q6_K": [208]}[kind.name]
    for offset in scales:
        blocks[..., offset:offset + 2] = np.full(blocks.shape[:2], 0.01, np.float16)[..., None].view(np.uint8)
    spread = gguf.quants.dequantize(blocks.reshape(-1, size), kind).std()
    for index, offset in enumerate(scales):
        jitter = 1 + 0.2 * rng.standard_normal(blocks.shape[:2])
        scale = (0.01 * deviation / spread * jitter * (1 - 2 * (index == 1 and kind.name == "Q5_1")))
        blocks[..., offset:offset + 2] = scale.astype(np.float16)[..., None].view(np.uint8)
    return blocks.reshape(shape[0], -1)


def _build_k(out):
    path, base_path = f"{out}/models/llama_gguf_k", f"{out}/models/llama"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    config = k_config()
    writer = gguf.GGUFWriter(f"{path}/model.gguf", arch="llama")
    writer.add_name("tiny llama of K-quants")
    gguf_models._add_llama_like_keys(writer, config)
    gguf_models._add_tokenizer(writer, base_path, MODELS["llama"][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    width = {"attn_k": 64, "attn_v": 64, "token_embd": config["vocab_size"]}
    for site, kind_name in _K_TYPES.items():
        name = f"{site}.weight" if site == "token_embd" else f"blk.0.{site}.weight"
        kind = gguf.GGMLQuantizationType[kind_name]
        deviation = 0.4 if site == "token_embd" else 1 / 16
        rng = golden_lib.rng_for("k-quants", name)
        writer.add_tensor(name, _random_blocks(rng, kind, (width.get(site, 256), 256), deviation), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(name + ".weight", random_tensor("k-quants", f"{name}.norm.weight", (256,)).astype(np.float32))
    convert_gguf.finish(writer)
    _record(path, "llama_gguf_k", load_k(out), weights_io.read_json(f"{base_path}/golden.json")["texts"], "llama")


def load_k(out):
    """models/llama_gguf_k as a float32 transformers model of its dequantised weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    config = k_config()
    settings = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **settings),
                                             attn_implementation="eager", dtype=torch.float32)
    weights = gguf_models._hf_weights(f"{out}/models/llama_gguf_k/model.gguf", config)
    state = {k: torch.from_numpy(np.array(v, dtype=np.float32)) for k, v in weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise SystemExit(f"llama_gguf_k: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()


def load(out, model):
    """models/<model>, any of these, as a float32 transformers model of its dequantised weights."""
    if model == "llama_gguf_k":
        return load_k(out)
    return golden_lib.load_model(f"{out}/models/{_BASE}", stored_weights(out, model.removeprefix("llama_")))


def build(out):
    for name in NAMES:
        _build_directory(out, name)
    _build_k(out)
