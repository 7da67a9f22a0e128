"""LoRA files whose initialisation changed the base while training: PiSSA, OLoRA, KaSA (zoo 5.1, 10). PEFT repeats
the change on loading; the golden is what it then computes."""
import numpy as np
from peft import LoraConfig
from peft.tuners.lora import KasaConfig

from adapter_goldens import Case, build_all, fan_in


def _config(**options):
    return LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options)


_RULES = [("lora_A", fan_in), ("lora_B", 0.1), ("lora_diag", (0.0, 2.0))]

CASES = [
    Case("llama", "pissa", _config(r=4, lora_alpha=4, init_lora_weights="pissa", target_modules=["q_proj", "down_proj"]),
         _RULES),
    Case("gpt2", "pissa", _config(r=3, lora_alpha=6, init_lora_weights="pissa", target_modules=["c_attn"],
                                  fan_in_fan_out=True), _RULES),
    Case("qwen2", "olora", _config(r=4, lora_alpha=4, init_lora_weights="olora", target_modules=["k_proj", "up_proj"]),
         _RULES),
    Case("qwen3", "kasa", _config(r=4, lora_alpha=8, kasa_config=KasaConfig(), target_modules=["q_proj", "v_proj"]),
         _RULES),
]


def build(out):
    build_all(out, CASES)
