"""Soft prompts through our container: TPT, a prompt moved from another model; APT, a prefix with gates, fixed ones and
those of each token's own; SMoP, one of several prompts by the request's own text (zoo 5.7)."""
import sys
import types

import numpy as np
import torch
from transformers import DynamicCache

from container_goldens import build_all, case


def _wrap(model, forward):
    """Calls of the model go through forward(original, input_ids, attention_mask)."""
    original = model.forward
    model.forward = types.MethodType(lambda self, input_ids, attention_mask, use_cache: forward(
        original, input_ids, attention_mask), model)


def _tpt(model, box, rng):
    """P' = P + W2 tanh(W1 P), P a prompt of 48 numbers a token, projected before it is used."""
    hidden, tokens = model.config.hidden_size, 6
    source, down = rng("prompt", tokens, 48), rng("down", 40, 48) / np.sqrt(48)
    up, skip = rng("up", hidden, 40) / np.sqrt(40), rng("skip", hidden, 48) / np.sqrt(48)
    prompt = 0.5 * (source @ skip.T + np.tanh(source @ down.T) @ up.T)
    box.add("embed", "ep", prompts=prompt[None])
    rows = torch.from_numpy(prompt).float()

    def forward(original, input_ids, attention_mask):
        batch = input_ids.shape[0]
        embeddings = torch.cat([rows[None].expand(batch, -1, -1), model.get_input_embeddings()(input_ids)], dim=1)
        mask = torch.cat([torch.ones(batch, tokens, dtype=attention_mask.dtype), attention_mask], dim=1)
        return original(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
    _wrap(model, forward)


def _apt(model, box, rng):
    """Layer l's prefix token i is lambda_l alpha_li (k_i, v_i): APT's gates, which do not depend on the text."""
    config, tokens = model.config, 9
    heads = config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = []
    for layer in range(config.num_hidden_layers):
        gate = 1 / (1 + np.exp(-rng(f"alpha.{layer}", tokens))) * (1 + 0.3 * rng(f"lambda.{layer}", 1))
        k, v = (gate[:, None, None] * rng(f"{name}.{layer}", tokens, heads, head_dim) for name in "kv")
        box.add(f"L{layer}.attn", "kv", k=k, v=v)
        layers.append([torch.from_numpy(x).float().transpose(0, 1) for x in (k, v)])
    _wrap_prefix(model, layers)


def _wrap_prefix(model, layers):
    """Calls of the model start from layers' keys and values [kv heads, tokens, head size]; the text's positions follow."""
    config, tokens = model.config, layers[0][0].shape[1]

    def forward(original, input_ids, attention_mask):
        batch, length = input_ids.shape
        cache = DynamicCache(config=config)
        for layer, (k, v) in enumerate(layers):
            cache.update(k[None].expand(batch, -1, -1, -1), v[None].expand(batch, -1, -1, -1), layer)
        mask = torch.cat([torch.ones(batch, tokens, dtype=attention_mask.dtype), attention_mask], dim=1)
        positions = torch.arange(tokens, tokens + length)[None].expand(batch, -1)
        return original(input_ids=input_ids, attention_mask=mask, past_key_values=cache, position_ids=positions,
                        use_cache=True)
    _wrap(model, forward)


def _attention_by(gates):
    """A transformers attention in which token t's first keys and values are g_tj k_j and g_tj v_j, g = gates(module)."""
    def attend(module, query, key, value, attention_mask, scaling=None, **_):
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        own = gates(module)
        each = torch.ones(*own.shape[:2], key.shape[2])
        each[:, :, :own.shape[2]] = own
        scores = torch.einsum("bhtd,btj,bhjd->bhtj", query, each, key)
        scores *= query.shape[-1] ** -0.5 if scaling is None else scaling
        weights = torch.softmax(scores + attention_mask, dim=-1)
        return torch.einsum("bhtj,btj,bhjd->bthd", weights, each, value).contiguous(), weights
    return attend


def _apt_of_each_token(tap):
    """Layer l's prefix token i is lambda_l alpha_i(h) (k_i, v_i) for the token whose stream h enters the layer, or is
    normed there: alpha(h) = sigmoid(W_l h + b_l)."""
    def make(model, box, rng):
        config, tokens, hidden = model.config, 18, model.config.hidden_size
        gpt2 = config.model_type == "gpt2"
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
        layers, blocks = [], model.transformer.h if gpt2 else model.model.layers
        for layer, block in enumerate(blocks):
            scale = 1 + 0.3 * rng(f"lambda.{layer}", 1)
            k, v = (scale * rng(f"{name}.{layer}", tokens, heads, head_dim) for name in "kv")
            weight, bias = rng(f"w.{layer}", tokens, hidden) / 4, rng(f"b.{layer}", tokens)
            box.add(f"L{layer}.attn", "kv", {"tap": "n"} if tap == "n" else None, k=k, v=v, gate_w=weight, gate_b=bias)
            layers.append([torch.from_numpy(x).float().transpose(0, 1) for x in (k, v)])
            attention = block.attn if gpt2 else block.self_attn
            attention.gate = [torch.from_numpy(x).float() for x in (weight, bias)]
            reader = block if tap == "r" else attention

            def keep(_, args, kwargs, attention=attention):
                attention.h = args[0] if args else kwargs["hidden_states"]
            reader.register_forward_pre_hook(keep, with_kwargs=True)
        attend = _attention_by(lambda module: torch.sigmoid(module.h @ module.gate[0].T + module.gate[1]))
        _wrap_prefix(model, layers)
        plain, library = model.forward, sys.modules[type(model).__module__]

        def forward(self, **call):
            kept, library.eager_attention_forward = library.eager_attention_forward, attend
            try:
                return plain(**call)
            finally:
                library.eager_attention_forward = kept
        model.forward = types.MethodType(forward, model)
    return make


def _smop(model, box, rng):
    """Prompt k of the largest p = softmax(W mean(the text's embeddings)), times p_k: decided by the prompt, and kept while
    its continuation grows, so a call whose text is the last one and one token more keeps what was decided."""
    hidden, tokens, count = model.config.hidden_size, 5, 4
    prompts, router = rng("prompts", count, tokens, hidden), 2 * rng("router", count, hidden)
    box.add("embed", "ep", prompts=prompts, router=router)
    rows, weight = torch.from_numpy(prompts).float(), torch.from_numpy(router).float()
    last = {"ids": torch.zeros(0, 0), "prompt": None}

    def decide(input_ids):
        grows = input_ids.shape[1] > 1 and torch.equal(last["ids"], input_ids[:, :-1])
        if not grows:
            embedded = model.get_input_embeddings()(input_ids).mean(dim=1)
            best = torch.softmax(embedded @ weight.T, dim=-1).max(dim=-1)
            last["prompt"] = rows[best.indices] * best.values[:, None, None]
        last["ids"] = input_ids
        return last["prompt"]

    def forward(original, input_ids, attention_mask):
        batch = input_ids.shape[0]
        embeddings = torch.cat([decide(input_ids), model.get_input_embeddings()(input_ids)], dim=1)
        mask = torch.cat([torch.ones(batch, tokens, dtype=attention_mask.dtype), attention_mask], dim=1)
        return original(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
    _wrap(model, forward)


CASES = [
    case("llama", "smop", "smop", _smop),
    case("llama", "tpt", "tpt", _tpt),
    case("qwen2", "apt", "apt", _apt),
    case("llama", "apt_of_each_token", "apt", _apt_of_each_token("r")),
    case("gpt2", "apt_of_each_token", "apt", _apt_of_each_token("n")),
]


def build(out):
    build_all(out, CASES)
