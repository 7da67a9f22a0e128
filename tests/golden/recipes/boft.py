"""BOFT: a butterfly of block rotations of the input, and an output scale (zoo 5.4).

Without its CUDA kernel PEFT runs one stage only. The case of three stages therefore takes PEFT's files, puts a
stored rotation of three stages in them, and computes the product of the stages as published.
"""
import numpy as np
from peft import BOFTConfig, get_peft_model

import adapter_goldens
from adapter_goldens import Case, build_all
from container_goldens import module, places, replace, weight
from golden_lib import rng_for, weights_io

CASES = [
    Case("mistral", "boft", BOFTConfig(task_type="CAUSAL_LM", boft_block_size=4,
                                       target_modules=["q_proj", "o_proj", "up_proj"]),
         [("boft_R", 0.25), ("boft_s", (1.0, 0.3))]),
    Case("qwen2", "boft_blocks", BOFTConfig(task_type="CAUSAL_LM", boft_block_size=0, boft_block_num=4,
                                            target_modules=["k_proj", "v_proj", "down_proj"]),
         [("boft_R", 0.1), ("boft_s", (1.0, 0.3))]),
]

_SITES = {"q": "self_attn.q_proj", "down": "mlp.down_proj"}
_STAGES = Case("llama", "boft_stages", BOFTConfig(task_type="CAUSAL_LM", boft_block_size=4,
                                                  target_modules=list(_SITES.values())),
               [("boft_R", 0.2), ("boft_s", (1.0, 0.3))])


def _source_rows(stage, size, width):
    """Row i of P_stage takes input _source_rows[i]: in chunks of 2^stage blocks, even half-blocks come first."""
    if stage == 0:
        return np.arange(width)
    half = size // 2
    chunks = np.arange(width).reshape(-1, 2 << stage, half)
    return np.concatenate([chunks[:, 0::2], chunks[:, 1::2]], axis=1).reshape(-1)


def _stage(blocks, stage):
    """M = P blockdiag((I - Q) (I + Q)^-1) P', Q = (R - R') / 2."""
    count, size, _ = blocks.shape
    width, eye = count * size, np.eye(size)
    diagonal = np.zeros((width, width))
    for k, block in enumerate(blocks.astype(np.float64)):
        q = (block - block.T) / 2
        at = slice(k * size, (k + 1) * size)
        diagonal[at, at] = (eye - q) @ np.linalg.inv(eye + q)
    p = np.eye(width)[_source_rows(stage, size, width)]
    return p @ diagonal @ p.T


def _build_stages(out, case, count=3):
    path = adapter_goldens.fresh_directory(out, case)
    fresh = get_peft_model(adapter_goldens.load_base(out, case), case.config)
    adapter_goldens.randomise(fresh, case.key, case.rules)
    adapter_goldens.save_peft(fresh, path, case)
    file = f"{path}/adapter_model.safetensors"
    tensors, adapted = weights_io.read_f32(file), adapter_goldens.load_base(out, case)
    for place in places(adapted, *_SITES):
        name = f"base_model.model.model.layers.{place[1]}.{_SITES[place.split('.')[1]]}"
        shape = (count, *tensors[f"{name}.boft_R"].shape[1:])
        stored = (0.3 * rng_for("boft", case.key, name).standard_normal(shape)).astype(np.float32)
        tensors[f"{name}.boft_R"] = stored
        rotation = np.eye(weight(module(adapted, place)).shape[1])
        for stage, blocks in enumerate(stored):
            rotation = _stage(blocks, stage) @ rotation
        scale = tensors[f"{name}.boft_s"].astype(np.float64)
        replace(module(adapted, place), scale * (weight(module(adapted, place)) @ rotation.T))  # x1 = x rotation
    weights_io.write_safetensors(file, {k: weights_io.encode(v, "F32") for k, v in tensors.items()},
                                 {"format": "pt"})
    adapter_goldens.edit_config(path, boft_n_butterfly_factor=count)
    adapter_goldens.record(path, adapter_goldens.load_base(out, case), adapted.eval(), case)


def build(out):
    build_all(out, CASES)
    if adapter_goldens.wanted(_STAGES):
        _build_stages(out, _STAGES)
