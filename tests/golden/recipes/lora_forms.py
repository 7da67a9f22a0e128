"""The rest of LoRA (zoo 4.1, 5.1, 10): trained biases, a bias on B, embeddings and heads (tied and not), replaced
modules, trained tokens, chosen layers, activation by a token sequence."""
import numpy as np
from peft import LoraConfig

from adapter_goldens import Case, build_all, drop_tensors, fan_in

_TRAINED = [5, 17, 40, 41, 99]
_INVOCATION = [44, 45]


def _config(**options):
    return LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options)


def _rules(rank, scale):
    return [("lora_embedding_A", 1.0), ("lora_embedding_B", 0.15 / (scale * np.sqrt(rank))),
            ("lora_A", fan_in), (r"lora_B.*bias", 0.2 / scale), ("lora_B", 0.35 / (scale * np.sqrt(rank))),
            ("trainable_tokens_delta", 0.5), (r"norm.*weight", (1.0, 0.3)), (r"\.bias", 0.3),
            (r"embed_tokens.*modules_to_save", 0.4), ("modules_to_save", 0.2)]


def with_trained_tokens(ids):
    """Every other candidate's middle, and its end, is a trained token."""
    trained = np.array(_TRAINED)
    ids[:, ids.shape[1] // 2] = trained[np.arange(len(ids)) % len(trained)]
    ids[:, -1] = trained[(np.arange(len(ids)) // len(trained)) % len(trained)]


def with_invocation(ids):
    """The invocation twice in long prompts (the last counts), once in middling ones, never in a single token."""
    if ids.shape[1] > 20:
        ids[:, 4:6] = _INVOCATION
        ids[:, 19:21] = _INVOCATION
    elif ids.shape[1] > 1:
        ids[:, 2:4] = _INVOCATION


CASES = [
    Case("qwen2", "lora_bias_only", _config(r=4, lora_alpha=6, bias="lora_only", target_modules=["q_proj", "v_proj"]),
         _rules(4, 1.5)),
    Case("gpt2", "lora_bias_all", _config(r=3, lora_alpha=3, bias="all", target_modules=["c_attn"],
                                          fan_in_fan_out=True), _rules(3, 1)),
    Case("llama", "lora_bias_of_b", _config(r=4, lora_alpha=8, lora_bias=True, target_modules=["k_proj", "down_proj"]),
         _rules(4, 2)),
    Case("qwen2", "lora_bias_of_b", _config(r=4, lora_alpha=8, lora_bias=True, target_modules=["q_proj", "o_proj"]),
         _rules(4, 2)),
    Case("gpt2", "lora_bias_of_b", _config(r=2, lora_alpha=2, lora_bias=True, target_modules=["c_attn", "c_fc"],
                                           fan_in_fan_out=True), _rules(2, 1)),
    Case("llama", "lora_embedding_head", _config(r=5, lora_alpha=10, target_modules=["embed_tokens", "lm_head"]),
         _rules(5, 2)),
    Case("qwen2", "lora_embedding_tied", _config(r=4, lora_alpha=8, target_modules=["embed_tokens", "v_proj"]),
         _rules(4, 2)),
    Case("gpt2", "lora_head_tied", _config(r=4, lora_alpha=8, target_modules=["lm_head"]), _rules(4, 2),
         finish=drop_tensors("base_layer")),
    Case("qwen2", "lora_both_tied", _config(r=4, lora_alpha=8, target_modules=["embed_tokens"],
                                            ensure_weight_tying=True), _rules(4, 2),
         finish=drop_tensors("base_layer")),
    Case("mistral", "lora_modules_to_save", _config(r=4, lora_alpha=8, target_modules=["q_proj", "o_proj"],
                                                    modules_to_save=["k_proj", "input_layernorm", "norm"]),
         _rules(4, 2)),
    Case("llama", "lora_saved_head", _config(r=4, lora_alpha=8, target_modules=["v_proj"],
                                             modules_to_save=["lm_head"]), _rules(4, 2)),
    Case("qwen2", "lora_saved_embedding", _config(r=4, lora_alpha=8, target_modules=["v_proj"],
                                                  modules_to_save=["embed_tokens"]), _rules(4, 2)),
    Case("gpt2", "lora_saved_norms", _config(r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True,
                                             modules_to_save=["ln_1", "ln_f", "attn.c_proj"]), _rules(4, 2)),
    Case("llama", "lora_trained_tokens", _config(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"],
                                                 trainable_token_indices=_TRAINED), _rules(4, 2),
         edit_prompts=with_trained_tokens),
    Case("qwen2", "lora_trained_tokens_tied", _config(r=4, lora_alpha=8, target_modules=["q_proj"],
                                                      trainable_token_indices={"embed_tokens": _TRAINED}),
         _rules(4, 2), edit_prompts=with_trained_tokens),
    Case("qwen3", "lora_layers", _config(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"],
                                         layers_to_transform=[1]), _rules(4, 2)),
    Case("llama", "lora_activated", _config(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"],
                                            alora_invocation_tokens=_INVOCATION), _rules(8, 2),
         edit_prompts=with_invocation),
    Case("gpt2", "lora_activated", _config(r=4, lora_alpha=8, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True,
                                           alora_invocation_tokens=_INVOCATION), _rules(4, 2),
         edit_prompts=with_invocation),
]


def build(out):
    build_all(out, CASES)
