"""VB-LoRA: factors pieced together from one bank of vectors (zoo 5.1)."""
from peft import VBLoRAConfig

from adapter_goldens import Case, build_all

_RULES = [("vector_bank", 0.5), ("logits", 1.0)]


def _config(**options):
    return VBLoRAConfig(task_type="CAUSAL_LM", r=3, num_vectors=20, vector_length=16, topk=2, **options)


CASES = [
    Case("llama", "vblora", _config(target_modules=["q_proj", "v_proj"]), _RULES),
    Case("qwen2", "vblora_topk", _config(target_modules=["k_proj", "up_proj"], save_only_topk_weights=True), _RULES),
]


def build(out):
    build_all(out, CASES)
