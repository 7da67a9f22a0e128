"""Soft prompts and prefixes: what PEFT puts in front of the text, as embeddings or as keys and values (zoo 5.7)."""
import numpy as np
import torch
from peft import (CartridgeConfig, CPTConfig, MultitaskPromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig,
                  PromptTuningConfig)

from adapter_goldens import Case, build_all, edit_config

_EMBEDDINGS = [("word_embeddings", None), ("embedding", 0.5)]
_PREFIX = [("prompt_encoder", 1.0)]


def _prompt(num_tokens, **options):
    return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=num_tokens, **options)


def _encoder(num_tokens, kind, **options):
    return PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=num_tokens, encoder_hidden_size=32,
                               encoder_reparameterization_type=kind, **options)


# The encoder's own weights are random too, of a size that gives prompts the size of tokens.
_ENCODER = [(r"mlp_head\.0|lstm", 0.4), (r"mlp_head\.\d+\.weight", lambda shape: 2.5 / np.sqrt(shape[-1])),
            ("mlp_head", 0.2), ("embedding", 0.7)]


def _cpt(num_tokens):
    return CPTConfig(task_type="CAUSAL_LM", num_virtual_tokens=num_tokens, cpt_token_ids=list(range(40, 40 + num_tokens)),
                     cpt_mask=[1] * num_tokens, cpt_tokens_type_mask=[1 + i % 4 for i in range(num_tokens)],
                     opt_projection_epsilon=20.0, opt_projection_format_epsilon=15.0)


def _transferred():
    """SPoT: the prompt starts as one trained on a source task and moves from there."""
    def prepare(model):
        source = torch.from_numpy(np.random.default_rng(7).standard_normal((8, 64))).float()
        with torch.no_grad():
            model.prompt_encoder["default"].embedding.weight.copy_(0.5 * source)

    def finish(path):
        edit_config(path, prompt_tuning_init="RANDOM")
    return {"prepare": prepare, "finish": finish, "rules": [("word_embeddings", None), ("embedding", None)]}


def _prefix(num_tokens, **options):
    return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=num_tokens, **options)


def _task(index):
    def wrap(model):
        return lambda input_ids, attention_mask, use_cache: model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache,
            task_ids=torch.full((input_ids.shape[0],), index))
    return {"wrap": wrap, "extra": {"options": {"task": index}}}


def _multitask(num_tokens):
    return MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=num_tokens, num_tasks=3, num_ranks=2)


_MULTITASK = [("prefix_task", 0.9)] + _EMBEDDINGS

CASES = [
    Case("llama", "prompt_tuning", _prompt(5), _EMBEDDINGS),
    Case("gpt2", "prompt_tuning_long", _prompt(20), _EMBEDDINGS),
    Case("mistral", "prompt_tuning_slides_out", _prompt(11), _EMBEDDINGS),
    Case("qwen3", "prompt_tuning_bf16", _prompt(16), _EMBEDDINGS, "BF16"),
    Case("llama", "p_tuning_lstm", _encoder(17, "LSTM"), _ENCODER),
    Case("qwen2", "p_tuning_mlp", _encoder(4, "MLP"), _ENCODER),
    Case("gpt2", "p_tuning_mlp", _encoder(3, "MLP"), _ENCODER),
    Case("llama", "spot", _prompt(8), **_transferred()),
    Case("qwen3", "cpt", _cpt(6), [("delta_embedding", 1.0), ("word_embeddings", None), ("embedding", None)]),
    Case("llama", "prefix_tuning", _prefix(6), _PREFIX),
    Case("llama", "prefix_tuning_projected", _prefix(20, prefix_projection=True, encoder_hidden_size=24),
         [(r"transform\.\d+\.weight", lambda shape: 1.2 / np.sqrt(shape[-1])), ("transform", 0.3), ("embedding", 1.0)]),
    Case("qwen2", "prefix_tuning", _prefix(10), _PREFIX),
    Case("qwen3", "prefix_tuning", _prefix(16), _PREFIX),
    Case("mistral", "prefix_tuning_slides_out", _prefix(11), _PREFIX),
    Case("gpt2", "prefix_tuning", _prefix(7), _PREFIX),
    Case("llama", "cartridge", CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=18), _PREFIX),
    Case("mistral", "cartridge", CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, num_frozen_tokens=0),
         _PREFIX),
    Case("qwen2", "cartridge", CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=16), _PREFIX),
    Case("llama", "multitask_task0", _multitask(6), _MULTITASK, **_task(0)),
    Case("llama", "multitask_task2", _multitask(6), _MULTITASK, **_task(2)),
]


def build(out):
    build_all(out, CASES)
