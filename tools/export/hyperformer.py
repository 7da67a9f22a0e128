#!/usr/bin/env python3
"""Converts HyperFormer files to polyad's container: hyperformer.py STATE.bin OUT --base NAME [--act gelu_new]

A hyper-network makes each layer's adapters from embeddings of the task and the layer (and, in HyperFormer++, of the
place: 0 for the MLP, 1 for attention). It is evaluated here for every task of the file; polyad's option "task"
chooses among them in the order of their names, which is printed. Behind a sub-layer with output o:
o + norm(W_u act(W_d norm(o) + b_d) + b_u), each norm only where the file makes one. Of an encoder-decoder's file
the decoder's network is taken. Needs torch and numpy.
"""
import numpy as np

from command import arguments, read_state
from container import Container

_NET = "adapter_layers_hyper_net."
_TASKS = "task_embedding_controller."
_PLACES = {"mlp": ("feed_forward_", 0), "attn": ("self_attention_", 1)}


def _linear(part, name, x):
    return part[f"{name}.weight"] @ x + part[f"{name}.bias"]


def _task_net(part, prefix, x):
    """Linear, relu, linear: what makes an embedding of its parts."""
    x = np.maximum(_linear(part, f"{prefix}task_embeding_generator.0", x), 0)
    return _linear(part, f"{prefix}task_embeding_generator.2", x)


def _normed(part, x):
    if "LayerNorm.weight" not in part:
        return x
    centred = x - x.mean()
    return centred / np.sqrt((centred ** 2).mean() + 1e-6) * part["LayerNorm.weight"] + part["LayerNorm.bias"]


def _part(tensors, prefix):
    prefixes = [p for p in (f"decoder.{prefix}", prefix) if any(name.startswith(p) for name in tensors)]
    if not prefixes:
        raise SystemExit(f"{prefix}*: not in the file")
    return {name[len(prefixes[0]):]: np.asarray(value, dtype=np.float64) for name, value in tensors.items()
            if name.startswith(prefixes[0])}


def _adapter(net, which, inputs, width):
    """Tensors of the container's bn for one place of one layer."""
    prefix, block = _PLACES[which]
    if "adapters_block_type.weight" in net:
        prefix, inputs = "", inputs + [net["adapters_block_type.weight"][block]]
    x = _normed(net, _task_net(net, "task_hypernet.", np.concatenate(inputs)))

    def made(name, generator, sequential=".0"):
        return _linear(net, f"{prefix}{name}.{generator}{sequential}", x)
    down, up = (f"{side}_sampler_hyper_net" for side in ("down", "up"))
    tensors = {"wd": made(down, "weight_generator").reshape(-1, width), "bd": made(down, "bias_generator"),
               "wu": made(up, "weight_generator").reshape(width, -1), "bu": made(up, "bias_generator")}
    for name, place in (("pre", "ln"), ("post", "post")):
        norm = f"{name}_layernorm_hypernet"
        if f"{prefix}{norm}.weight_generator.weight" in net:
            tensors |= {f"{place}_w": made(norm, "weight_generator", ""), f"{place}_b": made(norm, "bias_generator", "")}
    return tensors


def convert(tensors, act, base):
    """{name: array} of the file -> (a Container, the tasks in the order of their numbers)."""
    net, tasks = _part(tensors, _NET), _part(tensors, _TASKS)
    up = next(name for name in ("up_sampler_hyper_net", "feed_forward_up_sampler_hyper_net")
              if f"{name}.bias_generator.0.bias" in net)
    width = len(net[f"{up}.bias_generator.0.bias"])
    names = sorted(name.rpartition(".")[2] for name in tasks if name.startswith("task_to_embeddings."))
    box = Container("hyperformer", base)
    for number, name in enumerate(names):
        task = tasks[f"task_to_embeddings.{name}"]
        if any(key.startswith("task_hyper_net.") for key in tasks):
            task = _task_net(tasks, "task_hyper_net.", task)
        for layer, embedding in enumerate(net["layer_id_embeddings.weight"]):
            for which in _PLACES:
                box.add(f"L{layer}.{which}", "bn", {"tap": "o", "act": act, "task": number},
                        **_adapter(net, which, [task, embedding], width))
    return box, names


def main():
    args = arguments(__doc__, "state", "out", act=(str, "gelu_new"), base=str)
    box, names = convert(read_state(args.state), args.act, args.base)
    box.write(args.out)
    for number, name in enumerate(names):
        print(f"task {number}: {name}")


if __name__ == "__main__":
    main()
