"""The container's remaining ops by their definitions (zoo 1.1): rotations, pairs of outputs, signs, vectors in low rank."""
import numpy as np
import torch

from container_goldens import bias, build_all, case, module, places, replace, replace_norm, weight
from container import sign_bits  # tools/export, which container_goldens puts on the path


def _rotation(rng, name, count, size):
    q = np.tril(0.3 * rng(name, count, size, size), -1)
    q = q - q.transpose(0, 2, 1)
    return np.stack([np.linalg.solve(np.eye(size) + one, np.eye(size) - one) for one in q])


def _rotations(model, box, rng):
    """Two stages of the input: blocks of 8, then a permutation and blocks of 4; pairs of outputs."""
    for place in places(model, "q", "down"):
        target = module(model, place)
        w = weight(target)
        width = w.shape[1]
        first, second = _rotation(rng, f"{place}.r0", width // 8, 8), _rotation(rng, f"{place}.r1", width // 4, 4)
        order = np.argsort(rng(f"{place}.order", width)).astype(np.int32)
        x = np.eye(width)  # row t is unit input t; x1 = x R stage by stage
        for perm, blocks in ((None, first), (order, second)):
            moved = x if perm is None else x[:, perm]
            size = blocks.shape[1]
            moved = np.einsum("tnb,nbc->tnc", moved.reshape(width, -1, size), blocks).reshape(width, width)
            if perm is None:
                x = moved
            else:
                x = np.empty_like(moved)
                x[:, perm] = moved
        replace(target, w @ x.T)
        box.add(place, "ir", perm=np.arange(width, dtype=np.int32), blocks=first)
        box.add(place, "ir", perm=order, blocks=second)
    for place in places(model, "v"):
        target = module(model, place)
        w, b, group = weight(target), bias(target), 8
        f, g = 1 + 0.3 * rng(f"{place}.f", len(w)), 0.5 * rng(f"{place}.g", len(w))

        def turned(z):
            halves = z.reshape(-1, 2, group // 2, *z.shape[1:])
            rotated = np.stack([-halves[:, 1], halves[:, 0]], axis=1).reshape(z.shape)
            return (f * z.T + g * rotated.T).T
        replace(target, turned(w), turned(b))
        box.add(place, "or", {"group": group}, f=f, g=g)
        box.add(place, "bi", b=turned(b))


def _signs(model, box, rng):
    """One bit an entry: one coefficient, one a row, one a row and group of inputs; low rank with inner vectors."""
    for place in places(model, "q", "v", "down"):
        target = module(model, place)
        w = weight(target)
        signs = rng(f"{place}.signs", *w.shape) >= 0
        kind = place.split(".")[1]
        groups = {"q": None, "v": 1, "down": 3}[kind]
        coef = 0.05 + 0.02 * np.abs(rng(f"{place}.coef", *([] if groups is None else [len(w), groups])))
        spread = coef if groups is None else np.repeat(coef, w.shape[1] // groups, axis=1)
        replace(target, w + spread * np.where(signs, 1.0, -1.0))
        box.add(place, "sg", bits=sign_bits(signs), coef=coef[:, 0] if groups == 1 else coef)
    rank = 6
    down = rng("a", rank, 64) / 8
    box.share("a", down)
    for place in places(model, "k", "gate"):
        target = module(model, place)
        w = weight(target)
        b, d, e = 0.3 * rng(f"{place}.b", len(w), rank), rng(f"{place}.d", rank), 0.6 * rng(f"{place}.e", len(w))
        replace(target, w + e[:, None] * (b @ (d[:, None] * down)))
        box.add(place, "lr", a="a", b=b, d=d, e=e)


def _planes(model, box, rng):
    """BitDelta with two bits, a scale for each row and plane, and changed tokens of a tied table in int8."""
    for place in places(model, "q", "v", "o", "gate", "down"):
        target = module(model, place)
        w = weight(target)
        left = 0.05 * rng(f"{place}.delta", *w.shape)
        for _ in range(2):
            signs = left >= 0
            coef = np.abs(left).mean(axis=1).astype(np.float32)
            plane = coef[:, None].astype(np.float64) * np.where(signs, 1.0, -1.0)
            left = left - plane
            w = w + plane
            box.add(place, "sg", bits=sign_bits(signs), coef=coef)
        replace(target, w)
    replace_norm(module(model, "normf"), 1.2 * module(model, "normf").weight.detach().numpy())
    box.add("normf", "nw", w=module(model, "normf").weight.detach().numpy())
    ids = np.arange(1, model.config.vocab_size, 3, dtype=np.int32)
    delta = 0.3 * rng("tokens", len(ids), model.config.hidden_size)
    scale = (np.abs(delta).max(axis=1) / 127).astype(np.float32)
    codes = np.rint(delta / scale[:, None]).astype(np.int8)
    with torch.no_grad():
        table = module(model, "embed").weight
        table[torch.from_numpy(ids).long()] += torch.from_numpy(codes * scale[:, None].astype(np.float64)).float()
    assert module(model, "head").weight is table
    box.share("tokens", codes)
    box.share("tokens.scale", scale)
    box.share("tokens_rows", ids)
    box.add("embed", "er", ids="tokens_rows", delta="tokens")
    box.add("head", "rb", rows="tokens_rows", val="tokens")


CASES = [
    case("qwen2", "bitdelta_planes", "bitdelta", _planes),
    case("qwen2", "container_rotations", "rotations", _rotations),
    case("llama", "container_signs", "signs", _signs),
]


def build(out):
    build_all(out, CASES)
