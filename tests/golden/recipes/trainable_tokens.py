"""Trainable tokens: rows that replace the embedding's, and a tied head's (zoo 4.1, 10)."""
from peft import TrainableTokensConfig

from adapter_goldens import Case, build_all
from recipes.lora_forms import with_trained_tokens

_TRAINED = [5, 17, 40, 41, 99]
_RULES = [("trainable_tokens_delta", 0.6)]


def _config(module):
    return TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=_TRAINED, target_modules=[module])


CASES = [
    Case("llama", "trainable_tokens", _config("embed_tokens"), _RULES, edit_prompts=with_trained_tokens),
    Case("qwen2", "trainable_tokens_tied", _config("embed_tokens"), _RULES, edit_prompts=with_trained_tokens),
    Case("gpt2", "trainable_tokens_tied", _config("wte"), _RULES, edit_prompts=with_trained_tokens),
]


def build(out):
    build_all(out, CASES)
