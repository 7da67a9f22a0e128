"""BEFT: a bias added to chosen projections, also where the base has none (zoo 3)."""
from peft import BeftConfig

from adapter_goldens import Case, build_all

_RULES = [("beft_bias", 0.5)]
CASES = [
    Case("qwen2", "beft", BeftConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]), _RULES),
    Case("llama", "beft_created", BeftConfig(task_type="CAUSAL_LM", target_modules=["v_proj", "down_proj"]),
         _RULES),
]


def build(out):
    build_all(out, CASES)
