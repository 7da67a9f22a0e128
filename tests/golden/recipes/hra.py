"""HRA: a chain of Householder reflections of the inputs (zoo 5.4)."""
from peft import HRAConfig

from adapter_goldens import Case, build_all

_RULES = [("hra_u", 1.0)]

CASES = [
    Case("llama", "hra", HRAConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"]), _RULES),
    Case("qwen2", "hra_orthogonal", HRAConfig(task_type="CAUSAL_LM", r=3, apply_GS=True,
                                              target_modules=["q_proj", "o_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
