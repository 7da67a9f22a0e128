"""DeLoRA: normalised rank-one terms with one trained strength (zoo 5.1)."""
from peft import DeloraConfig

from adapter_goldens import Case, build_all, fan_in

_RULES = [("delora_A", fan_in), ("delora_B", 0.3), ("delora_lambda", (14.0, 2.0)), ("w_norm", (1.0, 0.2))]

CASES = [
    Case("llama", "delora", DeloraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"]),
         _RULES),
    Case("qwen2", "delora_patterns", DeloraConfig(task_type="CAUSAL_LM", r=4, delora_lambda=9,
                                                  rank_pattern={"o_proj": 2}, lambda_pattern={"q_proj": 5},
                                                  target_modules=["q_proj", "o_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
