"""OSF: the lower singular triples of the base weight replaced (zoo 3)."""
import torch
from peft import OSFConfig

from adapter_goldens import Case, build_all, values


@values
def _orthonormal_columns(rng, shape):
    return torch.linalg.qr(torch.from_numpy(rng.standard_normal(shape)))[0].numpy()


@values
def _orthonormal_rows(rng, shape):
    return torch.linalg.qr(torch.from_numpy(rng.standard_normal(shape[::-1])))[0].numpy().T


_RULES = [("U_low", _orthonormal_columns), ("V_low", _orthonormal_rows), ("S_low", (1.0, 0.4))]
CASES = [
    Case("llama", "osf", OSFConfig(task_type="CAUSAL_LM", effective_rank=52,
                                   target_modules=["q_proj", "down_proj"]), _RULES),
    Case("mistral", "osf", OSFConfig(task_type="CAUSAL_LM", effective_rank=40, target_modules=["o_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
