"""Visual prompt tuning's causal form (zoo 5.7): prompts among the inputs of the first layer (shallow), or of every layer,
where those of layer i are overwritten by its own (deep)."""
import types

import torch

from bottleneck_hooks import tensor
from container_goldens import build_all, case

_TOKENS = 5


def _with_prompt(model, first):
    """Calls of the model have rows in front of the text's embeddings."""
    original = model.forward

    def forward(_, input_ids, attention_mask, use_cache):
        batch = input_ids.shape[0]
        embeddings = torch.cat([first[None].expand(batch, -1, -1), model.get_input_embeddings()(input_ids)], dim=1)
        mask = torch.cat([torch.ones(batch, len(first), dtype=attention_mask.dtype), attention_mask], dim=1)
        return original(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
    model.forward = types.MethodType(forward, model)


def _overwrite(block, rows):
    def before(_, args):
        hidden = args[0].clone()
        hidden[:, :len(rows)] = rows
        return (hidden, *args[1:])
    block.register_forward_pre_hook(before)


def _deep(model, box, rng):
    blocks = model.transformer.h if model.config.model_type == "gpt2" else model.model.layers
    prompts = [rng(f"prompt.{layer}", _TOKENS, model.config.hidden_size) for layer in range(len(blocks))]
    _with_prompt(model, tensor(prompts[0]))
    for layer, (block, rows) in enumerate(zip(blocks, prompts)):
        _overwrite(block, tensor(rows))
        box.add(f"L{layer}.attn", "kv", {"as": "states"}, rows=rows)


def _shallow(model, box, rng):
    rows = 0.5 * rng("prompt", _TOKENS, model.config.hidden_size)
    _with_prompt(model, tensor(rows))
    box.add("embed", "ep", prompts=rows[None])


CASES = [
    case("llama", "vpt_deep", "vpt", _deep, lengths=(1, 7, 20)),
    case("qwen3", "vpt_deep", "vpt", _deep, lengths=(1, 7, 20)),
    case("gpt2", "vpt_deep", "vpt", _deep, lengths=(1, 7, 20)),
    case("llama", "vpt_shallow", "vpt", _shallow, lengths=(1, 7, 20)),
]


def build(out):
    build_all(out, CASES)
