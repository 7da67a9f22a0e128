"""C3A: block-circulant changes (zoo 5.3)."""
from peft import C3AConfig

from adapter_goldens import Case, build_all


def _config(block, modules, **options):
    return C3AConfig(task_type="CAUSAL_LM", block_size=block, target_modules=modules, **options)


CASES = [
    Case("llama", "c3a", _config(16, ["q_proj", "k_proj", "v_proj"]), [("c3a_kernel", 3.0)]),
    Case("mistral", "c3a_patterns", _config(8, ["o_proj", "gate_proj", "down_proj"],
                                            block_size_pattern={"down_proj": 32}), [("c3a_kernel", 3.0)]),
]


def build(out):
    build_all(out, CASES)
