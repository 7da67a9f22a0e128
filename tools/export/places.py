"""Module paths of decoders and the container's places for them ("model.layers.3.self_attn.q_proj" is "L3.q")."""
import re

_LLAMA = {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "o",
          "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down", "input_layernorm": "norm1",
          "post_attention_layernorm": "norm2"}
_GPT2 = {"attn.c_attn": "qkv", "attn.c_proj": "o", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2", "ln_1": "norm1",
         "ln_2": "norm2"}
_VIT = {"attn.qkv": "qkv", "attn.proj": "o", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
_MODEL = {"model.embed_tokens": "embed", "transformer.wte": "embed", "lm_head": "head", "model.norm": "normf",
          "transformer.ln_f": "normf"}
_LAYER = re.compile(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.+)")


def place_of(path):
    """The place of a module path; None where the container has no place for it."""
    if path in _MODEL:
        return _MODEL[path]
    found = _LAYER.fullmatch(path)
    if not found:
        return None
    site = (_GPT2 if path.startswith("transformer.") else _LLAMA).get(found[2])
    return site and f"L{found[1]}.{site}"


def paths_of(model_type, num_layers):
    """Every linear module path of a decoder, in the order they run."""
    gpt2 = model_type == "gpt2"
    prefix, sites = ("transformer.h", _GPT2) if gpt2 else ("model.layers", _LLAMA)
    return [f"{prefix}.{layer}.{name}" for layer in range(num_layers)
            for name, site in sites.items() if not site.startswith("norm")]


def vit_place(module):
    """(layer, place) of a linear module of a vision transformer, as timm names it: "blocks.0.attn.qkv" is (0, "L0.qkv")."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    if not found or found[2] not in _VIT:
        raise SystemExit(f"module {module}: no linear module of a block")
    return int(found[1]), f"L{found[1]}.{_VIT[found[2]]}"
