"""LoRA as GGUF files (adapter.gguf): the pair of a matrix under its GGUF name, and one alpha for all. What the matrix
itself goes through on its way to GGUF happens to the pair: llama's rows of q and k, so those of B, are interleaved. The
golden is PEFT's on the pair as it was before."""
import tempfile

import gguf
import numpy as np
from peft import LoraConfig, PeftModel, get_peft_model

import gguf_names
import golden_lib
from adapter_goldens import Case, fan_in, fresh_directory, randomise, record, save_peft, wanted
from golden_lib import weights_io

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
_CASES = [Case("llama", "gguf_lora", {"r": 4, "lora_alpha": 6, "target_modules": _TARGETS}, []),
          Case("qwen2", "gguf_lora_f16", {"r": 3, "lora_alpha": 6, "target_modules": _TARGETS}, [], stored_type="F16")]


def _write_gguf(path, peft_path, model_config, alpha, as_type):
    arch = model_config["model_type"]
    writer = gguf.GGUFWriter(path, arch=arch)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, x in sorted(weights_io.read_f32(f"{peft_path}/adapter_model.safetensors").items()):
        module, factor, _ = name.removeprefix("base_model.model.").rsplit(".", 2)
        target = gguf_names.to_gguf(module + ".weight", arch)
        site = target.split(".")[-2]
        if arch == "llama" and factor == "lora_B" and site in ("attn_q", "attn_k"):
            key = "num_attention_heads" if site == "attn_q" else "num_key_value_heads"
            x = gguf_names.interleave_rotary(x, model_config[key])
        writer.add_tensor(f"{target}.{factor.lower()}", np.ascontiguousarray(x.astype(as_type)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _build(out, case):
    path = fresh_directory(out, case)
    base_path = f"{out}/models/{case.model}"
    fresh = get_peft_model(golden_lib.load_model(base_path), LoraConfig(task_type="CAUSAL_LM", **case.config))
    b_scale = 0.35 * case.config["r"] ** 0.5 / case.config["lora_alpha"]
    randomise(fresh, case.key, [("lora_A", fan_in), ("lora_B", b_scale)])
    with tempfile.TemporaryDirectory() as peft_path:
        save_peft(fresh, peft_path, case)
        as_type = np.float16 if case.stored_type == "F16" else np.float32
        _write_gguf(f"{path}/adapter.gguf", peft_path, weights_io.read_json(f"{base_path}/config.json"),
                    case.config["lora_alpha"], as_type)
        adapted = PeftModel.from_pretrained(golden_lib.load_model(base_path), peft_path).eval()
        record(path, golden_lib.load_model(base_path), adapted, case)


def build(out):
    for case in _CASES:
        if wanted(case):
            _build(out, case)
