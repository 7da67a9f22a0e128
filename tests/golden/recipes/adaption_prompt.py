"""LLaMA-Adapter: the last layers attend to learned vectors in a softmax of their own, times a gate (zoo 5.7)."""
from peft import AdaptionPromptConfig

from adapter_goldens import Case, build_all

_RULES = [("adaption_prompt", 0.8), ("adaption_gate", (0.9, 0.1))]


def _config(length, layers):
    return AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=length, adapter_layers=layers)


CASES = [
    Case("llama", "adaption_prompt", _config(5, 1), _RULES),
    Case("llama", "adaption_prompt_all_layers", _config(10, 2), _RULES),
    Case("gpt2", "adaption_prompt", _config(4, 2), _RULES),
]


def build(out):
    build_all(out, CASES)
