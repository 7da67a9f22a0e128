"""LILY: shared A and B, the B mixed by a router whose probabilities are meaned over the rows of a call (zoo 7)."""
import torch
from peft import LilyConfig

import golden_lib
from adapter_goldens import Case, build_all, fan_in

_RULES = [("lily_A", fan_in), ("lily_B", 0.25), ("lily_router", 1.0)]


def _config(targets, **options):
    return LilyConfig(task_type="CAUSAL_LM", target_modules=targets, **options)


CASES = [
    Case("llama", "lily", _config(["q_proj", "v_proj", "down_proj"], r=4, stride_A=2, num_B=3, scaling=0.7), _RULES),
    Case("qwen2", "lily_all_linear", _config(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                                             r=3, stride_A=1, num_B=2, scaling=0.5), _RULES),
]


def _one_by_one(model, prompts, num_steps=golden_lib.NUM_GREEDY):
    """A batch would be one segment: its rows share a mean in PEFT."""
    rows = [golden_lib.greedy_with_cache(model, prompt[None], num_steps) for prompt in prompts]
    return tuple(torch.cat(parts) for parts in zip(*rows))


def build(out):
    plain, golden_lib.greedy = golden_lib.greedy, _one_by_one
    try:
        build_all(out, CASES)
    finally:
        golden_lib.greedy = plain
