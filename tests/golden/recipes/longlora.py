"""LoRAs that were trained over another rotary scaling than their base's (LongLoRA), with norms of their own.

The scaling is the configuration's of the fine-tuned model: its config.json lies beside the adapter's files.
The golden is PEFT's over the base with that configuration.
"""
import copy

import golden_lib
from adapter_goldens import Case, build_all, fan_in
from golden_lib import weights_io

_RULES = [(r"lora_A", fan_in), (r"lora_B", 0.12), (r"norm.*modules_to_save", (1.0, 0.2))]
_LINEAR = {"rope_scaling": {"type": "linear", "factor": 4.0}}
_YARN = {"rope_theta": None, "rope_scaling": None, "max_position_embeddings": 256,
         "rope_parameters": {"rope_type": "yarn", "rope_theta": 20000.0, "factor": 2.0,
                             "original_max_position_embeddings": 128}}


def _case(name, changes, lengths, **options):
    from peft import LoraConfig
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    def config():
        members = weights_io.read_json(f"{golden_lib.HERE}/models/llama/config.json") | copy.deepcopy(changes)
        return {k: v for k, v in members.items() if k not in ("torch_dtype", "dtype")}

    def scale(base):
        members = config()
        kind = members.pop("model_type")
        base.config.max_position_embeddings = members["max_position_embeddings"]
        base.config.rope_parameters = AutoConfig.for_model(kind, **members).rope_parameters
        base.model.rotary_emb = LlamaRotaryEmbedding(base.config)

    def finish(path):
        weights_io.write_json(f"{path}/config.json", config())

    peft_config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8,
                             target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], **options)
    return Case("llama", name, peft_config, _RULES, lengths=lengths, base=scale, finish=finish)


def build(out):
    build_all(out, [
        _case("longlora", _LINEAR, (1, 33, 400),
              modules_to_save=["input_layernorm", "post_attention_layernorm", "norm"]),
        _case("longlora_yarn", _YARN, (1, 7, 180), layers_to_transform=[1]),
    ])
