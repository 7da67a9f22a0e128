"""AdaLoRA: singular values between the factors; pruned directions are filtered out on saving (zoo 5.1, 10)."""
from peft import AdaLoraConfig

from adapter_goldens import Case, build_all, fan_in


def _config(**options):
    return AdaLoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, total_step=10, **options)


_RULES = [("lora_A", fan_in), ("lora_B", 0.3), ("lora_E", (0.0, 1.0)), ("ranknum", None)]


def _prune(model):
    """Keeps 0, 1, 2, .. directions of one module after another, as the rank allocator would."""
    pattern, kept = {}, 0
    for name, tensor in model.base_model.model.named_parameters():
        if "lora_E" not in name:
            continue
        pattern[name] = [i < kept for i in range(tensor.shape[0])]
        kept = (kept + 1) % (tensor.shape[0] + 1)
    model.peft_config["default"].rank_pattern = pattern


CASES = [
    Case("llama", "adalora_full", _config(init_r=4, target_r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"]),
         _RULES),
    Case("qwen3", "adalora_pruned", _config(init_r=6, target_r=3, lora_alpha=8,
                                            target_modules=["q_proj", "k_proj", "down_proj"]), _RULES, prepare=_prune),
]


def build(out):
    build_all(out, CASES)
