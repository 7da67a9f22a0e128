"""Uni-LoRA: both factors picked from one trained vector (zoo 5.1), indices saved."""
from peft import UniLoraConfig

from adapter_goldens import Case, build_all

CASES = [
    Case("mistral", "unilora", UniLoraConfig(task_type="CAUSAL_LM", r=4, theta_d_length=128, save_indices=True,
                                             target_modules=["q_proj", "v_proj", "down_proj"]),
         [("unilora_theta_d", 2.0)]),
]


def build(out):
    build_all(out, CASES)
