"""LoHa: the elementwise product of two low-rank matrices (zoo 5.4)."""
from peft import LoHaConfig

from adapter_goldens import Case, build_all

_RULES = [("hada_w1", 0.25), ("hada_w2", 0.25)]

CASES = [
    Case("llama", "loha", LoHaConfig(task_type="CAUSAL_LM", r=3, alpha=5, target_modules=["q_proj", "v_proj", "up_proj"]),
         _RULES),
    Case("qwen3", "loha_patterns", LoHaConfig(task_type="CAUSAL_LM", r=4, alpha=8, rank_pattern={"down_proj": 2},
                                              alpha_pattern={"layers.1.self_attn.k_proj": 12},
                                              target_modules=["k_proj", "down_proj"]), _RULES),
    Case("mistral", "loha_wide", LoHaConfig(task_type="CAUSAL_LM", r=9, alpha=9, target_modules=["o_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
