"""LoRAPrune, y = m (W x + b + s B A x), and SPLoRA, W' = m_out (W + s B A) m_in, with 0/1 masks (zoo 5.2)."""
import numpy as np

from container_goldens import bias, build_all, case, module, places, replace, weight


def _pair(rng, place, w):
    return rng(f"{place}.a", 3, w.shape[1]) / np.sqrt(w.shape[1]), 0.25 * rng(f"{place}.b", len(w), 3)


def _mask(rng, name, count):
    return (rng(name, count) > -1.1).astype(np.float64)


def _loraprune(model, box, rng):
    for place in places(model, "q", "k", "v", "gate", "up"):
        target = module(model, place)
        w, b = weight(target), bias(target)
        a, up = _pair(rng, place, w)
        mask = _mask(rng, f"{place}.mask", len(w))
        replace(target, mask[:, None] * (w + up @ a), mask * b if target.bias is not None else None)
        box.add(place, "os", c=mask)
        box.add(place, "lr", a=a, b=mask[:, None] * up)
        if target.bias is not None:
            box.add(place, "bi", b=mask * b)


def _splora(model, box, rng):
    for place in places(model, "q", "v", "o", "down"):
        target = module(model, place)
        w = weight(target)
        a, up = _pair(rng, place, w)
        rows, cols = _mask(rng, f"{place}.out", len(w)), _mask(rng, f"{place}.in", w.shape[1])
        replace(target, rows[:, None] * (w + up @ a) * cols)
        box.add(place, "is", a=cols)
        box.add(place, "os", c=rows)
        box.add(place, "lr", a=a * cols, b=rows[:, None] * up)


CASES = [
    case("qwen2", "loraprune", "loraprune", _loraprune),
    case("llama", "splora", "splora", _splora),
]


def build(out):
    build_all(out, CASES)
