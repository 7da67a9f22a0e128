"""Pooled final hidden states as transformers has them, of models and adapters whose goldens are committed.

    VENV/bin/python tests/golden/embedding_goldens.py

writes embeddings/goldens.safetensors: for each case `<model>[/<adapter>].<prompt>.mean` and `.last`, F32 [hidden], of the
case's golden prompts. The states are those behind the final norm (hidden_states[-1]), of the prompt's own tokens.
"""
import os
import sys

import numpy as np
import torch
from safetensors.numpy import load_file

import golden_lib
from golden_lib import HERE

sys.path.append(os.path.join(HERE, "..", "..", "tools"))
import weights_io  # noqa: E402

PROMPTS = (1, 2)
CASES = ["llama", "qwen2", "gpt2", "smollm2", "llama/plain", "llama/ln_tuning", "llama/prompt_tuning", "llama/dora_all",
         "gpt2/ln_tuning"]


def load(case):
    """-> (the model, the directory of its golden)"""
    name, _, adapter = case.partition("/")
    model = golden_lib.load_model(f"{HERE}/models/{name}")
    if not adapter:
        return model, f"{HERE}/models/{name}"
    from peft import PeftModel
    directory = f"{HERE}/adapters/{name}/{adapter}"
    return PeftModel.from_pretrained(model, directory).eval(), directory


@torch.no_grad()
def hidden_states(model, ids):
    """ids [n] -> [n, hidden], without those of virtual tokens in front."""
    out = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False,
                output_hidden_states=True)
    return out.hidden_states[-1][0, -len(ids):].double().numpy()


def main():
    tensors = {}
    for case in CASES:
        if not os.path.isdir(f"{HERE}/" + ("models/" if "/" not in case else "adapters/") + case):
            raise SystemExit(f"{case}: no such golden")
        model, directory = load(case)
        golden = load_file(f"{directory}/goldens.safetensors")
        for prompt in PROMPTS:
            states = hidden_states(model, torch.from_numpy(golden[f"prompt.{prompt}.tokens"].astype(np.int64)))
            for kind, pooled in (("mean", states.mean(axis=0)), ("last", states[-1])):
                tensors[f"{case}.{prompt}.{kind}"] = weights_io.encode(pooled.astype(np.float32), "F32")
    os.makedirs(f"{HERE}/embeddings", exist_ok=True)
    weights_io.write_safetensors(f"{HERE}/embeddings/goldens.safetensors", tensors)
    weights_io.write_json(f"{HERE}/embeddings/golden.json",
                          {"prompts": list(PROMPTS), "cases": CASES, "made_with": golden_lib.library_versions()})


if __name__ == "__main__":
    main()
