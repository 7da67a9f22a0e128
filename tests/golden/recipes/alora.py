"""Activated LoRA: the adapter acts from the last invocation in the prompt on; before it rows are the base's (zoo 5.7)."""
import numpy as np
from peft import LoraConfig

from adapter_goldens import Case, build_all, fan_in

_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _config(invocation, **options):
    return LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, r=4, lora_alpha=8, alora_invocation_tokens=invocation,
                      **options)


_RULES = [("lora_A", fan_in), ("lora_B", 0.35 / (2 * np.sqrt(4)))]


def _invoke(invocation, places):
    """Puts the invocation at these places of long prompts; of a prompt that has no room for it, nowhere."""
    def edit(ids):
        for place in places:
            begin = place if place >= 0 else ids.shape[1] + place
            if begin >= 0 and begin + len(invocation) <= ids.shape[1]:
                ids[:, begin:begin + len(invocation)] = invocation
    return edit


CASES = [
    Case("llama", "alora_last_of_two", _config([60, 61, 62], target_modules=["q_proj", "k_proj", "v_proj"]), _RULES,
         edit_prompts=_invoke([60, 61, 62], [1, 20])),
    Case("qwen3", "alora_at_the_end", _config([70], target_modules=_ALL), _RULES, lengths=(2, 7, 33),
         edit_prompts=_invoke([70], [-1])),
]


def build(out):
    build_all(out, CASES)
