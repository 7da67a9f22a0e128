"""Diff pruning, SAM and SPT: a masked difference from the base, final masks (zoo 5.3)."""
import numpy as np

from container_goldens import bias, build_all, case, module, places, replace, replace_norm, weight
from container import sparse_rows


def _masked(rng, place, shape, density, size):
    """Float32-exact values on a random tenth (density) of the entries, elsewhere zero."""
    keep = np.abs(rng(f"{place}.mask", *shape)) < density * 1.2533
    return np.where(keep, size * rng(f"{place}.delta", *shape), 0.0).astype(np.float32)


def _diff_pruning(model, box, rng):
    for place in places(model, "q", "k", "v", "o", "gate", "up", "down"):
        target = module(model, place)
        w = weight(target)
        delta = _masked(rng, place, w.shape, 0.04, 0.5)
        replace(target, w + delta)
        box.add(place, "sp", **sparse_rows(delta))
        if target.bias is not None:
            shift = _masked(rng, f"{place}.bias", (len(w),), 0.2, 0.5)
            replace(target, None, bias(target) + shift)
            box.add(place, "bi", delta=shift)
    for place in places(model, "norm1"):
        norm = module(model, place)
        changed = norm.weight.detach().numpy() + _masked(rng, place, norm.weight.shape, 0.2, 0.5)
        replace_norm(norm, changed)
        box.add(place, "nw", w=changed)


def _structured(model, box, rng):
    """Whole matrices or none; of a matrix that is kept, all rows."""
    for place in ["L0.k", "L1.v", "L1.down"]:
        target = module(model, place)
        w = weight(target)
        delta = (0.08 * rng(place, *w.shape)).astype(np.float32)
        replace(target, w + delta)
        box.add(place, "dd", delta=delta)


def _sam(model, box, rng):
    """A mask over all parameters: the largest hundredth of a score."""
    scores = {place: np.abs(rng(f"{place}.score", *weight(module(model, place)).shape))
              for place in places(model, "q", "k", "v", "o", "gate", "up", "down")}
    bound = np.quantile(np.concatenate([s.ravel() for s in scores.values()]), 0.99)
    for place, score in scores.items():
        target = module(model, place)
        w = weight(target)
        delta = np.where(score >= bound, 0.8 * rng(f"{place}.delta", *w.shape), 0).astype(np.float32)
        replace(target, w + delta)
        box.add(place, "sp", **sparse_rows(delta))


def _spt(model, box, rng):
    """Single entries where few are sensitive, a low-rank change where many are."""
    for place in places(model, "q", "k", "o"):
        target = module(model, place)
        w = weight(target)
        delta = _masked(rng, place, w.shape, 0.03, 0.6)
        replace(target, w + delta)
        box.add(place, "sp", **sparse_rows(delta))
    for place in places(model, "v", "down"):
        target = module(model, place)
        w = weight(target)
        a, b = rng(f"{place}.a", 3, w.shape[1]) / np.sqrt(w.shape[1]), 0.3 * rng(f"{place}.b", len(w), 3)
        replace(target, w + b @ a)
        box.add(place, "lr", a=a, b=b)


CASES = [
    case("qwen2", "diff_pruning", "diff_pruning", _diff_pruning),
    case("llama", "diff_pruning_structured", "diff_pruning", _structured),
    case("llama", "sam", "sam", _sam),
    case("qwen3", "spt", "spt", _spt),
]


def build(out):
    build_all(out, CASES)
