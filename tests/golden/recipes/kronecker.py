"""KronA (W + s A x B, or beside the MLP) and KAdaptation (W + sum of A_i x u_i v_i) (zoo 5.4)."""
import numpy as np

from bottleneck_hooks import add_to_sub_layer, tensor
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


def _beside_mlp(model, box, rng):
    """KronA^B_res (Edalati et al. 2022): the MLP's output takes s (A x B) n + t n, n its normed input."""
    for layer in range(model.config.num_hidden_layers):
        a, b = rng(f"{layer}.a", 8, 4) / 2, rng(f"{layer}.b", 8, 16) / 4
        delta, residual = tensor(0.6 * np.kron(a, b)), 0.3 + 0.1 * layer
        add_to_sub_layer(model, f"L{layer}.mlp", lambda n, w=delta, t=residual: n @ w.T + t * n, "n")
        box.add(f"L{layer}.mlp", "kr", {"scale": 0.6, "tap": "n"}, c=a, d=b)
        box.add(f"L{layer}.mlp", "kr", {"scale": residual, "tap": "n"}, c=np.eye(8), d=np.eye(8))


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
    case("llama", "krona_parallel", "krona", _beside_mlp, lengths=(1, 7, 20)),
    case("mistral", "kadaptation", "kadaptation", _kadaptation),
]


def build(out):
    build_all(out, CASES)
