"""LLM-Adapters (Hu et al. 2023): bottlenecks at linear modules as its PEFT fork saves them, by the formula (zoo 5.5)."""
import numpy as np

import adapter_goldens
import golden_lib
from adapter_goldens import Case
from bottleneck_hooks import Bottleneck, before, behind, beside
from container_goldens import module, places
from golden_lib import weights_io

_SEQUENTIAL = {"gate": before, "up": before, "down": behind, "fc1": before, "fc2": behind}
_LENGTHS = (1, 7, 20)
_WIDTH = 5


def _config(**options):
    return {"bottleneck_size": _WIDTH, "non_linearity": "tanh", "adapter_dropout": 0.0, "bias": "none",
            "use_parallel_adapter": False, "use_adapterp": False, "scaling": 1.0, "init_weights": "bert",
            "peft_type": "BOTTLENECK", "task_type": "CAUSAL_LM", "inference_mode": True,
            "modules_to_save": None} | options


def _adapt(model, key, config, sites):
    """Hooks the adapters onto the model; -> the tensors of the file."""
    def rng(name, *shape):
        return golden_lib.rng_for("llm_adapters", key, name).standard_normal(shape).astype(np.float32)
    tensors = {}
    paths = {target: path for path, target in model.named_modules()}
    for place in places(model, *sites):
        target, site = module(model, place), place.split(".")[1]
        change = beside if config["use_parallel_adapter"] else _SEQUENTIAL[site]
        out, inner = target.weight.shape[::-1] if type(target).__name__ == "Conv1D" else target.weight.shape
        sizes = {before: (inner, inner), behind: (out, out), beside: (inner, out)}[change]
        path = f"base_model.model.{paths[target]}"
        learned = config["scaling"] == "learned"
        scale = np.float32(1 + 0.5 * rng(f"{place}.scaling", 1)[0]) if learned else config["scaling"]
        f = Bottleneck(rng, place, sizes, config["non_linearity"], False, float(scale), _WIDTH, biases=False)
        if learned:
            tensors[f"{path}.adapter_scaling"] = weights_io.encode(np.array([scale]), "F32")
        tensors[f"{path}.adapter_down.weight"] = weights_io.encode(f.tensors["wd"], "F32")
        tensors[f"{path}.adapter_up.weight"] = weights_io.encode(f.tensors["wu"], "F32")
        change(target, f)
    return tensors


def _build(out, case, sites):
    path = adapter_goldens.fresh_directory(out, case)
    adapted = adapter_goldens.load_base(out, case)
    names = sorted({name for name in ("gate_proj", "up_proj", "down_proj", "q_proj", "v_proj", "c_fc", "c_proj")
                    if any(p.endswith(name) for p, _ in adapted.named_modules())})
    config = _config(target_modules=names, base_model_name_or_path=f"tiny-{case.model}", **case.config)
    tensors = _adapt(adapted, case.key, config, sites)
    weights_io.write_json(f"{path}/adapter_config.json", config)
    weights_io.write_safetensors(f"{path}/adapter_model.safetensors", tensors, {"format": "pt"})
    adapter_goldens.record(path, adapter_goldens.load_base(out, case), adapted.eval(), case)


_MLP = ("gate", "up", "down")
CASES = [
    (Case("llama", "llm_adapters", {}, [], lengths=_LENGTHS), _MLP),
    (Case("llama", "llm_adapters_parallel", {"use_parallel_adapter": True, "scaling": 0.5, "non_linearity": "relu"}, [],
          lengths=_LENGTHS), ("q", "v", *_MLP)),
    (Case("mistral", "llm_adapters_p", {"use_adapterp": True, "scaling": "learned"}, [], lengths=_LENGTHS), ("down",)),
    (Case("gpt2", "llm_adapters", {"non_linearity": "silu"}, [], lengths=_LENGTHS), ("fc1", "fc2")),
]


def build(out):
    for case, sites in CASES:
        if adapter_goldens.wanted(case):
            _build(out, case, sites)
