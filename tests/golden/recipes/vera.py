"""VeRA and PVeRA (its mean path): one pair of projections for all layers, vectors for each (zoo 5.1)."""
from peft import PveraConfig, VeraConfig

from adapter_goldens import Case, build_all

_RULES = [("vera_A", lambda shape: 1 / 8), ("vera_B", 0.5), ("lambda_d", (0.0, 1.0)), ("lambda_b", (0.0, 0.35))]
_TARGETS = ["q_proj", "v_proj", "down_proj"]

CASES = [
    Case("llama", "vera", VeraConfig(task_type="CAUSAL_LM", r=6, target_modules=["q_proj", "v_proj"]), _RULES),
    Case("mistral", "vera_wide", VeraConfig(task_type="CAUSAL_LM", r=12, target_modules=_TARGETS + ["up_proj"]), _RULES),
    Case("gpt2", "vera", VeraConfig(task_type="CAUSAL_LM", r=5, target_modules=["c_attn", "c_fc"],
                                    fan_in_fan_out=True), _RULES),
    Case("qwen2", "pvera", PveraConfig(task_type="CAUSAL_LM", r=8, target_modules=_TARGETS), _RULES),
]


def build(out):
    build_all(out, CASES)
