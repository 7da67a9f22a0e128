"""AdapterHub setups: adapters/<model>/hub_setup_<variant>/ as save_adapter_setup writes them.

adapter_setup.json names the composition; each adapter has a folder of its name, a fusion one named after its
adapters.
"""
import os
import shutil

import torch

import golden_lib
from golden_lib import weights_io
from recipes import adapterhub as hub

_SEQ = hub._seq()
_DOUBLE = hub._houlsby(non_linearity="gelu")
_PARALLEL = ("ParBnConfig", {"reduction_factor": 8.0})
_LORA_A = hub._lora(intermediate_lora=True)
_LORA_Q = (hub._lora(attn_matrices=["q"]), hub._lora(r=3, alpha=6, attn_matrices=["q"]))
_LORA_B = hub._lora(r=3, alpha=6)

_SMALL = hub._seq(reduction_factor=32.0)
_SMALL_LORAS = [hub._lora(r=rank, alpha=4, attn_matrices=["q"]) for rank in (2, 1, 2, 3)]
_TASK_LORA = ("MTLLoRAConfig", {"r": 2, "alpha": 8, "n_up_projection": 2, "weights_sharpness": 0.7,
                                "attn_matrices": ["q", "v"]})

_PLAIN_FUSION = {"key": False, "query": False, "value": False}  # the adapters' own values decide


def _flat(kind, configs, fusion=None, **arguments):
    return (kind, arguments, list(range(len(configs)))), configs, fusion


# variant: (composition, the adapters' configurations, fusion configuration). A composition is its type, its keyword
# arguments and its children: numbers of adapters, or compositions.
ADAPTERS = {
    "llama": {
        "stack": _flat("Stack", [_DOUBLE, _SEQ]),
        "stack_lora": _flat("Stack", list(_LORA_Q)),
        "stack_ia3": _flat("Stack", [("IA3Config", {}), ("IA3Config", {"alpha": 2})]),
        "average": _flat("Average", [_SEQ, _SEQ], weights=[1.0, 3.0]),
        "average_lora": _flat("Average", [_LORA_A, _LORA_B], weights=[2.0, 1.0]),
        "average_parallel": _flat("Average", [_PARALLEL, _PARALLEL]),
        "fusion": _flat("Fuse", [_SEQ, _SEQ, _SEQ], "dynamic"),
        "nested_average": (("Stack", {}, [("Average", {"weights": [1.0, 3.0]}, [0, 1]), 2]), [_SMALL] * 3, None),
        "nested_fusion": (("Stack", {}, [0, ("Fuse", {}, [1, 2])]), [_SMALL] * 3, _PLAIN_FUSION),
        "nested_lora": (("Stack", {}, [("Average", {"weights": [2.0, 1.0]}, [("Stack", {}, [0, 1]), 2]), 3]),
                        _SMALL_LORAS, None),
        "tasks": _flat("MultiTask", [_TASK_LORA, _TASK_LORA]),
    },
}
_TASK = 1  # whose golden a choice by task has


def _names(configs):
    return [f"part{i}" for i in range(len(configs))]


def _compose(what, names):
    import adapters.composition
    kind, arguments, children = what
    parts = [names[child] if isinstance(child, int) else _compose(child, names) for child in children]
    return getattr(adapters.composition, kind)(*parts, **arguments)


def _fusions(setup):
    import adapters.composition
    blocks = [setup, *setup.children]
    return [block for block in blocks if isinstance(block, adapters.composition.Fuse)]


def _fusion_config(what):
    import adapters
    return what if isinstance(what, str) else adapters.StaticAdapterFusionConfig(**what)


class _OfTask:
    """The model as it runs for the texts of one task."""
    def __init__(self, model):
        self.model = model

    def __call__(self, input_ids, **rest):
        return self.model(input_ids=input_ids, task_ids=torch.full((len(input_ids),), _TASK), **rest)


def _randomise_fusion(model, key):
    for path, parameter in model.named_parameters():
        if "adapter_fusion_layer." in path:
            x = golden_lib.rng_for("hub", key, path).standard_normal(tuple(parameter.shape))
            scale = 0.3 if path.endswith("bias") else 1 / parameter.shape[-1] ** 0.5
            parameter.data.copy_(parameter.data.new_tensor(x * scale))


def _fresh(model_name):
    import adapters
    model = hub.load_base(f"{golden_lib.HERE}/models/{model_name}")
    adapters.init(model)
    return model


def _tidy(path, model_name):
    for where, _, files in os.walk(path):
        for file in files:
            if file.endswith(".bin") or file in ("head_config.json", "model_head.safetensors"):
                os.remove(f"{where}/{file}")
            elif file in ("adapter_config.json", "adapter_fusion_config.json"):
                config = weights_io.read_json(f"{where}/{file}")
                weights_io.write_json(f"{where}/{file}", config | {"model_name": f"tiny-{model_name}"})
            elif file == "adapter_setup.json":
                weights_io.write_json(f"{where}/{file}", weights_io.read_json(f"{where}/{file}"))


def _build_setup(out, model_name, variant, what, configs, fusion):
    name = f"hub_setup_{variant}"
    path = f"{out}/adapters/{model_name}/{name}"
    shutil.rmtree(path, ignore_errors=True)
    model, names = _fresh(model_name), _names(configs)
    for adapter, config in zip(names, configs):
        model.add_adapter(adapter, config=hub.make_config(config))
        hub.randomise(model, adapter, f"{model_name}/{variant}")
    setup, by_task = _compose(what, names), what[0] == "MultiTask"
    if by_task:
        model.share_parameters(setup)
    for block in _fusions(setup) if fusion else []:
        model.add_adapter_fusion(block, _fusion_config(fusion))
        _randomise_fusion(model, f"{model_name}/{variant}")
    model.save_adapter_setup(path, setup)
    hub.exporter.convert(path)
    _tidy(path, model_name)
    loaded = _fresh(model_name)
    loaded.load_adapter_setup(path, set_active=True, use_safetensors=True)
    base = hub.load_base(f"{golden_lib.HERE}/models/{model_name}")
    adapted = _OfTask(loaded.eval()) if by_task else loaded.eval()
    hub.write(path, model_name, name, base, adapted, extra={"options": {"task": _TASK}} if by_task else {})


def build(out, only=()):
    for model_name, variants in ADAPTERS.items():
        for variant, what in variants.items():
            if not only or variant in only:
                _build_setup(out, model_name, variant, *what)
