#!/usr/bin/env python3
"""Writes a PEFT adapter whose file is not complete as one that is: peft_complete.py ADAPTER BASE OUT

Some families save less than they compute with, and make the rest again from a seed with torch's generator, or
from a decomposition whose signs are the library's. What the library makes of ADAPTER on BASE is written out:

  VERA, PVERA, RANDLORA  the same PEFT directory with its projections
  UNILORA                the same PEFT directory with its indices and scales
  FOURIERFT, WAVEFT, PSOFT, ADAMSS  polyad's container with each module's change of the weight (dense, sparse or low rank)

Needs torch, transformers and peft, with the versions that trained the adapter.
"""
import argparse
import json
import os

from container import Container
from deltas import cheapest
from places import place_of

COMPLETE = {"VERA": "save_projection", "PVERA": "save_projection", "RANDLORA": "save_projection",
            "UNILORA": "save_indices"}
MERGED = ("FOURIERFT", "WAVEFT", "PSOFT", "ADAMSS")


def _load(base, adapter):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).eval()


def _save_whole(model, flag, out):
    """Saves with every buffer that the library keeps out of files, and the flag that says they are there."""
    from peft.tuners._buffer_dict import BufferDict
    for module in model.modules():
        if isinstance(module, BufferDict):
            module.persistent = True
            module._non_persistent_buffers_set.clear()
    setattr(model.peft_config["default"], flag, True)
    model.save_pretrained(out)


def _linear_weights(model):
    """Module path -> float64 weight [out, in], of every linear module the container has a place for."""
    found = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if place_of(path) is None or weight is None or weight.dim() != 2:
            continue
        value = weight.detach().double().numpy().copy()
        found[path] = value.T if type(module).__name__ == "Conv1D" else value
    return found


def differences(before, after, family, base_name):
    """A container of what changed from one set of weights {path: [out, in]} to another."""
    box = Container(family, base_name)
    for path, weight in before.items():
        change = cheapest(after[path] - weight)
        if change is not None:
            op, tensors = change
            box.add(place_of(path), op, **tensors)
    return box


def convert(adapter, base, out):
    with open(f"{adapter}/adapter_config.json", encoding="utf-8") as f:
        family = json.load(f)["peft_type"]
    if family not in COMPLETE and family not in MERGED:
        raise SystemExit(f"{adapter}: {family} files are complete as they are, or cannot be converted here")
    model = _load(base, adapter)
    if family in COMPLETE:
        _save_whole(model, COMPLETE[family], out)
        return
    before = _linear_weights(_load(base, adapter).unload())
    after = _linear_weights(model.merge_and_unload())
    differences(before, after, family.lower(), os.path.basename(os.path.normpath(base))).write(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("adapter", "base", "out"):
        parser.add_argument(name)
    args = parser.parse_args()
    convert(args.adapter, args.base, args.out)


if __name__ == "__main__":
    main()
