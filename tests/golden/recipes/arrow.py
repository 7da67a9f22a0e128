"""Arrow routing, with and without GenKnowSub, through tools/export/arrow.py; recorded as PEFT routes (zoo 5.6)."""
import os
import sys
import tempfile

import torch
from peft import ArrowConfig, LoraConfig, create_arrow_model, get_peft_model

import adapter_goldens
import golden_lib
from adapter_goldens import Case, fan_in

sys.path.append(os.path.join(golden_lib.HERE, "..", "..", "tools", "export"))
import arrow  # noqa: E402

_SEED = 11


def _case(model, name, targets, tasks, general, **router):
    return Case(model, name, {"targets": targets, "tasks": tasks, "general": general, "router": router}, [],
                lengths=(1, 7, 20))


CASES = [
    _case("llama", "arrow", ["q_proj", "down_proj"], 3, 0, top_k=2, router_temperature=0.7),
    _case("qwen2", "arrow_general", ["q_proj", "v_proj"], 4, 2, top_k=3, router_temperature=1.0),
]


def _save_loras(out, case, work):
    paths = []
    for index in range(case.config["tasks"] + case.config["general"]):
        torch.manual_seed(0)
        config = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4 + index, target_modules=case.config["targets"])
        model = get_peft_model(adapter_goldens.load_base(out, case), config)
        adapter_goldens.randomise(model, f"{case.key}/{index}", [("lora_A", fan_in), ("lora_B", 0.3)])
        model.save_pretrained(f"{work}/{index}")
        paths.append(f"{work}/{index}")
    return paths[:case.config["tasks"]], paths[case.config["tasks"]:]


def _build(out, case):
    path, router = adapter_goldens.fresh_directory(out, case), case.config["router"]
    with tempfile.TemporaryDirectory() as work:
        tasks, general = _save_loras(out, case, work)
        adapted = create_arrow_model(adapter_goldens.load_base(out, case), tasks,
                                     ArrowConfig(rng_seed=_SEED, use_gks=bool(general), **router), general).eval()
        rule = {"top_k": router["top_k"], "temperature": router["router_temperature"], "absolute": 1}
        arrow.convert([arrow.read_lora(p) for p in tasks], [arrow.read_lora(p) for p in general], rule, _SEED,
                      f"tiny-{case.model}").write(path)
    adapter_goldens.record(path, adapter_goldens.load_base(out, case), adapted, case)


def build(out):
    for case in filter(adapter_goldens.wanted, CASES):
        _build(out, case)
