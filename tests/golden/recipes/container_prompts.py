"""Soft prompts through our container: TPT, a prompt moved from another model; APT, a prefix with gates; SMoP, one of
several prompts by the request's own text (zoo 5.7)."""
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
]


def build(out):
    build_all(out, CASES)
