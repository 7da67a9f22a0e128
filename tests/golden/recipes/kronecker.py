"""KronA (W + s A x B) and KAdaptation (W + sum of A_i x u_i v_i) (zoo 5.4)."""
import numpy as np

from container_goldens import build_all, case, module, places, replace, weight


def _krona(model, box, rng):
    shapes = {"q": (8, 4), "v": (4, 8), "up": (12, 8), "down": (4, 12)}
    for place in places(model, *shapes):
        target = module(model, place)
        w = weight(target)
        a_shape = shapes[place.split(".")[1]]
        b_shape = (w.shape[0] // a_shape[0], w.shape[1] // a_shape[1])
        a = rng(f"{place}.a", *a_shape) / np.sqrt(a_shape[1])
        b = rng(f"{place}.b", *b_shape) / np.sqrt(b_shape[1])
        replace(target, w + 0.5 * np.kron(a, b))
        box.add(place, "kr", {"scale": 0.5}, c=a, d=b)


def _kadaptation(model, box, rng):
    """Four Kronecker terms a site; the small factors A_i are shared by the whole model."""
    n, rank = 4, 1
    rule = 0.6 * rng("rule", n, n, n)
    for i in range(n):
        box.share(f"rule{i}", rule[i])
    for place in places(model, "q", "v"):
        target = module(model, place)
        w = weight(target)
        left = rng(f"{place}.left", n, w.shape[0] // n, rank)
        right = 0.5 * rng(f"{place}.right", n, rank, w.shape[1] // n) / np.sqrt(w.shape[1] // n)
        replace(target, w + sum(np.kron(rule[i], left[i] @ right[i]) for i in range(n)))
        for i in range(n):
            box.add(place, "kr", c=f"rule{i}", d=left[i] @ right[i])


CASES = [
    case("llama", "krona", "krona", _krona),
    case("mistral", "kadaptation", "kadaptation", _kadaptation),
]


def build(out):
    build_all(out, CASES)
