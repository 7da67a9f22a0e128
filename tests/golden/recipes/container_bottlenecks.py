"""Bottlenecks of the container (zoo 1.2, 5.5): AdaptFormer, and one at every tap, as hooks on the model."""
import torch

from container_goldens import build_all, case, module, places
import adaptformer  # tools/export, which container_goldens puts on the path

_ACTS = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh,
         "silu": torch.nn.functional.silu}


class _Bottleneck:
    """f(u) = s (W_u act(W_d norm(u) + b_d) + b_u)."""

    def __init__(self, rng, name, sizes, act, norm, scale):
        width = 6
        self.tensors = {"wd": rng(f"{name}.wd", width, sizes[0]) / sizes[0] ** 0.5,
                        "bd": 0.2 * rng(f"{name}.bd", width), "wu": 0.5 * rng(f"{name}.wu", sizes[1], width),
                        "bu": 0.2 * rng(f"{name}.bu", sizes[1])}
        if norm:
            self.tensors |= {"ln_w": 1 + 0.2 * rng(f"{name}.lw", sizes[0]), "ln_b": 0.2 * rng(f"{name}.lb", sizes[0])}
        self.act, self.scale = act, scale
        self.values = {name: torch.from_numpy(value).float() for name, value in self.tensors.items()}

    def __call__(self, u):
        v = self.values
        if "ln_w" in v:
            u = torch.nn.functional.layer_norm(u, u.shape[-1:], v["ln_w"], v["ln_b"], 1e-5)
        return self.scale * (_ACTS[self.act](u @ v["wd"].T + v["bd"]) @ v["wu"].T + v["bu"])

    def options(self, tap):
        return {"tap": tap, "act": self.act, "scale": self.scale}


def _around(model, layer, which):
    """(norm before the sub-layer, sub-layer) of one layer."""
    gpt2 = model.config.model_type == "gpt2"
    block = model.transformer.h[layer] if gpt2 else model.model.layers[layer]
    names = {"attn": "attn" if gpt2 else "self_attn", "mlp": "mlp"}
    return module(model, f"L{layer}.norm{1 if which == 'attn' else 2}"), block.get_submodule(names[which])


def _add_beside(model, layer, which, f, tap):
    """The sub-layer's output takes f of the stream entering it (r), that normed (n), itself (o) or r + o (z)."""
    norm, sub_layer = _around(model, layer, which)
    seen = {}
    norm.register_forward_hook(lambda _, args, out: seen.update(r=args[0], n=out))

    def after(_, args, out):
        own = out[0] if isinstance(out, tuple) else out
        new = own + f({"r": seen["r"], "n": seen["n"], "o": own, "z": seen["r"] + own}[tap])
        return (new, *out[1:]) if isinstance(out, tuple) else new
    sub_layer.register_forward_hook(after)


def _adaptformer(model, box, rng):
    tensors = {}
    for layer in range(2):
        f = _Bottleneck(rng, f"{layer}", (64, 64), "relu", layer == 1, 0.7)
        names = {"wd": "down_proj.weight", "bd": "down_proj.bias", "wu": "up_proj.weight", "bu": "up_proj.bias",
                 "ln_w": "adapter_layer_norm_before.weight", "ln_b": "adapter_layer_norm_before.bias"}
        tensors |= {f"blocks.{layer}.adaptmlp.{names[k]}": v for k, v in f.tensors.items()}
        _add_beside(model, layer, "mlp", f, "r")
    made = adaptformer.convert(tensors, 0.7, box.base_name)
    box.tensors, box.sites = made.tensors, made.sites


def _every_tap(model, box, rng):
    for place, tap, act, norm in (("L0.attn", "n", "gelu", True), ("L0.mlp", "z", "relu", False),
                                  ("L1.attn", "o", "tanh", False), ("L1.mlp", "n", "silu", True)):
        f = _Bottleneck(rng, place, (64, 64), act, norm, 0.6)
        layer, which = place[1:].split(".")
        _add_beside(model, int(layer), which, f, tap)
        box.add(place, "bn", f.options(tap), **f.tensors)
    for place in places(model, "gate"):
        f = _Bottleneck(rng, place, (64, 64), "tanh", False, 0.5)
        module(model, place).register_forward_pre_hook(lambda _, args, f=f: (args[0] + f(args[0]),))
        box.add(place, "bn", f.options("in"), **f.tensors)
    for place in places(model, "down"):
        f = _Bottleneck(rng, place, (64, 64), "relu", False, 0.5)
        module(model, place).register_forward_hook(lambda _, args, out, f=f: out + f(out))
        box.add(place, "bn", f.options("out"), **f.tensors)
    for place in places(model, "q"):
        f = _Bottleneck(rng, place, (64, 96), "gelu", True, 0.5)
        module(model, place).register_forward_hook(lambda _, args, out, f=f: out + f(args[0]))
        box.add(place, "bn", f.options("beside"), **f.tensors)


CASES = [
    case("llama", "adaptformer", "adaptformer", _adaptformer),
    case("mistral", "container_bottlenecks", "bottlenecks", _every_tap),
]


def build(out):
    build_all(out, CASES)
