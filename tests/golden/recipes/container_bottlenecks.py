"""Bottlenecks of the container (zoo 1.2, 5.5): AdaptFormer, and one at every tap, as hooks on the model."""
from bottleneck_hooks import Bottleneck, add_to_sub_layer, before, behind, beside
from container_goldens import build_all, case, module, places, take
import adaptformer  # tools/export, which container_goldens puts on the path


def _adaptformer(model, box, rng):
    tensors = {}
    for layer in range(2):
        f = Bottleneck(rng, f"{layer}", (64, 64), "relu", layer == 1, 0.7)
        names = {"wd": "down_proj.weight", "bd": "down_proj.bias", "wu": "up_proj.weight", "bu": "up_proj.bias",
                 "ln_w": "adapter_layer_norm_before.weight", "ln_b": "adapter_layer_norm_before.bias"}
        tensors |= {f"blocks.{layer}.adaptmlp.{names[k]}": v for k, v in f.tensors.items()}
        add_to_sub_layer(model, f"L{layer}.mlp", f, "r")
    take(box, adaptformer.convert(tensors, 0.7, box.base_name))


def _every_tap(model, box, rng):
    for place, tap, act, norm in (("L0.attn", "n", "gelu", True), ("L0.mlp", "z", "relu", False),
                                  ("L1.attn", "o", "tanh", False), ("L1.mlp", "n", "silu", True)):
        f = Bottleneck(rng, place, (64, 64), act, norm, 0.6)
        add_to_sub_layer(model, place, f, tap)
        box.add(place, "bn", f.options(tap), **f.tensors)
    for site, change, tap, sizes, act, norm in (
            ("gate", before, "in", (64, 64), "tanh", False), ("down", behind, "out", (64, 64), "relu", False),
            ("q", beside, "beside", (64, 96), "gelu", True)):
        for place in places(model, site):
            f = Bottleneck(rng, place, sizes, act, norm, 0.5)
            change(module(model, place), f)
            box.add(place, "bn", f.options(tap), **f.tensors)


CASES = [
    case("llama", "adaptformer", "adaptformer", _adaptformer),
    case("mistral", "container_bottlenecks", "bottlenecks", _every_tap),
]


def build(out):
    build_all(out, CASES)
