"""Bottleneck adapters as hooks on a transformers model, for goldens by formula."""
import torch

from container_goldens import module

ACTS = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh, "silu": torch.nn.functional.silu,
        "identity": lambda x: x}


def tensor(values):
    return torch.from_numpy(values).float()


def layer_norm(x, weight, bias):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], tensor(weight), tensor(bias), 1e-5)


class Bottleneck:
    """f(u) = s (W_u act(W_d norm(u) + b_d) + b_u) with random values; tensors are named as the container's bn."""

    def __init__(self, rng, name, sizes, act, norm=False, scale=1.0, width=6, biases=True):
        self.tensors = {"wd": rng(f"{name}.wd", width, sizes[0]) / sizes[0] ** 0.5,
                        "bd": 0.2 * rng(f"{name}.bd", width), "wu": 0.5 * rng(f"{name}.wu", sizes[1], width),
                        "bu": 0.2 * rng(f"{name}.bu", sizes[1])}
        if not biases:
            self.tensors["bd"], self.tensors["bu"] = 0 * self.tensors["bd"], 0 * self.tensors["bu"]
        if norm:
            self.tensors |= {"ln_w": 1 + 0.2 * rng(f"{name}.lw", sizes[0]), "ln_b": 0.2 * rng(f"{name}.lb", sizes[0])}
        self.act, self.scale = act, scale

    def __call__(self, u):
        v = self.tensors
        if "ln_w" in v:
            u = layer_norm(u, v["ln_w"], v["ln_b"])
        inner = ACTS[self.act](u @ tensor(v["wd"]).T + tensor(v["bd"]))
        return self.scale * (inner @ tensor(v["wu"]).T + tensor(v["bu"]))

    def options(self, tap):
        return {"tap": tap, "act": self.act, "scale": self.scale}


def before(target, f):
    """x of a linear module becomes x + f(x)."""
    target.register_forward_pre_hook(lambda _, args: (args[0] + f(args[0]),))


def behind(target, f):
    """y of a linear module becomes y + f(y)."""
    target.register_forward_hook(lambda _, args, out: out + f(out))


def beside(target, f):
    """y of a linear module becomes y + f(x)."""
    target.register_forward_hook(lambda _, args, out: out + f(args[0]))


def _around(model, layer, which):
    """(norm before the sub-layer, sub-layer) of one layer."""
    gpt2 = model.config.model_type == "gpt2"
    block = model.transformer.h[layer] if gpt2 else model.model.layers[layer]
    names = {"attn": "attn" if gpt2 else "self_attn", "mlp": "mlp"}
    return module(model, f"L{layer}.norm{1 if which == 'attn' else 2}"), block.get_submodule(names[which])


def change_sub_layer(model, place, change):
    """change(taps) takes the place of the output of "L0.attn" or "L0.mlp".

    taps: the stream entering it (r), that normed (n), its output (o) and r + o (z).
    """
    layer, which = place[1:].split(".")
    norm, sub_layer = _around(model, int(layer), which)
    seen = {}
    norm.register_forward_hook(lambda _, args, out: seen.update(r=args[0], n=out))

    def after(_, args, out):
        own = out[0] if isinstance(out, tuple) else out
        new = change({**seen, "o": own, "z": seen["r"] + own})
        return (new, *out[1:]) if isinstance(out, tuple) else new
    sub_layer.register_forward_hook(after)


def add_to_sub_layer(model, place, f, tap):
    """The sub-layer's output takes f of a tap beside it."""
    change_sub_layer(model, place, lambda taps: taps["o"] + f(taps[tap]))
