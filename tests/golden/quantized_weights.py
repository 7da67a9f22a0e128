"""quantized/<format>.safetensors: one small matrix as each library stores it ("m.<part>") and as that library dequantises
it ("expected", float32); <format>.json is its quantization_config.

bitsandbytes' and compressed-tensors' own code makes "expected" and must agree with the formulas of
quantized_formats.py bit for bit; gptqmodel and AutoAWQ want a GPU, so theirs is the formula. Needs what
requirements_quantized.txt adds to an environment with torch: python tests/golden/quantized_weights.py
"""
import os
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "tools")]
import quantized_formats  # noqa: E402
import weights_io  # noqa: E402

_SHAPE = (32, 64)  # rows of whole blocks: bitsandbytes' CPU code is wrong for others


def _tensors(parts, prefix):
    return {prefix + name: torch.from_numpy(np.array(array)) for name, (_, array) in parts.items()}


def _bitsandbytes(parts):
    from bitsandbytes import functional
    tensors = _tensors(parts, "m")
    stored = {k.removeprefix("m.weight."): v for k, v in tensors.items() if k != "m.weight"}
    state = functional.QuantState.from_dict(stored, device=torch.device("cpu"))
    return functional.dequantize_4bit(tensors["m.weight"], state).numpy()


def _compressed(parts, config):
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    scale = torch.from_numpy(parts[".weight_scale"][1])
    if ".weight_packed" not in parts:
        kind, array = parts[".weight"]
        codes = torch.from_numpy(array)
        codes = codes.view(torch.float8_e4m3fn) if kind == "F8_E4M3" else codes
        return (codes.to(torch.float32) * scale).numpy()
    args = config["config_groups"]["group_0"]["weights"]
    codes = unpack_from_int32(torch.from_numpy(parts[".weight_packed"][1]), args["num_bits"], torch.Size(_SHAPE))
    zeros = torch.zeros_like(scale)
    if not args["symmetric"]:
        zeros = unpack_from_int32(torch.from_numpy(parts[".weight_zero_point"][1]), args["num_bits"], scale.shape,
                                  packed_dim=0).float()
    spread = args["group_size"]
    return ((codes.float() - zeros.repeat_interleave(spread, 1)) * scale.repeat_interleave(spread, 1)).numpy()


def main():
    rng = np.random.default_rng(11)
    out = os.path.join(HERE, "quantized")
    os.makedirs(out, exist_ok=True)
    for name, (config, quantise) in quantized_formats.FORMATS.items():
        weight = rng.standard_normal(_SHAPE).astype(np.float32)
        parts, values = quantise(weight, rng)
        expected = values.astype(np.float32)
        if config["quant_method"] == "bitsandbytes":
            expected = _bitsandbytes(parts)
        elif config["quant_method"] == "compressed-tensors":
            expected = _compressed(parts, config)
        if not np.array_equal(expected, values.astype(np.float32)):
            raise SystemExit(f"{name}: the library's weights are not the formula's")
        tensors = {"m" + suffix: part for suffix, part in parts.items()}
        weights_io.write_safetensors(f"{out}/{name}.safetensors", tensors | {"expected": ("F32", expected)})
        weights_io.write_json(f"{out}/{name}.json", {"quantization_config": config})
        print(name, "max", np.abs(expected).max(), "error", np.abs(expected - weight).max())


if __name__ == "__main__":
    main()
