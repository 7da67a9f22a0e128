"""CoDA (Lei et al. 2023): a parallel adapter for every token, and sub-layers that only some tokens run.

The causal form for decoders (zoo 7): with n the normed input of a token and s = w . n, the sub-layer's output
counts sigmoid(s) times where s >= threshold and not at all elsewhere; the adapter reads n.
"""
import torch

from bottleneck_hooks import Bottleneck, change_sub_layer, tensor
from container_goldens import build_all, case


def _route(model, box, rng, threshold):
    for layer in range(model.config.num_hidden_layers):
        for which in ("attn", "mlp"):
            place = f"L{layer}.{which}"
            f = Bottleneck(rng, place, (64, 64), "relu", scale=0.6, width=4)
            w = 2 * rng(f"{place}.router", 64) / 8

            def change(taps, f=f, w=tensor(w)):
                score = taps["n"] @ w
                counts = torch.where(score >= threshold, torch.sigmoid(score), torch.zeros_like(score))
                return counts[..., None] * taps["o"] + f(taps["n"])
            change_sub_layer(model, place, change)
            box.add(place, "ts", {"threshold": threshold}, w=w)
            box.add(place, "bn", f.options("n"), **f.tensors)


CASES = [
    case("llama", "coda", "coda", lambda *args: _route(*args, 0.25)),
    case("gpt2", "coda", "coda", lambda *args: _route(*args, -0.5)),
]


def build(out):
    build_all(out, CASES)
