"""LoRA and DoRA over a quantised base of each kind: what QLoRA's, GPTQ's and the others' adapters are served on. The
base is the dequantised weights (quantized_models.py), as a lowering must see them."""
from peft import LoraConfig, PeftModel, get_peft_model

import quantized_models
from adapter_goldens import Case, fan_in, fresh_directory, randomise, record, save_peft, wanted

_BASES = ("llama_nf4_double", "llama_gptq_act_order", "llama_awq", "llama_ct_int4", "llama_polyad4", "llama_gguf_k")
_TARGETS = ["q_proj", "v_proj", "down_proj"]
_RULES = [("lora_A", fan_in), ("lora_B", 0.15), ("lora_magnitude_vector", (1.3, 0.3))]


def _cases():
    for model in _BASES:
        for dora in (False, True):
            config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=_TARGETS, use_dora=dora)
            yield Case(model, "dora" if dora else "lora", config, _RULES, lengths=(1, 2, 7))


def build(out):
    for case in _cases():
        if not wanted(case):
            continue
        path = fresh_directory(out, case)
        fresh = get_peft_model(quantized_models.load(out, case.model), case.config)
        randomise(fresh, case.key, case.rules)
        save_peft(fresh, path, case)
        adapted = PeftModel.from_pretrained(quantized_models.load(out, case.model), path).eval()
        record(path, quantized_models.load(out, case.model), adapted, case)
