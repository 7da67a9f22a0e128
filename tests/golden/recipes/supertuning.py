"""Super-tuning: a sparse change at the largest entries, with and without a low-rank pair (zoo 5.3)."""
from peft import SupertuningConfig

from adapter_goldens import Case, build_all, fan_in

CASES = [
    Case("mistral", "supertuning", SupertuningConfig(
        task_type="CAUSAL_LM", sparsity=0.95, target_modules=["q_proj", "up_proj", "down_proj"]),
         [("supertuning_values", 0.5)]),
    Case("llama", "supertuning_low_rank", SupertuningConfig(
        task_type="CAUSAL_LM", sparsity=0.98, r=3, lora_alpha=6, select_top=False,
        target_modules=["v_proj", "o_proj"]),
         [("supertuning_values", 0.5), ("lora_A", fan_in), ("lora_B", 0.12)]),
]


def build(out):
    build_all(out, CASES)
