"""Rotary scalings of transformers: rope/ with logits of tiny models whose configuration is edited.

golden.json names for each variant the model of models/ whose weights it takes, the members of config.json
that it changes (null: the member is null), and the lengths of its prompts. Those reach 4 times the length
that the model is said to have been trained on. Where frequencies depend on the length, transformers takes
that of the one forward pass that these logits are from.
"""
import contextlib
import os
import shutil
import tempfile

import torch

import golden_lib
import tiny_tokenizer
from golden_lib import weights_io

KEPT = 2
_SHORT = [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.8, 2.0]
_LONG = [1.0, 1.3, 1.9, 2.6, 3.1, 4.2, 5.5, 7.0]
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}

# name: (model, changes of config.json, lengths of prompts)
VARIANTS = {
    "dynamic": ("llama", {"max_position_embeddings": 32,
                          "rope_scaling": {"type": "dynamic", "factor": 4.0}}, (24, 64, 128)),
    "yarn": ("llama", {"rope_scaling": _YARN}, (24, 128)),
    "yarn_of_every_key": ("llama", {
        "rope_theta": None, "rope_scaling": None,
        "rope_parameters": _YARN | {"rope_theta": 5000.0, "beta_fast": 6.0, "beta_slow": 0.5, "mscale": 1.2,
                                    "mscale_all_dim": 0.6, "truncate": False}}, (24, 128)),
    "yarn_of_lengths": ("qwen3", {
        "max_position_embeddings": 128, "original_max_position_embeddings": 32,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": None,
                            "attention_factor": 1.15, "original_max_position_embeddings": 64}}, (24, 128)),
    "longrope": ("llama", {"original_max_position_embeddings": 32,
                           "rope_scaling": {"rope_type": "longrope", "short_factor": _SHORT,
                                            "long_factor": _LONG}}, (24, 32, 33, 128)),
    "longrope_of_every_key": ("llama", {
        "rope_theta": None, "rope_scaling": None,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 20000.0, "short_factor": _SHORT,
                            "long_factor": _LONG, "factor": 8.0, "attention_factor": 0.9,
                            "original_max_position_embeddings": 32}}, (32, 128)),
    "partial_linear": ("llama", {"max_position_embeddings": 32, "partial_rotary_factor": 0.5,
                                 "rope_scaling": {"type": "linear", "factor": 4.0}}, (24, 128)),
    "partial_dynamic": ("llama", {"max_position_embeddings": 32, "rope_theta": None, "rope_scaling": None,
                                  "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0,
                                                      "factor": 4.0, "partial_rotary_factor": 0.75}}, (128,)),
    "linear_parameters": ("mistral", {"max_position_embeddings": 32, "rope_theta": None,
                                      "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0,
                                                          "factor": 4.0}}, (24, 128)),
}


@contextlib.contextmanager
def _partial_rotation():
    """Llama's attention with Phi-3's rotation, which turns the first elements of a head and passes the rest."""
    from transformers.models.llama import modeling_llama
    from transformers.models.phi3 import modeling_phi3
    whole = modeling_llama.apply_rotary_pos_emb
    modeling_llama.apply_rotary_pos_emb = modeling_phi3.apply_rotary_pos_emb
    try:
        yield
    finally:
        modeling_llama.apply_rotary_pos_emb = whole


def _model(out, name, changes):
    with tempfile.TemporaryDirectory() as path:
        shutil.copy(f"{out}/models/{name}/model.safetensors", path)
        weights_io.write_json(f"{path}/config.json",
                              weights_io.read_json(f"{out}/models/{name}/config.json") | changes)
        return golden_lib.load_model(path)


def _record(out, name, tensors):
    base, changes, lengths = VARIANTS[name]
    partial = "partial_rotary_factor" in str(changes)
    with _partial_rotation() if partial else contextlib.nullcontext():
        model, plain = _model(out, base, changes), _model(out, base, {})
        for i, length in enumerate(lengths):
            rng = golden_lib.rng_for("rope", name, length)
            ids = torch.from_numpy(rng.integers(golden_lib.NUM_SPECIAL_TOKENS, tiny_tokenizer.VOCAB_SIZE, (1, length)))
            logits = golden_lib.forward(model, ids)[0, -KEPT:]
            effect = (logits - golden_lib.forward(plain, ids)[0, -KEPT:]).abs().max().item()
            if effect < 0.05 and length == max(lengths):
                raise SystemExit(f"rope/{name}: the scaling hardly shows, largest logit change {effect}")
            tensors[f"{name}.{i}.tokens"] = weights_io.encode(ids[0].numpy(), "I32")
            tensors[f"{name}.{i}.logits"] = weights_io.encode(logits.numpy(), "F32")
            print(f"rope/{name}: {length} tokens, largest logit change {effect:.2f}", flush=True)


def build(out):
    path = f"{out}/rope"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    tensors = {}
    for name in VARIANTS:
        _record(golden_lib.HERE, name, tensors)
    weights_io.write_safetensors(f"{path}/goldens.safetensors", tensors)
    variants = {name: {"model": model, "config": changes, "prompt_lengths": list(lengths)}
                for name, (model, changes, lengths) in VARIANTS.items()}
    weights_io.write_json(f"{path}/golden.json",
                          {"variants": variants, "made_with": golden_lib.library_versions()})
