"""Goldens of families without a public format: the published formula on the transformers model in float32.

A case's `make(model, box, rng)` applies the formula to the model's own weights (or hooks) and writes the same
values to a container (tools/export/container.py). rng(name, *shape) draws standard normals that depend on the
case and the name alone.
"""
import os
import sys

import numpy as np
import torch

import adapter_goldens
import golden_lib

sys.path.append(os.path.join(golden_lib.HERE, "..", "..", "tools", "export"))
from container import Container  # noqa: E402

_LLAMA = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
          "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
          "norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
_GPT2 = {"qkv": "attn.c_attn", "o": "attn.c_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj", "norm1": "ln_1",
         "norm2": "ln_2"}


def module(model, place):
    """The module at a container's place, "L0.q" or "normf"."""
    gpt2 = model.config.model_type == "gpt2"
    if place in ("head", "embed", "normf"):
        name = {"head": "lm_head", "embed": "transformer.wte" if gpt2 else "model.embed_tokens",
                "normf": "transformer.ln_f" if gpt2 else "model.norm"}[place]
        return model.get_submodule(name)
    layer, site = place[1:].split(".")
    prefix = f"transformer.h.{layer}" if gpt2 else f"model.layers.{layer}"
    return model.get_submodule(f"{prefix}.{(_GPT2 if gpt2 else _LLAMA)[site]}")


def places(model, *sites):
    """Every layer's place of each site."""
    return [f"L{layer}.{site}" for layer in range(model.config.num_hidden_layers) for site in sites]


def weight(target):
    """A linear module's weight as [out, in] float64, whatever way round it is stored."""
    value = target.weight.detach().double().numpy()
    return value.T if type(target).__name__ == "Conv1D" else value


def bias(target):
    """[out] float64; zeros where the module has none."""
    if target.bias is None:
        return np.zeros(weight(target).shape[0])
    return target.bias.detach().double().numpy()


def replace(target, new_weight=None, new_bias=None):
    """Puts a weight [out, in] and a bias [out] in a linear module."""
    if new_weight is not None:
        stored = new_weight.T if type(target).__name__ == "Conv1D" else new_weight
        target.weight = torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(stored)).float())
    if new_bias is not None:
        target.bias = torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(new_bias)).float())


def replace_norm(target, new_weight, new_bias=None):
    target.weight = torch.nn.Parameter(torch.from_numpy(np.asarray(new_weight)).float())
    if new_bias is not None:
        target.bias = torch.nn.Parameter(torch.from_numpy(np.asarray(new_bias)).float())


def build(out, case):
    """case.config is the family's name, case.extra may hold more of golden.json, case.finish is make."""
    path = adapter_goldens.fresh_directory(out, case)
    adapted = adapter_goldens.load_base(out, case)
    box = Container(case.config, f"tiny-{case.model}", case.stored_type)

    def rng(name, *shape):
        x = golden_lib.rng_for("container", case.key, name).standard_normal(shape)
        return x.astype(np.float32).astype(np.float64)

    case.finish(adapted, box, rng)
    box.write(path)
    adapter_goldens.record(path, adapter_goldens.load_base(out, case), adapted.eval(), case)


def case(model, name, family, make, **more):
    return adapter_goldens.Case(model, name, family, [], finish=make, **more)


def take(box, made):
    """Gives a container what a converter of tools/export made."""
    box.tensors, box.sites = made.tensors, made.sites


def build_all(out, cases):
    for one in cases:
        if adapter_goldens.wanted(one):
            build(out, one)
