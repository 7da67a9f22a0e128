"""What every golden shares: deterministic weights, prompts with clear winners, and the file format.

A golden is a directory with goldens.safetensors and golden.json; README.md lists the names. Logits come
from transformers in float32, eager attention, one prompt at a time without a cache or padding. A greedy
continuation is 24 argmax steps that ignore end-of-text. Prompts are picked, by fixed seeds, for a large
smallest top-2 margin along the continuation, so that an honest implementation has no near ties.
"""
import os
import sys
import zlib

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "..", "tools"))
import weights_io  # noqa: E402

# Goldens are made on the CPU; transformers asks the CUDA runtime, which may be missing, about captures.
torch.cuda.is_current_stream_capturing = lambda: False

NUM_GREEDY = 24
KEPT_LOGITS = 3
NUM_SPECIAL_TOKENS = 3
_NUM_CANDIDATES = 192
_MIN_DISTINCT = 6


def rng_for(*key):
    """A generator that depends on the key alone, so that adding one tensor moves no other."""
    return np.random.default_rng(zlib.crc32("/".join(str(k) for k in key).encode()))


def library_versions():
    """Of what is installed here: AdapterHub's goldens come from an environment of their own."""
    from importlib.metadata import PackageNotFoundError, version
    names = ["torch", "transformers", "peft", "adapters", "tokenizers", "safetensors", "gguf", "numpy"]
    found = {}
    for name in names:
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            pass
    return found


@torch.no_grad()
def forward(model, ids):
    """ids [batch, n] -> float32 logits [batch, n, vocab], without those of virtual tokens in front."""
    mask = torch.ones_like(ids)
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -ids.shape[1]:].float()


def greedy(model, prompts, num_steps=NUM_GREEDY):
    """prompts [batch, n] -> (tokens [batch, num_steps], top-2 margins [batch, num_steps])."""
    ids, margins = prompts, []
    for _ in range(num_steps):
        top = forward(model, ids)[:, -1].topk(2)
        margins.append(top.values[:, 0] - top.values[:, 1])
        ids = torch.cat([ids, top.indices[:, :1]], dim=1)
    return ids[:, prompts.shape[1]:], torch.stack(margins, dim=1)


@torch.no_grad()
def greedy_with_cache(model, prompts, num_steps=NUM_GREEDY, masked=True):
    """greedy with a cache: what an adapter means over the rows of a call is then the prompt's, once, and each later
    token's alone."""
    past, ids, tokens, margins = None, prompts, [], []
    for step in range(num_steps):
        mask = torch.ones(prompts.shape[0], prompts.shape[1] + step, dtype=torch.long) if masked else None
        out = model(input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=True)
        past, top = out.past_key_values, out.logits[:, -1].float().topk(2)
        margins.append(top.values[:, 0] - top.values[:, 1])
        ids = top.indices[:, :1]
        tokens.append(ids)
    return torch.cat(tokens, dim=1), torch.stack(margins, dim=1)


def pick_prompt(model, name, length, vocab, edit=None):
    """The candidate whose greedy continuation has the largest smallest margin; edit changes candidates."""
    rng = rng_for("prompt", name, length)
    count = min(_NUM_CANDIDATES, 96 if length > 20 else _NUM_CANDIDATES)
    if length == 1:
        ids = np.arange(NUM_SPECIAL_TOKENS, vocab)[:, None]
    else:
        ids = rng.integers(NUM_SPECIAL_TOKENS, vocab, (count, length))
    if edit:
        edit(ids)
    candidates = torch.from_numpy(ids).long()
    tokens, margins = greedy(model, candidates)
    distinct = torch.tensor([len(set(row.tolist())) for row in tokens])
    needed = min(_MIN_DISTINCT, int(distinct.max()))
    score = torch.where(distinct >= needed, margins.min(dim=1).values, -1.0)
    return candidates[int(score.argmax())]


def make_golden(model, name, vocab, lengths, edit=None):
    """-> (tensors, summary) for prompts of the given lengths; the model is in evaluation mode.

    Logits are kept for a prompt's last KEPT_LOGITS positions, which every earlier one has reached.
    """
    tensors, smallest = {}, float("inf")
    for i, length in enumerate(lengths):
        prompt = pick_prompt(model, name, length, vocab, edit)
        tokens, margins = greedy(model, prompt[None])
        logits = forward(model, prompt[None])[0, -KEPT_LOGITS:].numpy()
        smallest = min(smallest, margins.min().item())
        tensors[f"prompt.{i}.tokens"] = weights_io.encode(prompt.numpy(), "I32")
        tensors[f"prompt.{i}.logits"] = weights_io.encode(logits, "F32")
        tensors[f"prompt.{i}.greedy"] = weights_io.encode(tokens[0].numpy(), "I32")
        tensors[f"prompt.{i}.greedy_margins"] = weights_io.encode(margins[0].numpy(), "F32")
    summary = {"num_prompts": len(lengths), "prompt_lengths": list(lengths), "num_greedy": NUM_GREEDY,
               "min_greedy_margin": round(smallest, 5), "vocab_size": vocab,
               "logits_std": round(float(tensors["prompt.0.logits"][1].std()), 4)}
    return tensors, summary


def write_golden(path, tensors, summary):
    weights_io.write_safetensors(f"{path}/goldens.safetensors", tensors)
    weights_io.write_json(f"{path}/golden.json", summary | {"made_with": library_versions()})


def load_model(path, weights=None):
    """A float32 eager transformers model of a directory; weights replace the stored ones."""
    from transformers import AutoConfig, AutoModelForCausalLM
    if weights is None:
        model, info = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        problems = {k: v for k, v in info.items() if v and k != "error_msgs"}
        if problems:
            raise SystemExit(f"{path}: weights do not match the config: {problems}")
        return model.eval()
    config = AutoConfig.from_pretrained(path)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    state = {k: torch.from_numpy(np.array(v, dtype=np.float32)) for k, v in weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name != "lm_head.weight" or not config.tie_word_embeddings]
    if missing or unexpected:
        raise SystemExit(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()
