"""DEFT and PaRa: remove a subspace of the outputs, put something else there (zoo 3)."""
from peft import DeftConfig

from adapter_goldens import Case, build_all

_RULES = [("deft_P", 0.12), ("deft_R", 0.12)]


def _config(**options):
    return DeftConfig(task_type="CAUSAL_LM", r=4, **options)


CASES = [
    Case("llama", "deft_relu", _config(alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]), _RULES),
    Case("qwen2", "deft_qr", _config(decomposition_method="qr", target_modules=["q_proj", "up_proj"]), _RULES),
    Case("qwen3", "deft_para", _config(para=True, decomposition_method="qr", target_modules=["k_proj", "o_proj"]), _RULES),
    Case("gpt2", "deft_relu", _config(fan_in_fan_out=True, target_modules=["c_attn"]), _RULES),
]


def build(out):
    build_all(out, CASES)
