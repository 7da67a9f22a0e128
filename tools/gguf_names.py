"""Tensor names and layouts shared by Hugging Face directories and GGUF files.

GGUF's llama architecture stores the rows of q and k for interleaved rotary pairs, Hugging Face for
split halves; qwen2, qwen3 and gpt2 keep the Hugging Face order. GPT-2's Conv1D weights are [in, out]
in Hugging Face and [out, in] in GGUF. Source: llama.cpp's conversion rules, gguf 0.19 constants.
"""

LLAMA_LIKE = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
LLAMA_LIKE_GLOBAL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm",
                     "lm_head": "output"}
GPT2 = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down", "ln_1": "attn_norm", "ln_2": "ffn_norm"}
GPT2_GLOBAL = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd",
               "transformer.ln_f": "output_norm", "lm_head": "output"}
GPT2_CONV1D = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def to_gguf(name, arch):
    """"model.layers.0.mlp.up_proj.weight" -> "blk.0.ffn_up.weight"."""
    layer_prefix = "transformer.h." if arch == "gpt2" else "model.layers."
    per_layer, fixed = (GPT2, GPT2_GLOBAL) if arch == "gpt2" else (LLAMA_LIKE, LLAMA_LIKE_GLOBAL)
    module, leaf = name.rsplit(".", 1)
    if not name.startswith(layer_prefix):
        return f"{fixed[module]}.{leaf}"
    index, inner = module[len(layer_prefix):].split(".", 1)
    return f"blk.{index}.{per_layer[inner]}.{leaf}"


def to_hf(name, arch):
    """The inverse of to_gguf."""
    layer_prefix = "transformer.h." if arch == "gpt2" else "model.layers."
    per_layer, fixed = (GPT2, GPT2_GLOBAL) if arch == "gpt2" else (LLAMA_LIKE, LLAMA_LIKE_GLOBAL)
    module, leaf = name.rsplit(".", 1)
    if not name.startswith("blk."):
        return {v: k for k, v in fixed.items()}[module] + "." + leaf
    _, index, inner = module.split(".", 2)
    return f"{layer_prefix}{index}." + {v: k for k, v in per_layer.items()}[inner] + "." + leaf


def interleave_rotary(w, num_heads):
    """Split-half rows -> interleaved rows (Hugging Face -> GGUF llama), for q and k."""
    half = w.shape[0] // num_heads // 2
    return w.reshape(num_heads, 2, half, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def split_rotary(w, num_heads):
    """Interleaved rows -> split-half rows (GGUF llama -> Hugging Face), for q and k."""
    half = w.shape[0] // num_heads // 2
    return w.reshape(num_heads, half, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
