"""RandLoRA: full-rank changes as diagonal mixes of random bases (zoo 5.1, 10)."""
from peft import RandLoraConfig

from adapter_goldens import Case, build_all

_RULES = [("randlora_A", 0.2), ("randlora_B", 0.2), ("randlora_lambda", 0.35), ("randlora_gamma", 0.5)]

CASES = [
    Case("llama", "randlora", RandLoraConfig(task_type="CAUSAL_LM", r=16, randlora_alpha=32, target_modules=["q_proj"]),
         _RULES),
    Case("qwen2", "randlora_uneven", RandLoraConfig(task_type="CAUSAL_LM", r=12, randlora_alpha=24,
                                                    target_modules=["v_proj", "down_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
