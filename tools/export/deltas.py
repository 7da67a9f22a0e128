"""The cheapest op of the container for a dense change of a weight: low rank, sparse or dense."""
import numpy as np

from container import sparse_rows

_RANK_TOLERANCE = 1e-6  # of the largest singular value: what float32 leaves of an exact zero


def low_rank(delta):
    """(a [r, in], b [out, r]) with b a = delta up to float32 rounding."""
    u, s, v = np.linalg.svd(np.asarray(delta, dtype=np.float64), full_matrices=False)
    rank = int((s > _RANK_TOLERANCE * s[0]).sum()) if s.size and s[0] > 0 else 0
    return v[:rank], u[:, :rank] * s[:rank]


def cheapest(delta):
    """-> (op, tensors) whose numbers are fewest; None where the change is zero."""
    delta = np.asarray(delta, dtype=np.float32)
    entries = int(np.count_nonzero(delta))
    if entries == 0:
        return None
    a, b = low_rank(delta)
    sizes = {"dd": delta.size, "sp": 2 * entries, "lr": a.size + b.size}
    op = min(sizes, key=sizes.get)
    return op, {"dd": lambda: {"delta": delta}, "sp": lambda: sparse_rows(delta),
                "lr": lambda: {"a": a, "b": b}}[op]()
