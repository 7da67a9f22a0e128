"""BitFit: only biases trained, as PEFT saves them: a LoRA file with bias="all" and no low-rank pair."""
from peft import LoraConfig

from adapter_goldens import Case, build_all
from golden_lib import weights_io


def _only_biases(path):
    file = f"{path}/adapter_model.safetensors"
    tensors = {k: v for k, v in weights_io.read_safetensors(file).items() if "lora_" not in k}
    weights_io.write_safetensors(file, tensors, {"format": "pt"})


def _case(model, name, modules, **options):
    config = LoraConfig(task_type="CAUSAL_LM", r=1, bias="all", target_modules=modules, **options)
    return Case(model, name, config, [("lora_", 0.0), ("bias", 0.4)], finish=_only_biases)


CASES = [
    _case("qwen2", "bitfit", ["q_proj", "k_proj", "v_proj"]),
    _case("gpt2", "bitfit", ["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
]


def build(out):
    build_all(out, CASES)
