"""GraLoRA: a grid of small adapters, with and without a plain pair beside it (zoo 5.1)."""
from peft import GraloraConfig

from adapter_goldens import Case, build_all

_RULES = [("gralora_A", 0.2), ("gralora_B", 0.15)]

CASES = [
    Case("llama", "gralora", GraloraConfig(task_type="CAUSAL_LM", r=8, alpha=8, gralora_k=4,
                                           target_modules=["q_proj", "v_proj"]), _RULES),
    Case("mistral", "gralora_hybrid", GraloraConfig(task_type="CAUSAL_LM", r=6, alpha=8, gralora_k=2, hybrid_r=2,
                                                    target_modules=["k_proj", "down_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
