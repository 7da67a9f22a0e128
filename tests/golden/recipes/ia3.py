"""(IA)3: trained scales of keys, values (outputs) and feed-forward inputs (zoo 5.2)."""
from peft import IA3Config

from adapter_goldens import Case, build_all

_RULES = [("ia3_l", (1.0, 0.5))]


def _config(**options):
    return IA3Config(task_type="CAUSAL_LM", **options)


CASES = [
    Case("llama", "ia3_default", _config(), _RULES),
    # Every linear site, and inputs of gate and up that differ though they share a product.
    Case("mistral", "ia3_all", _config(
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        feedforward_modules=["gate_proj", "up_proj", "down_proj"]), [("ia3_l", (1.0, 0.3))]),
    Case("qwen2", "ia3_biased", _config(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                                        feedforward_modules=["o_proj"]), _RULES),
    Case("qwen3", "ia3_bf16", _config(target_modules=["k_proj", "v_proj", "down_proj"],
                                      feedforward_modules=["down_proj"]), _RULES, stored_type="BF16"),
    Case("gpt2", "ia3_default", _config(fan_in_fan_out=True), _RULES),
]


def build(out):
    build_all(out, CASES)
