#!/usr/bin/env python3
"""Writes the golden adapters of the tiny llama as seeds for the adapter readers' fuzz targets, and the golden
schemas and expressions as seeds for the constraints'.

  adapter_seeds.py OUT_DIR     -> OUT_DIR/<target>/<adapter>, in the text of adapter_fuzzing.h
"""
import json
import pathlib
import struct
import sys

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "golden" / "adapters" / "llama"
FORMATS = [("peft_adapter_fuzz", "adapter_config.json", "adapter_model.safetensors"),
           ("adapterhub_adapter_fuzz", "adapter_config.json", "adapter.safetensors"),
           ("container_adapter_fuzz", "zoo.json", "zoo.safetensors")]


GRAMMARS = (
    'root ::= expr\nexpr ::= term (("+" | "-") term)*\nterm ::= [0-9]+ | "(" expr ")"\n',
    'start: greeting [mark] ("x".."z")~2..3  // two\n?greeting: "hi" -> a | /b+/\n!mark: "!"\n',
    'root ::= "[" (item ("," item){0,3})? "]" # list\nitem ::= root | "\\x41" | [^\\]a-]\n',
)


def tensor_lines(path):
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    return [" ".join([name, entry["dtype"], *map(str, entry["shape"])])
            for name, entry in header.items() if name != "__metadata__"]


def write(out, target, name, content):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def write_constraints(out):
    """The kind and a random seed, then the text (constraint_fuzz.cc)."""
    cases = json.loads((GOLDENS.parents[1] / "constraints" / "cases.json").read_text())
    for i, (schema, _) in enumerate(cases["schemas"]):
        write(out, "constraint_fuzz", f"schema_{i}", b"\0\1" + json.dumps(schema).encode())
    for i, (pattern, _) in enumerate(cases["patterns"]):
        write(out, "constraint_fuzz", f"pattern_{i}", b"\1\1" + pattern.encode())
    for i, grammar in enumerate(GRAMMARS):
        write(out, "constraint_fuzz", f"grammar_{i}", b"\2\1" + grammar.encode())


def main():
    out = pathlib.Path(sys.argv[1])
    write_constraints(out)
    for adapter in sorted(GOLDENS.iterdir()):
        if (adapter / "adapter.gguf").exists():
            write(out, "gguf_adapter_fuzz", adapter.name, (adapter / "adapter.gguf").read_bytes())
        options = json.loads((adapter / "golden.json").read_text()).get("options", {})
        for target, config, tensors in FORMATS:
            if not (adapter / tensors).exists():
                continue
            read = json.loads((adapter / config).read_text())
            lines = tensor_lines(adapter / tensors)
            if read.get("peft_type") == "XLORA":
                parts = sorted(part for part in adapter.iterdir() if part.is_dir())
                read = {"xlora": read,
                        "parts": {part.name: json.loads((part / config).read_text()) for part in parts}}
                lines += [f"{part.name}/{line}" for part in parts for line in tensor_lines(part / tensors)]
            text = json.dumps(read)
            lines += [f"option {key} {value}" for key, value in options.items()]
            write(out, target, adapter.name, (text + "\0" + "\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
