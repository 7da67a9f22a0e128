"""HiRA: the base weight times a low-rank product, entry by entry (zoo 5.3)."""
import numpy as np
from peft import HiraConfig

from adapter_goldens import Case, build_all


def _config(**options):
    return HiraConfig(task_type="CAUSAL_LM", hira_dropout=0.0, **options)


def _rules(rank):
    return [("hira_A", 1.0), ("hira_B", 0.5 / np.sqrt(rank))]


CASES = [
    Case("llama", "hira", _config(r=2, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"]), _rules(2)),
    Case("gpt2", "hira", _config(r=4, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True), _rules(4)),
    Case("qwen2", "hira_one", _config(r=1, target_modules=["k_proj", "up_proj"]), _rules(1)),
]


def build(out):
    build_all(out, CASES)
