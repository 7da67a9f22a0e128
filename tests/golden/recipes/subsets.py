"""Last-layer tuning, row-subset tuning and BitFit with created biases: values that replace the base's own."""
import numpy as np

from container_goldens import bias, build_all, case, module, places, replace, replace_norm, weight


def _last_layer(model, box, rng):
    last = model.config.num_hidden_layers - 1
    for site in ["v", "o", "gate"]:
        place = f"L{last}.{site}"
        target = module(model, place)
        w = (weight(target) + 0.06 * rng(place, *weight(target).shape)).astype(np.float32)
        replace(target, w)
        box.add(place, "dd", replace=w)
    norm = module(model, "normf")
    changed = norm.weight.detach().numpy() * (1 + 0.2 * rng("normf", *norm.weight.shape))
    replace_norm(norm, changed)
    box.add("normf", "nw", w=changed)


def _rows(model, box, rng):
    for place in places(model, "q", "v", "gate", "down"):
        target = module(model, place)
        w = weight(target)
        rows = np.sort(np.argsort(rng(f"{place}.rows", len(w)))[:len(w) // 8]).astype(np.int32)
        values = (0.3 * rng(f"{place}.values", len(rows), w.shape[1])).astype(np.float32)
        changed = w.copy()
        changed[rows] += values
        replace(target, changed)
        box.add(place, "rb", rows=rows, val=values)


def _biases(model, box, rng):
    for place in places(model, "q", "v", "o", "up", "down"):
        target = module(model, place)
        new = bias(target) + 0.3 * rng(place, len(weight(target)))
        replace(target, None, new)
        box.add(place, "bi", b=new)


CASES = [
    case("llama", "last_layer", "last_layer", _last_layer),
    case("qwen3", "row_subset", "row_subset", _rows),
    case("mistral", "bitfit_created", "bitfit", _biases),
]


def build(out):
    build_all(out, CASES)
