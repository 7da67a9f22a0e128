"""Quantised linears as their libraries store them, and what the stored numbers stand for.

Each function takes a float32 weight [out, in] and a numpy generator and returns ({suffix: (type, array)}, weight as
dequantised in float32). Layouts and formulas: bitsandbytes 0.50 (functional.py), gptqmodel 7.7 (qlinear), AutoAWQ's
"gemm" (WQLinear_GEMM), compressed-tensors 0.20 (compressors/), engine/spec/quantized_polyad.cc. How values are rounded
to codes is our own and simple: a golden shows what must be computed from the stored bits, whatever the quantiser chose.
"""
import json

import numpy as np

NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                0.7229568362236023, 1.0], np.float32)
# In code order: sign, then three bits.
FP4 = np.array([0.0, 0.0052083333, 0.6666667, 1.0, 0.33333334, 0.5, 0.16666667, 0.25,
                -0.0, -0.0052083333, -0.6666667, -1.0, -0.33333334, -0.5, -0.16666667, -0.25], np.float32)
_BLOCK, _NESTED_BLOCK, _GROUP = 64, 256, 32


def _nearest(x, levels):
    return np.abs(x[..., None] - levels).argmin(axis=-1).astype(np.uint8)


def bitsandbytes(weight, _, levels=NF4, kind="nf4", nested=False):
    flat = weight.reshape(-1)
    blocks = np.pad(flat, (0, -len(flat) % _BLOCK)).reshape(-1, _BLOCK)
    absmax = np.abs(blocks).max(axis=1).astype(np.float32)
    state = {"quant_type": kind, "blocksize": _BLOCK, "dtype": "float32", "shape": list(weight.shape)}
    parts = {".weight.quant_map": ("F32", levels)}
    if nested:
        offset = np.float32(absmax.mean())
        dynamic = np.linspace(-1, 1, 256).astype(np.float32)
        supers = np.pad(absmax - offset, (0, -len(absmax) % _NESTED_BLOCK)).reshape(-1, _NESTED_BLOCK)
        scale = np.abs(supers).max(axis=1).astype(np.float32)
        codes = _nearest(supers / scale[:, None], dynamic).reshape(-1)[:len(absmax)]
        absmax = dynamic[codes] * np.repeat(scale, _NESTED_BLOCK)[:len(absmax)] + offset
        state |= {"nested_blocksize": _NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": float(offset)}
        parts |= {".weight.absmax": ("U8", codes), ".weight.nested_absmax": ("F32", scale),
                  ".weight.nested_quant_map": ("F32", dynamic)}
    else:
        parts[".weight.absmax"] = ("F32", absmax)
    codes = _nearest(blocks / absmax[:, None], levels)
    values = (levels[codes] * absmax[:, None]).reshape(-1)[:len(flat)].reshape(weight.shape)
    codes = codes.reshape(-1)[:len(flat)]
    parts[".weight"] = ("U8", (codes[0::2] << 4 | codes[1::2])[:, None])
    text = json.dumps(state).encode()
    parts[f".weight.quant_state.bitsandbytes__{kind}"] = ("U8", np.frombuffer(text, np.uint8))
    return parts, values


def _affine(weight, groups, num_groups, scale_type, symmetric=False):
    """-> codes 0..15 [out, in], scales and zero points [out, groups]; groups[k] is the group of input k."""
    scales = np.zeros((weight.shape[0], num_groups), np.float32)
    zeros = np.full(scales.shape, 8, np.int64)
    for group in range(num_groups):
        part = weight[:, groups == group]
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        if symmetric:
            scales[:, group] = np.abs(part).max(axis=1) / 7
        else:
            scales[:, group] = (high - low) / 15
            zeros[:, group] = np.round(-low / scales[:, group])
    scales = scales.astype(scale_type)
    wide = scales.astype(np.float32)
    codes = np.clip(np.round(weight / wide[:, groups]) + zeros[:, groups], 0, 15).astype(np.int64)
    return codes, scales, zeros, wide[:, groups] * (codes - zeros[:, groups]).astype(np.float32)


def _pack(codes, axis, order=range(8)):
    """Eight 4-bit codes along `axis` to an int32, order[i] at bits 4 i."""
    codes = np.moveaxis(codes, axis, -1).astype(np.uint64)
    words = codes.reshape(*codes.shape[:-1], -1, 8)
    packed = sum(words[..., where] << np.uint64(4 * i) for i, where in enumerate(order))
    return np.ascontiguousarray(np.moveaxis(packed.astype(np.uint32).view(np.int32), -1, axis))


def gptq(weight, rng, act_order=True, less_one=True, symmetric=False):
    inputs = weight.shape[1]
    groups = np.arange(inputs) // _GROUP
    if act_order:
        groups = rng.permutation(groups)
    codes, scales, zeros, values = _affine(weight, groups, -(-inputs // _GROUP), np.float16, symmetric)
    stored = zeros - 1 if less_one else zeros
    words = sum((stored[i::8].astype(np.int64) << (4 * i)) for i in range(8))  # borrows where a zero point is 0
    return {".qweight": ("I32", _pack(codes.T, 0)), ".scales": ("F16", np.ascontiguousarray(scales.T)),
            ".qzeros": ("I32", np.ascontiguousarray(words.T).astype(np.uint64).astype(np.uint32).view(np.int32)),
            ".g_idx": ("I32", groups.astype(np.int32))}, values


def awq(weight, _):
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    groups = np.arange(weight.shape[1]) // _GROUP
    codes, scales, zeros, values = _affine(weight, groups, groups[-1] + 1, np.float16)
    return {".qweight": ("I32", _pack(codes.T, 1, order)), ".qzeros": ("I32", _pack(zeros.T, 1, order)),
            ".scales": ("F16", np.ascontiguousarray(scales.T))}, values


def compressed_int4(weight, _, symmetric=True):
    groups = np.arange(weight.shape[1]) // _GROUP
    codes, scales, zeros, values = _affine(weight, groups, groups[-1] + 1, np.float32, symmetric)
    parts = {".weight_packed": ("I32", _pack(codes, 1)), ".weight_scale": ("F32", scales),
             ".weight_shape": ("I64", np.array(weight.shape, np.int64))}
    if not symmetric:
        parts[".weight_zero_point"] = ("I32", _pack(zeros, 0))
    return parts, values


def compressed_int8(weight, _):
    scale = (np.abs(weight).max(axis=1, keepdims=True) / 127).astype(np.float32)
    codes = np.clip(np.round(weight / scale), -128, 127).astype(np.int8)
    return {".weight": ("I8", codes), ".weight_scale": ("F32", scale)}, codes.astype(np.float32) * scale


def float8_values():
    """E4M3 of every byte; NaN where it has none."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    magnitude = np.where(exponent == 0, mantissa / 8 * 2.0 ** -6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    magnitude = np.where((code & 127) == 127, np.nan, magnitude)
    return np.where(code & 128, -magnitude, magnitude).astype(np.float32)


def compressed_float8(weight, _):
    levels = float8_values()
    scale = (np.abs(weight).max(axis=1, keepdims=True) / 448).astype(np.float32)
    finite = np.where(np.isnan(levels), np.inf, levels)
    codes = _nearest(weight / scale, finite)
    return {".weight": ("F8_E4M3", codes), ".weight_scale": ("F32", scale)}, levels[codes] * scale


def polyad(weight, _, bits=4):
    groups = weight.reshape(weight.shape[0], -1, _GROUP)
    if bits == 8:
        scale = (np.abs(groups).max(axis=2, keepdims=True) / 127).astype(np.float16)
        wide = scale.astype(np.float32)
        codes = np.clip(np.round(groups / wide), -127, 127) + 128
        values = wide * (codes - 128).astype(np.float32)
        return {".weight.codes": ("U8", codes.reshape(weight.shape).astype(np.uint8)),
                ".weight.scales": ("F16", scale[..., 0])}, values.reshape(weight.shape)
    low = groups.min(axis=2, keepdims=True).astype(np.float16)
    scale = ((groups.max(axis=2, keepdims=True) - low) / 15).astype(np.float16)
    wide, minimum = scale.astype(np.float32), low.astype(np.float32)
    codes = np.clip(np.round((groups - minimum) / wide), 0, 15).astype(np.float32)
    values = (wide * codes + minimum).reshape(weight.shape)
    codes = codes.reshape(weight.shape).astype(np.uint8)
    return {".weight.codes": ("U8", codes[:, 0::2] | codes[:, 1::2] << 4),
            ".weight.scales": ("F16", scale[..., 0]), ".weight.minima": ("F16", low[..., 0])}, values


def _compressed(bits, form, kind="int", strategy="channel", symmetric=True):
    weights = {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "dynamic": False,
               "group_size": _GROUP if strategy == "group" else None, "actorder": None, "block_structure": None,
               "observer": "minmax", "observer_kwargs": {}}
    return {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
            "global_compression_ratio": None, "ignore": ["lm_head"], "kv_cache_scheme": None,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None,
                                          "output_activations": None}}}


def _bitsandbytes(kind, nested):
    return {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "_load_in_4bit": True,
            "_load_in_8bit": False, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested,
            "bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8", "llm_int8_threshold": 6.0,
            "llm_int8_skip_modules": None, "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_has_fp16_weight": False}


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "damp_percent": 0.01, "true_sequential": True}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": _GROUP, "zero_point": True, "version": "gemm",
        "modules_to_not_convert": None}

# name: (quantization_config, quantiser)
FORMATS = {
    "nf4": (_bitsandbytes("nf4", False), bitsandbytes),
    "nf4_double": (_bitsandbytes("nf4", True), lambda w, r: bitsandbytes(w, r, nested=True)),
    "fp4": (_bitsandbytes("fp4", False), lambda w, r: bitsandbytes(w, r, FP4, "fp4")),
    "gptq": (_GPTQ | {"desc_act": False, "sym": True, "checkpoint_format": "gptq_v2"},
             lambda w, r: gptq(w, r, act_order=False, less_one=False, symmetric=True)),
    "gptq_act_order": (_GPTQ | {"desc_act": True, "sym": False, "checkpoint_format": "gptq"}, gptq),
    "awq": (_AWQ, awq),
    "ct_int4": (_compressed(4, "pack-quantized", strategy="group"), compressed_int4),
    "ct_int4_zeros": (_compressed(4, "pack-quantized", strategy="group", symmetric=False),
                      lambda w, r: compressed_int4(w, r, symmetric=False)),
    "ct_int8": (_compressed(8, "int-quantized"), compressed_int8),
    "ct_fp8": (_compressed(8, "float-quantized", "float"), compressed_float8),
    "polyad4": ({"quant_method": "polyad", "bits": 4, "group_size": _GROUP}, polyad),
    "polyad8": ({"quant_method": "polyad", "bits": 8, "group_size": _GROUP}, lambda w, r: polyad(w, r, 8)),
}
