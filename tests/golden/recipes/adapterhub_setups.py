"""AdapterHub setups: adapters/<model>/hub_setup_<variant>/ as save_adapter_setup writes them.

adapter_setup.json names the composition; each adapter has a folder of its name, a fusion one named after its
adapters.
"""
import os
import shutil

import golden_lib
from golden_lib import weights_io
from recipes import adapterhub as hub

_SEQ = hub._seq()
_DOUBLE = hub._houlsby(non_linearity="gelu")
_PARALLEL = ("ParBnConfig", {"reduction_factor": 8.0})
_LORA_A = hub._lora(intermediate_lora=True)
_LORA_Q = (hub._lora(attn_matrices=["q"]), hub._lora(r=3, alpha=6, attn_matrices=["q"]))
_LORA_B = hub._lora(r=3, alpha=6)

# variant: (composition, its keyword arguments, the adapters' configurations, fusion configuration)
ADAPTERS = {
    "llama": {
        "stack": ("Stack", {}, [_DOUBLE, _SEQ], None),
        "stack_lora": ("Stack", {}, list(_LORA_Q), None),
        "stack_ia3": ("Stack", {}, [("IA3Config", {}), ("IA3Config", {"alpha": 2})], None),
        "average": ("Average", {"weights": [1.0, 3.0]}, [_SEQ, _SEQ], None),
        "average_lora": ("Average", {"weights": [2.0, 1.0]}, [_LORA_A, _LORA_B], None),
        "average_parallel": ("Average", {}, [_PARALLEL, _PARALLEL], None),
        "fusion": ("Fuse", {}, [_SEQ, _SEQ, _SEQ], "dynamic"),
    },
}


def _names(configs):
    return [f"part{i}" for i in range(len(configs))]


def _compose(kind, arguments, names):
    import adapters.composition
    return getattr(adapters.composition, kind)(*names, **arguments)


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


def _build_setup(out, model_name, variant, kind, arguments, configs, fusion):
    name = f"hub_setup_{variant}"
    path = f"{out}/adapters/{model_name}/{name}"
    shutil.rmtree(path, ignore_errors=True)
    model, names = _fresh(model_name), _names(configs)
    for adapter, config in zip(names, configs):
        model.add_adapter(adapter, config=hub.make_config(config))
        hub.randomise(model, adapter, f"{model_name}/{variant}")
    setup = _compose(kind, arguments, names)
    if fusion:
        model.add_adapter_fusion(setup, fusion)
        _randomise_fusion(model, f"{model_name}/{variant}")
    model.save_adapter_setup(path, setup)
    hub.exporter.convert(path)
    _tidy(path, model_name)
    loaded = _fresh(model_name)
    loaded.load_adapter_setup(path, set_active=True, use_safetensors=True)
    base = hub.load_base(f"{golden_lib.HERE}/models/{model_name}")
    hub.write(path, model_name, name, base, loaded.eval())


def build(out, only=()):
    for model_name, variants in ADAPTERS.items():
        for variant, what in variants.items():
            if not only or variant in only:
                _build_setup(out, model_name, variant, *what)
