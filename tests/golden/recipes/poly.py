"""Poly: each task mixes a shelf of small adapters; a slot is (file, task) (zoo 5.6)."""
import torch
from peft import PolyConfig

from adapter_goldens import Case, build_all

_RULES = [("poly_lora_A", 0.2), ("poly_lora_B", 1.2), ("module_logits", 1.5)]


def _of_task(index):
    def wrap(model):
        return lambda input_ids, **rest: model(input_ids=input_ids, **rest,
                                               task_ids=torch.full((input_ids.shape[0],), index))
    return {"wrap": wrap, "extra": {"options": {"task": index}}}


def _config(**options):
    return PolyConfig(task_type="CAUSAL_LM", r=3, n_tasks=3, n_skills=2, **options)


CASES = [
    Case("llama", "poly_task0", _config(target_modules=["q_proj", "v_proj"]), _RULES, **_of_task(0)),
    Case("llama", "poly_task2", _config(target_modules=["q_proj", "down_proj"], n_splits=2), _RULES, **_of_task(2)),
]


def build(out):
    build_all(out, CASES)
