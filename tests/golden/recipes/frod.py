"""FROD: a shared basis of the base weights, a diagonal and a sparse rotation (zoo 3 and 10)."""
from peft import FrodConfig

from adapter_goldens import Case, build_all

CASES = [
    Case("qwen3", "frod", FrodConfig(task_type="CAUSAL_LM", sparse_rate=0.02, progressbar=False,
                                     target_modules=["v_proj", "o_proj"]),
         [("frod_lambda_l", (1.0, 0.2)), ("frod_lambda_s", 0.1)]),
]


def build(out):
    build_all(out, CASES)
