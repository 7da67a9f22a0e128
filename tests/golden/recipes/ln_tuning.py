"""LN-tuning: norms replaced whole (zoo 5.2)."""
from peft import LNTuningConfig

from adapter_goldens import Case, build_all


def _config(modules):
    return LNTuningConfig(task_type="CAUSAL_LM", target_modules=modules)


CASES = [
    Case("llama", "ln_tuning", _config(["input_layernorm", "post_attention_layernorm", "norm"]),
         [("weight", (1.0, 0.5))]),
    Case("qwen3", "ln_tuning_heads", _config(["q_norm", "k_norm", "post_attention_layernorm"]),
         [("weight", (1.0, 0.5))]),
    Case("gpt2", "ln_tuning", _config(["ln_1", "ln_2", "ln_f"]), [("weight", (1.0, 0.4)), ("bias", 0.3)]),
]


def build(out):
    build_all(out, CASES)
