"""LLaMA-Adapter's own files: a gate for each head through tanh (zoo 5.7), through tools/export/llama_adapter.py."""
import numpy as np
import torch

from bottleneck_hooks import tensor
from container_goldens import build_all, case, take
import llama_adapter  # tools/export, which container_goldens puts on the path

_LENGTH, _ADAPTED = 6, 1


def _heads(x, count):
    return x.view(*x.shape[:-1], count, -1).transpose(-3, -2)


def _attend(model, layer, vectors, gate):
    """Adds tanh(gate) softmax(q k') v of the vectors' own keys and values to what the output projection reads."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
    attention, config = model.model.layers[layer].self_attn, model.config
    groups = config.num_attention_heads // config.num_key_value_heads
    k, v = (_heads(projection(tensor(vectors)), config.num_key_value_heads).repeat_interleave(groups, dim=0)
            for projection in (attention.k_proj, attention.v_proj))
    seen = {}
    attention.q_proj.register_forward_hook(lambda _, args, out: seen.update(q=out))

    def before_output(_, args):
        q = _heads(seen["q"], config.num_attention_heads)
        positions = torch.arange(q.shape[-2])[None]
        cos, sin = model.model.rotary_emb(q, positions)
        q, _ = apply_rotary_pos_emb(q, q, cos, sin)
        scores = torch.softmax(q @ k.transpose(-1, -2) / np.sqrt(q.shape[-1]), dim=-1)
        own = torch.tanh(tensor(gate)).view(-1, 1, 1) * (scores @ v)
        return (args[0] + own.transpose(-3, -2).flatten(-2),)
    attention.o_proj.register_forward_pre_hook(before_output)


def _own_format(model, box, rng):
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    tensors = {"adapter_query.weight": rng("query", _LENGTH * _ADAPTED, model.config.hidden_size)}
    for layer in range(layers):
        tensors[f"layers.{layer}.attention.gate"] = 2.0 * rng(f"gate.{layer}", 1, heads, 1, 1)
    take(box, llama_adapter.convert(tensors, _LENGTH, "tanh", box.base_name))
    for i, layer in enumerate(range(layers - _ADAPTED, layers)):
        _attend(model, layer, tensors["adapter_query.weight"][i * _LENGTH:(i + 1) * _LENGTH],
                tensors[f"layers.{layer}.attention.gate"].reshape(-1))


CASES = [case("llama", "llama_adapter_own", "llama_adapter", _own_format, lengths=(1, 7, 20))]


def build(out):
    build_all(out, CASES)
