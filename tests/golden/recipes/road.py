"""RoAd: pairs of outputs rotated and scaled (zoo 5.4)."""
from peft import RoadConfig

from adapter_goldens import Case, build_all

_RULES = [("road_theta", 0.6), ("road_alpha", (1.0, 0.3))]


def _config(variant, group, modules):
    return RoadConfig(task_type="CAUSAL_LM", variant=variant, group_size=group, target_modules=modules)


CASES = [
    Case("llama", "road_1", _config("road_1", 32, ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]),
         _RULES),
    Case("qwen2", "road_2", _config("road_2", 16, ["q_proj", "k_proj", "v_proj"]), _RULES),
    Case("qwen3", "road_4", _config("road_4", 8, ["v_proj", "gate_proj", "down_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
