"""CIAT (Zhu et al. 2021): beside every sub-layer an adapter of the stream with its own norm, and one on the embeddings.

x' = x + f(x) of the token embeddings, and o + f(norm(r)) of each sub-layer (zoo 5.5).
"""
from bottleneck_hooks import Bottleneck, add_to_sub_layer
from container_goldens import build_all, case


def _ciat(model, box, rng):
    f = Bottleneck(rng, "embed", (64, 64), "relu", norm=True, scale=1.0)
    # The stream that enters the first layer: behind the position embeddings, where the base has them.
    block = model.transformer.h[0] if model.config.model_type == "gpt2" else model.model.layers[0]
    block.register_forward_pre_hook(lambda _, args, f=f: (args[0] + f(args[0]), *args[1:]))
    box.add("embed", "bn", {"act": f.act, "scale": f.scale}, **f.tensors)
    for layer in range(model.config.num_hidden_layers):
        for which in ("attn", "mlp"):
            g = Bottleneck(rng, f"{layer}.{which}", (64, 64), "relu", norm=True, scale=0.8, width=4)
            add_to_sub_layer(model, f"L{layer}.{which}", g, "r")
            box.add(f"L{layer}.{which}", "bn", g.options("r"), **g.tensors)


CASES = [
    case("llama", "ciat", "ciat", _ciat, lengths=(1, 7, 20)),
    case("gpt2", "ciat", "ciat", _ciat, lengths=(1, 7, 20)),
]


def build(out):
    build_all(out, CASES)
