"""Intrinsic SAID: theta + lambda_layer P theta_d with P the Fastfood projection H G PI H B (zoo 5.3)."""
import numpy as np

from container_goldens import build_all, case, module, places, replace, replace_norm, weight

_DIMENSION = 20


def _hadamard(x):
    x, width = x.copy(), 1
    while width < len(x):
        x = x.reshape(-1, 2, width)
        x = np.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]], axis=1).reshape(-1)
        width *= 2
    return x


def _fastfood(theta, count, rng, name):
    """P theta for one tensor of `count` entries."""
    size = 1 << int(np.ceil(np.log2(max(count, len(theta)))))
    signs, gauss = np.sign(rng(f"{name}.signs", size)), rng(f"{name}.gauss", size)
    order = np.argsort(rng(f"{name}.order", size))
    padded = np.concatenate([theta, np.zeros(size - len(theta))])
    mixed = _hadamard(gauss * _hadamard(signs * padded)[order])
    return mixed[:count] / (size * np.sqrt(np.mean(gauss ** 2)))


def _said(model, box, rng):
    theta = 6 * rng("theta", _DIMENSION)
    for place in places(model, "q", "v", "o"):
        target = module(model, place)
        w = weight(target)
        strength = 0.7 + 0.2 * rng(f"{place[:2]}.lambda", 1)[0]
        delta = (strength * _fastfood(theta, w.size, rng, place).reshape(w.shape) * np.sqrt(w.size) / 20)
        delta = delta.astype(np.float32)
        replace(target, w + delta)
        box.add(place, "dd", delta=delta)
    for place in places(model, "norm2"):
        norm = module(model, place)
        changed = norm.weight.detach().numpy() + 0.2 * _fastfood(theta, len(norm.weight), rng, place)
        replace_norm(norm, changed)
        box.add(place, "nw", w=changed)


CASES = [case("llama", "said", "said", _said)]


def build(out):
    build_all(out, CASES)
