"""PEANuT: the change is a small network of the weight itself (zoo 3)."""
from peft import PeanutConfig

from adapter_goldens import Case, build_all

_RULES = [("peanut_A", 0.15), ("peanut_B", 0.1), ("encoders", 0.5), ("decoders", 0.5)]


def _config(**options):
    return PeanutConfig(task_type="CAUSAL_LM", r=4, **options)


CASES = [
    Case("llama", "peanut", _config(target_modules=["q_proj", "v_proj"]), _RULES),
    Case("mistral", "peanut_deep", _config(depth=2, act_fn="silu", scaling=0.7, target_modules=["k_proj", "down_proj"]),
         _RULES),
    Case("qwen2", "peanut_gelu", _config(depth=1, act_fn="gelu", target_modules=["q_proj", "o_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
