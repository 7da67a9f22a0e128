"""TinyLoRA: a handful of trained numbers mixing fixed projections (zoo 5.1)."""
from peft import TinyLoraConfig

from adapter_goldens import Case, build_all, fan_in

_RULES = [("tinylora_A", fan_in), ("tinylora_B", 0.5), ("tinylora_P", 0.4), ("tinylora_v", 0.8)]


def _config(**options):
    return TinyLoraConfig(task_type="CAUSAL_LM", r=3, u=5, **options)


CASES = [
    Case("llama", "tinylora", _config(target_modules=["q_proj", "v_proj", "down_proj"]), _RULES),
    Case("qwen3", "tinylora_tied", _config(weight_tying=0.5, target_modules=["q_proj", "k_proj", "o_proj", "up_proj"]),
         _RULES),
    Case("gpt2", "tinylora_one", _config(weight_tying=1.0, target_modules=["c_attn", "c_fc"]), _RULES),
]


def build(out):
    build_all(out, CASES)
