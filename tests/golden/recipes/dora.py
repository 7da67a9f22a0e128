"""DoRA as PEFT has it: LoRA with a trained magnitude for every output row (zoo 5.1)."""
import numpy as np
from peft import LoraConfig

from adapter_goldens import Case, build_all, drop_tensors, fan_in

_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _b(rank, scale):
    return 0.35 / (scale * np.sqrt(rank))


def _config(**options):
    return LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, use_dora=True, **options)


def _rules(rank, scale):
    return [("lora_embedding_A", 1.0), ("lora_embedding_B", 0.15 / (scale * np.sqrt(rank))),
            ("lora_A", fan_in), ("lora_B", _b(rank, scale)), ("lora_magnitude_vector", (1.3, 0.3)),
            (r"\.bias", 0.3)]


CASES = [
    Case("llama", "dora_all", _config(r=8, lora_alpha=12, target_modules=_ALL), _rules(8, 1.5)),
    Case("qwen2", "dora_rslora", _config(r=3, lora_alpha=4, use_rslora=True,
                                         target_modules=["q_proj", "v_proj", "down_proj"]), _rules(3, 2.3)),
    Case("gpt2", "dora_all", _config(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"],
                                     bias="lora_only", fan_in_fan_out=True), _rules(4, 2)),
    Case("llama", "dora_embedding_head", _config(r=4, lora_alpha=8, target_modules=["embed_tokens", "lm_head"]),
         _rules(4, 2), finish=drop_tensors("base_layer")),
]


def build(out):
    build_all(out, CASES)
