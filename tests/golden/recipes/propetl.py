"""ProPETL (zoo 5.3): one adapter for all layers, each with its own binary mask, through tools/export/propetl.py."""
import numpy as np

from bottleneck_hooks import Bottleneck, add_to_sub_layer
from container_goldens import build_all, case, take
import propetl  # tools/export, which container_goldens puts on the path

_KEPT = 0.6


def _masked(weight, scores):
    """The published rule, entry by entry: an entry lives unless it is among the lowest (1 - kept) n scores."""
    order = sorted(range(scores.size), key=lambda i: abs(scores.reshape(-1)[i]))
    dead = set(order[:int((1 - _KEPT) * scores.size)])
    mask = np.array([0.0 if i in dead else 1.0 for i in range(scores.size)]).reshape(scores.shape)
    return weight * mask.T


def _propetl(model, box, rng):
    prototype = Bottleneck(rng, "prototype", (64, 64), "relu", scale=1.0, width=8)
    tensors, names = {}, {"wd": "adapter_down.0.weight", "bd": "adapter_down.0.bias", "wu": "adapter_up.weight",
                          "bu": "adapter_up.bias"}
    for layer in range(model.config.num_hidden_layers):
        for which, place, tap in (("mlp", "output", "z"), ("attn", "attention.output", "o")):
            path = f"encoder.layer.{layer}.{place}"
            tensors |= {f"{path}.adapters.sst.{leaf}": prototype.tensors[key] for key, leaf in names.items()}
            scores = {"down_mask": rng(f"{path}.down", 64, 8), "up_mask": rng(f"{path}.up", 8, 64)}
            tensors |= {f"{path}.adapters_mask.sst.{name}": value for name, value in scores.items()}
            f = Bottleneck(rng, "prototype", (64, 64), "relu", scale=1.0, width=8)
            f.tensors["wd"] = _masked(f.tensors["wd"], scores["down_mask"])
            f.tensors["wu"] = _masked(f.tensors["wu"], scores["up_mask"])
            add_to_sub_layer(model, f"L{layer}.{which}", f, tap)
    take(box, propetl.convert(tensors, _KEPT, "relu", box.base_name)[0])


CASES = [case("llama", "propetl", "propetl", _propetl, lengths=(1, 7, 20))]


def build(out):
    build_all(out, CASES)
