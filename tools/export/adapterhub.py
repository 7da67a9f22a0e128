#!/usr/bin/env python3
"""Converts pickled directories of AdapterHub, and of PEFT before safetensors, to safetensors: adapterhub.py DIR [DIR ...]

The server never reads pickle. In each directory, and in the directories below it (a saved setup has one for
each adapter), pytorch_adapter.bin becomes adapter.safetensors, pytorch_model_adapter_fusion.bin becomes
model_adapter_fusion.safetensors, and adapter_model.bin (old PEFT, LLM-Adapters) becomes adapter_model.safetensors.
Every name is kept: prefixes are saved under several names, and the server checks that the copies are equal. The
pickles stay where they are. Needs torch and numpy; the files are opened with torch's weights-only unpickler.
"""
import argparse
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import weights_io  # noqa: E402

FILES = {"pytorch_adapter.bin": "adapter.safetensors",
         "pytorch_model_adapter_fusion.bin": "model_adapter_fusion.safetensors",
         "adapter_model.bin": "adapter_model.safetensors"}


def _encode(name, tensor):
    import torch
    if tensor.dtype == torch.bfloat16:
        return "BF16", tensor.contiguous().view(torch.int16).numpy().view("uint16")
    names = {torch.float32: "F32", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64",
             torch.int32: "I32", torch.uint8: "U8"}
    if tensor.dtype not in names:
        raise SystemExit(f"tensor {name}: cannot convert {tensor.dtype}")
    return names[tensor.dtype], tensor.contiguous().numpy()


def convert(path):
    """Converts what one directory and those below it hold; -> the files written."""
    import torch
    written = []
    for where, _, names in sorted(os.walk(path)):
        for pickled, safe in FILES.items():
            if pickled not in names:
                continue
            state = torch.load(f"{where}/{pickled}", map_location="cpu", weights_only=True)
            tensors = {name: _encode(name, tensor.detach()) for name, tensor in state.items()}
            weights_io.write_safetensors(f"{where}/{safe}", tensors, {"format": "pt"})
            written.append(f"{where}/{safe}")
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+")
    for path in parser.parse_args().directories:
        written = convert(path)
        if not written:
            sys.exit(f"{path}: nothing to convert ({', '.join(FILES)})")
        print("\n".join(written))


if __name__ == "__main__":
    main()
