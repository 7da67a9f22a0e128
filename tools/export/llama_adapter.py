#!/usr/bin/env python3
"""Converts LLaMA-Adapter's own files to polyad's container: llama_adapter.py STATE.pth OUT --base NAME [--length 10]

adapter_query.weight [layers * length, d] holds learned vectors of the last layers, layers.i.attention.gate
[1, heads, 1, 1] a gate for each head. A layer's queries attend to k_proj and v_proj of its vectors in a softmax of
its own, times tanh(gate); files older than the release's tanh take --gate raw. polyad projects the vectors when it
loads them. Gates of layers without vectors are never used. Needs torch and numpy.
"""
import numpy as np

from command import arguments, read_state
from container import Container


def convert(tensors, length, gate, base):
    """{name: array} of the file -> a Container."""
    box = Container("llama_adapter", base)
    vectors = tensors["adapter_query.weight"]
    num_layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers."))
    num_adapted, rest = divmod(len(vectors), length)
    if rest or not 0 < num_adapted <= num_layers:
        raise SystemExit(f"adapter_query.weight: {len(vectors)} rows are no vectors of {length} for {num_layers} layers")
    for i, layer in enumerate(range(num_layers - num_adapted, num_layers)):
        heads = np.asarray(tensors[f"layers.{layer}.attention.gate"]).reshape(-1)
        box.add(f"L{layer}.attn", "kv", {"as": "vectors"}, rows=vectors[i * length:(i + 1) * length],
                gate=np.tanh(heads) if gate == "tanh" else heads)
    return box


def main():
    args = arguments(__doc__, "state", "out", length=(int, 10), gate=["tanh", "raw"], base=str)
    convert(read_state(args.state), args.length, args.gate, args.base).write(args.out)


if __name__ == "__main__":
    main()
