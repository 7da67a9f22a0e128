"""PEQA: new scales for a quantised base, W' = s' (W / s), per row or per row and group of inputs (zoo 5.2)."""
import numpy as np

from container_goldens import build_all, case, module, places, replace, weight

_SITES = ["q", "k", "v", "o", "gate", "up", "down"]


def _per_row(model, box, rng):
    for place in places(model, *_SITES):
        target = module(model, place)
        ratio = 1 + 0.3 * rng(place, len(weight(target)))
        replace(target, ratio[:, None] * weight(target))
        box.add(place, "os", c=ratio)


def _grouped(model, box, rng):
    for place in places(model, "v", "down"):
        target = module(model, place)
        w = weight(target)
        groups = w.shape[1] // 32
        ratio = 1 + 0.3 * rng(place, len(w), groups)
        replace(target, w * np.repeat(ratio, 32, axis=1))
        box.add(place, "hd", u=np.kron(np.eye(groups), np.ones(32)), v=ratio - 1)


CASES = [
    case("llama", "peqa", "peqa", _per_row),
    case("mistral", "peqa_grouped", "peqa", _grouped),
]


def build(out):
    build_all(out, CASES)
