"""QA-LoRA in PEFT's pooled form: one column of A for a group of inputs (zoo 5.1, 10). PEFT runs it on GPTQ layers
alone; here its own variant is put on plain layers, so that the file and the forward pass are PEFT's."""
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora.variants import QALoraLinearVariant
from safetensors.torch import load_file

from adapter_goldens import Case, build_all, fan_in


def _config():
    return LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=2, use_qalora=True, qalora_group_size=8,
                      target_modules=["q_proj", "down_proj"])


def _pool(peft_model):
    for module in peft_model.modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            variant = QALoraLinearVariant()
            variant.init(module, "default", config=peft_model.peft_config["default"])
            module.lora_variant["default"] = variant


def _load(base, path):
    model = get_peft_model(base, _config())
    _pool(model)
    set_peft_model_state_dict(model, load_file(f"{path}/adapter_model.safetensors"))
    return model.eval()


CASES = [
    Case("llama", "qalora", _config(), [("lora_A", fan_in), ("lora_B", 0.2)], prepare=_pool, load=_load),
]


def build(out):
    build_all(out, CASES)
