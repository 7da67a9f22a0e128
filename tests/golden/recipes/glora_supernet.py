"""GLoRA's supernet files (Chavan et al. 2023) with a searched path for each layer, on GPT-2 (zoo 5.2)."""
import numpy as np

from container_goldens import bias, build_all, case, module, replace, take, weight
import glora_supernet  # tools/export, which container_goldens puts on the path
from golden_lib import HERE, weights_io

_RANK = 3
_NAMES = {"qkv": "attn.qkv", "o": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_PATHS = (  # A, B, C, D, E
    ("LoRA_3", "vector", "LoRA_2", "vector", "constant"), ("vector", "LoRA_2", "vector", "none", "vector"),
    ("constant", "LoRA_3", "none", "constant", "none"), ("none", "constant", "LoRA_3", "vector", "vector"))


def _path(part, name, choice, shape):
    """What the chosen path is, as the repository expands it."""
    down, up = part[f"{name}d"], part[f"{name}u"]
    if choice.startswith("LoRA"):
        rank = int(choice[-1])
        return down[:, :rank] @ up[:rank]
    return {"vector": down[:, :1], "constant": down[0, 0], "none": 0.0}[choice] * np.ones(shape)


def _glora(model, box, rng):
    tensors, chosen = {}, {}
    for layer in range(model.config.n_layer):
        for i, (site, name) in enumerate(_NAMES.items()):
            target = module(model, f"L{layer}.{site}")
            w, b = weight(target), bias(target)
            out, inner = w.shape
            x = lambda leaf, *shape: rng(f"{layer}.{site}.{leaf}", *shape)
            part = {"Ad": 0.3 * x("Ad", out, _RANK), "Au": 0.3 * x("Au", _RANK, inner), "Bd": 0.03 * x("Bd", out, _RANK),
                    "Bu": 0.5 * x("Bu", _RANK, inner), "Cd": 0.3 * x("Cd", inner, _RANK), "Cu": 0.5 * x("Cu", _RANK, 1),
                    "D": 0.5 * x("D", out), "E": 0.2 * x("E", out)}
            path = dict(zip("ABCDE", _PATHS[(i + layer) % len(_PATHS)]))
            tensors |= {f"blocks.{layer}.{name}.{leaf}": value for leaf, value in part.items()}
            chosen[f"blocks.{layer}.{name}"] = path
            a, change = (_path(part, which, path[which], w.shape) for which in "AB")
            c = _path(part, "C", path["C"], (inner, 1))
            d, e = ({"none": 0.0, "vector": part[which], "constant": part[which][0]}[path[which]] for which in "DE")
            replace(target, w + w * a + change, b + b * d + e + (w @ c)[:, 0])
    base = weights_io.read_f32(f"{HERE}/models/gpt2/model.safetensors")
    take(box, glora_supernet.convert(tensors, chosen, base, box.base_name))


CASES = [case("gpt2", "glora_supernet", "glora", _glora, lengths=(1, 7, 20))]


def build(out):
    build_all(out, CASES)
