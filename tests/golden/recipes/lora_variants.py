"""LoRA's variants that only train otherwise (MiCA, VeLoRA, MonteCLoRA), those that a converted file ends (PiSSA by
iteration, CorDA, LoRA-GA: twice the rank, the key set to true), BD-LoRA and LoRA on parameters of dense models."""
import os
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import BdLoraConfig, CordaConfig, LoraGAConfig, MontecloraConfig, VeloraConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga

import adapter_goldens
from adapter_goldens import build_all, fan_in

_RULES = [("monteclora", None), ("velora", None), ("lora_A", fan_in), ("lora_B", 0.1)]


def _case(*args, **options):
    return adapter_goldens.Case(*args, lengths=(1, 7, 20), **options)


def _config(**options):
    return LoraConfig(task_type="CAUSAL_LM", lora_alpha=8, lora_dropout=0.0, **{"r": 4, **options})


CASES = [
    _case("llama", "mica", _config(init_lora_weights="mica", target_modules=["q_proj", "down_proj"]), _RULES),
    _case("qwen2", "velora", _config(velora_config=VeloraConfig(num_groups=8), target_modules=["q_proj", "v_proj"]),
         _RULES),
    _case("qwen3", "monteclora", _config(monteclora_config=MontecloraConfig(num_samples=2, buffer_size=2),
                                        target_modules=["q_proj", "v_proj"]), _RULES),
    _case("llama", "bdlora", _config(use_bdlora=BdLoraConfig(target_modules_bd_a=["o_proj", "down_proj"],
                                                            target_modules_bd_b=["q_proj", "up_proj"], nblocks=2,
                                                            match_strict=False),
                                    target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]),
         [("lora_A", fan_in), ("lora_B", 0.2)]),
    _case("mistral", "lora_parameters", _config(target_modules=["q_proj"], target_parameters=[
        "mlp.up_proj.weight", "self_attn.o_proj.weight"]), _RULES),
]


def _texts():
    return torch.randint(3, 250, (8, 1, 24), generator=torch.Generator().manual_seed(1))


def _corda(model, config):
    def run():
        for ids in _texts():
            model(input_ids=ids)
    preprocess_corda(model, config, run_model=run)


def _lora_ga(model, config):
    def run():
        for ids in _texts():
            model(input_ids=ids, labels=ids).loss.backward()
    preprocess_loraga(model, config, train_step=run)


_CONVERTED = [
    (_case("llama", "pissa_niter_converted",
          _config(init_lora_weights="pissa_niter_4", target_modules=["q_proj", "o_proj"]), []), None),
    (_case("qwen2", "corda_converted", _config(init_lora_weights="corda", corda_config=CordaConfig(),
                                              target_modules=["q_proj", "v_proj"]), []), _corda),
    (_case("mistral", "lora_ga_converted", _config(init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(),
                                                  target_modules=["q_proj", "v_proj"]), []), _lora_ga),
]


def _build_converted(out, case, preprocess):
    """As PEFT's documentation converts them: the first state saved with its key set to true, then the difference."""
    path, base = adapter_goldens.fresh_directory(out, case), adapter_goldens.load_base(out, case)
    with tempfile.TemporaryDirectory() as work:
        torch.manual_seed(0)
        if preprocess:
            preprocess(base, case.config)
        model = get_peft_model(base, case.config)
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(f"{work}/first")
        adapter_goldens.randomise(model, case.key, [("lora_A", _moved), ("lora_B", _moved)])
        model.save_pretrained(path, path_initial_model_for_weight_conversion=f"{work}/first")
    os.remove(f"{path}/README.md")
    adapter_goldens.store_as(path, case.stored_type)
    adapter_goldens.edit_config(path, base_model_name_or_path=f"tiny-{case.model}")
    adapted = PeftModel.from_pretrained(adapter_goldens.load_base(out, case), path).eval()
    adapter_goldens.record(path, adapter_goldens.load_base(out, case), adapted, case)


def _moved(shape):
    return 0.6 / shape[-1] ** 0.5


def build(out):
    build_all(out, CASES)
    for case, preprocess in _CONVERTED:
        if adapter_goldens.wanted(case):
            _build_converted(out, case, preprocess)
