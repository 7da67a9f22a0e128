"""MiSS: one small block repeated over the inputs, or per tile of the weight (zoo 5.3)."""
from peft import MissConfig

from adapter_goldens import Case, build_all

_RULES = [("miss_block", 0.06)]
_TARGETS = ["q_proj", "v_proj", "down_proj"]

CASES = [
    Case("llama", "miss", MissConfig(task_type="CAUSAL_LM", r=8, target_modules=_TARGETS), _RULES),
    Case("mistral", "miss_ragged", MissConfig(task_type="CAUSAL_LM", r=7, target_modules=_TARGETS), _RULES),
    Case("qwen3", "miss_mini", MissConfig(task_type="CAUSAL_LM", r=8, mini_r=4, init_weights="mini",
                                          target_modules=_TARGETS), _RULES),
    Case("llama", "miss_bat", MissConfig(task_type="CAUSAL_LM", r=8, init_weights="bat", target_modules=_TARGETS),
         _RULES),
]


def build(out):
    build_all(out, CASES)
