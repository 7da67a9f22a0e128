"""OFT: the input rotated block by block (zoo 5.4)."""
from peft import OFTConfig

from adapter_goldens import Case, build_all

_RULES = [("oft_R", 0.12)]


def _config(**options):
    return OFTConfig(task_type="CAUSAL_LM", module_dropout=0.0, **options)


CASES = [
    Case("llama", "oft", _config(r=0, oft_block_size=16, target_modules=["q_proj", "v_proj", "down_proj"]),
         _RULES),
    Case("llama", "oft_exact", _config(r=0, oft_block_size=8, use_cayley_neumann=False,
                                       target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                                       "up_proj", "down_proj"]), _RULES),
    Case("qwen2", "oft_shared", _config(r=0, oft_block_size=16, block_share=True, num_cayley_neumann_terms=3,
                                        target_modules=["q_proj", "up_proj"]), [("oft_R", 0.15)]),
    Case("mistral", "oft_constrained", _config(r=4, oft_block_size=0, coft=True, eps=0.9,
                                               num_cayley_neumann_terms=6,
                                               target_modules=["k_proj", "o_proj"]), [("oft_R", 0.12)]),
    Case("qwen3", "oft_two_terms", _config(r=0, oft_block_size=8, num_cayley_neumann_terms=2,
                                           target_modules=["v_proj", "gate_proj"]), _RULES),
]


def build(out):
    build_all(out, CASES)
