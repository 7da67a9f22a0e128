"""SHiRA: a sparse change at random entries (zoo 5.3)."""
from peft import ShiraConfig

from adapter_goldens import Case, build_all


def _config(r, modules):
    return ShiraConfig(task_type="CAUSAL_LM", r=r, random_seed=11, target_modules=modules)


CASES = [
    Case("llama", "shira", _config(2, ["q_proj", "v_proj", "down_proj"]), [("shira_weight", 0.5)]),
    Case("qwen3", "shira_dense", _config(3, ["k_proj", "o_proj", "gate_proj", "up_proj"]),
         [("shira_weight", 0.25)]),
    Case("qwen2", "shira_one", _config(1, ["o_proj"]), [("shira_weight", 1.0)], stored_type="BF16"),
]


def build(out):
    build_all(out, CASES)
