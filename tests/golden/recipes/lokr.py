"""LoKr: Kronecker products, each factor whole or low-rank (zoo 5.4)."""
import numpy as np
from peft import LoKrConfig

from adapter_goldens import Case, build_all

_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _config(**options):
    return LoKrConfig(task_type="CAUSAL_LM", **options)


def _rules(rank, scale):
    """The product of the factors keeps an input's size, times 0.4."""
    inner = 1 / np.sqrt(rank)
    return [("lokr_w1_a", 0.4 / scale * inner), ("lokr_w1_b", lambda s: 1 / np.sqrt(s[-1])),
            ("lokr_w1", lambda s: 0.4 / scale / np.sqrt(s[-1])),
            ("lokr_w2_a", inner), ("lokr_w2_b", lambda s: 1 / np.sqrt(s[-1])),
            ("lokr_w2", lambda s: 1 / np.sqrt(s[-1]))]


CASES = [
    Case("llama", "lokr", _config(r=2, alpha=4, target_modules=_ALL), _rules(2, 2)),
    Case("qwen2", "lokr_both", _config(r=2, alpha=3, decompose_both=True, decompose_factor=8,
                                       target_modules=["q_proj", "o_proj", "down_proj"]), _rules(2, 1.5)),
    Case("mistral", "lokr_whole", _config(r=16, alpha=16, decompose_factor=4,
                                          target_modules=["k_proj", "o_proj", "gate_proj"],
                                          rank_pattern={"gate_proj": 8}, alpha_pattern={"k_proj": 8}),
         _rules(16, 1)),
]


def build(out):
    build_all(out, CASES)
