"""GLoRA: W' = W + W*A + B and b' = b + b*D + E + W C, each part in one of several forms (zoo 5.2)."""
from peft import GloraConfig

from adapter_goldens import Case, build_all, fan_in


def _config(weight, bias_from_weight, bias, modules, r=2):
    return GloraConfig(task_type="CAUSAL_LM", r=r, config_A_B=weight, config_C=bias_from_weight,
                       config_D_E=bias, target_modules=modules)


_LOW_RANK = [(r"glora_A.*Xd", 0.4), (r"glora_A.*Xu", 0.7), (r"glora_B.*Xd", 0.2), (r"glora_B.*Xu", fan_in),
             (r"glora_C.*Xd", 0.2), (r"glora_C.*Xu", 0.2), (r"glora_[DE].*\.X", 0.4)]
_VECTORS = [("glora_A", 0.4), ("glora_B", 0.08), ("glora_C", 0.1), (r"glora_[DE].*\.X", 0.4)]
CASES = [
    Case("qwen2", "glora_low_rank", _config("lora", "lora", "constant", ["q_proj", "v_proj", "o_proj"]),
         _LOW_RANK),
    Case("qwen2", "glora_vectors", _config("vector", "vector", "vector", ["q_proj", "k_proj", "v_proj"]),
         _VECTORS),
    Case("llama", "glora_constants", _config("constant", "none", "none", ["v_proj", "gate_proj", "down_proj"]),
         [("glora_A", 0.6), ("glora_B", 0.12)]),
    Case("qwen2", "glora_bias", _config("none", "lora", "vector", ["k_proj", "v_proj"]), _LOW_RANK),
]


def build(out):
    build_all(out, CASES)
