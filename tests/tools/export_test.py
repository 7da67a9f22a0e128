#!/usr/bin/env python3
"""The converters of tools/export write what their families compute. Argument: the root. Needs numpy only."""
import json
import pathlib
import sys
import tempfile
import unittest

import numpy as np

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else __file__).resolve()
ROOT = ROOT if ROOT.is_dir() else ROOT.parents[2]
sys.path[:0] = [str(ROOT / "tools/export"), str(ROOT / "tools")]

import adaptformer  # noqa: E402
import bitdelta  # noqa: E402
import container  # noqa: E402
import deltas  # noqa: E402
import dylora  # noqa: E402
import fact  # noqa: E402
import lycoris  # noqa: E402
import peft_complete  # noqa: E402
import places  # noqa: E402
import ssf  # noqa: E402
import weights_io  # noqa: E402

RNG = np.random.default_rng(7)
CONFIG = {"model_type": "llama", "num_hidden_layers": 2}


def numbers(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def written(box):
    """(zoo.json, {name: array}) of a container as its files say."""
    with tempfile.TemporaryDirectory() as path:
        box.write(path)
        with open(f"{path}/zoo.json", encoding="utf-8") as f:
            config = json.load(f)
        tensors = weights_io.read_safetensors(f"{path}/zoo.safetensors")
    return config, {name: array for name, (_, array) in tensors.items()}


class ContainerTest(unittest.TestCase):
    def test_counts_ops_of_one_kind_and_place_and_refers_to_shared_tensors(self):
        box = container.Container("test", "base")
        a, b = box.share("a", numbers(2, 8)), numbers(4, 2)
        box.add("L0.q", "lr", {"scale": 2.0}, a=a, b=b)
        box.add("L0.q", "lr", a=numbers(3, 8), b=numbers(4, 3))
        config, tensors = written(box)
        self.assertEqual(set(tensors), {"shared.a", "L0.q.lr.0.b", "L0.q.lr.1.a", "L0.q.lr.1.b"})
        self.assertEqual(config["sites"], {"L0.q.lr.0": {"scale": 2.0, "a": "shared.a"}})
        self.assertEqual((config["zoo_version"], config["family"], config["dtype"]), (1, "test", "f32"))

    def test_sparse_rows_are_the_dense_change(self):
        delta = np.where(np.abs(numbers(5, 7)) > 1, numbers(5, 7), 0)
        delta[3] = 0
        csr, back = container.sparse_rows(delta), np.zeros_like(delta)
        for row in range(5):
            for i in range(csr["rowptr"][row], csr["rowptr"][row + 1]):
                back[row, csr["col"][i]] += csr["val"][i]
        np.testing.assert_array_equal(back, delta)

    def test_sign_bits_count_inputs_from_the_lowest_bit(self):
        signs = numbers(3, 40) > 0
        words = container.sign_bits(signs).view(np.uint32)
        self.assertEqual(words.shape, (3, 2))
        for row in range(3):
            for i in range(40):
                self.assertEqual(bool(words[row, i // 32] >> (i % 32) & 1), bool(signs[row, i]))


class DeltasTest(unittest.TestCase):
    def test_a_low_rank_change_is_found_and_is_the_product(self):
        delta = numbers(24, 2) @ numbers(2, 32)
        op, tensors = deltas.cheapest(delta)
        self.assertEqual(op, "lr")
        self.assertEqual(tensors["a"].shape, (2, 32))
        np.testing.assert_allclose(tensors["b"] @ tensors["a"], delta, atol=1e-5)

    def test_few_entries_are_sparse_many_are_dense_and_none_is_nothing(self):
        few = np.where(RNG.random((24, 32)) < 0.02, numbers(24, 32), 0)
        self.assertEqual(deltas.cheapest(few)[0], "sp")
        self.assertEqual(deltas.cheapest(numbers(24, 32))[0], "dd")
        self.assertIsNone(deltas.cheapest(np.zeros((24, 32))))

    def test_differences_name_the_places_that_changed(self):
        before = {"model.layers.0.self_attn.q_proj": numbers(16, 16), "lm_head": numbers(8, 16)}
        after = {path: weight.copy() for path, weight in before.items()}
        after["lm_head"] += numbers(8, 16)
        _, tensors = written(peft_complete.differences(before, after, "fourierft", "base"))
        self.assertEqual(set(tensors), {"head.dd.0.delta"})


class PlacesTest(unittest.TestCase):
    def test_paths_and_places(self):
        self.assertEqual(places.place_of("model.layers.12.mlp.up_proj"), "L12.up")
        self.assertEqual(places.place_of("transformer.h.0.attn.c_attn"), "L0.qkv")
        self.assertEqual(places.place_of("transformer.h.0.mlp.c_proj"), "L0.fc2")
        self.assertIsNone(places.place_of("model.layers.0.mlp"))
        self.assertEqual(len(places.paths_of("llama", 3)), 21)


class BitDeltaTest(unittest.TestCase):
    def test_masks_are_transposed_and_other_tensors_replace(self):
        signs = numbers(16, 64) > 0
        words = container.sign_bits(signs)
        box = bitdelta.convert({"model.layers.0.mlp.down_proj.mask": words.T,
                                "model.layers.0.mlp.down_proj.coeff": np.float32(0.25),
                                "model.norm.weight": np.ones(16, np.float32)}, "base")
        _, tensors = written(box)
        np.testing.assert_array_equal(tensors["L0.down.sg.0.bits"], words)
        self.assertEqual(tensors["L0.down.sg.0.coef"].size, 1)
        self.assertIn("normf.nw.0.w", tensors)

    def test_an_unknown_tensor_is_refused_by_name(self):
        with self.assertRaisesRegex(SystemExit, "vision.mask"):
            bitdelta.convert({"vision.mask": np.zeros((1, 1), np.int32)}, "base")


class DyLoraTest(unittest.TestCase):
    def test_a_rank_is_the_leading_part_with_its_own_scale(self):
        path = "model.layers.0.self_attn.q_proj"
        a, b = numbers(8, 16), numbers(16, 8)
        with tempfile.TemporaryDirectory() as out:
            dylora.write({f"{path}.lora_A": a, f"{path}.lora_B": b}, 3, 16.0, "base", out)
            tensors = weights_io.read_f32(f"{out}/adapter_model.safetensors")
            config = weights_io.read_json(f"{out}/adapter_config.json")
        np.testing.assert_array_equal(tensors[f"base_model.model.{path}.lora_A.weight"], a[:3])
        np.testing.assert_array_equal(tensors[f"base_model.model.{path}.lora_B.weight"], b[:, :3])
        self.assertEqual((config["r"], config["lora_alpha"], config["target_modules"]), (3, 16.0, ["q_proj"]))

    def test_a_rank_past_the_stored_one_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "rank 9 of 8"):
            dylora.truncated({"m.lora_A": numbers(8, 16)}, 9)


class LycorisTest(unittest.TestCase):
    def test_underscored_names_and_the_alpha_tensor(self):
        prefix = "lycoris_model_layers_1_self_attn_v_proj"
        w1, a, b = numbers(4, 2), numbers(8, 3), numbers(3, 8)
        box = lycoris.convert({f"{prefix}.lokr_w1": w1, f"{prefix}.lokr_w2_a": a, f"{prefix}.lokr_w2_b": b,
                               f"{prefix}.alpha": np.float32(6)}, CONFIG, "base")
        config, tensors = written(box)
        np.testing.assert_allclose(tensors["L1.v.kr.0.d"], a @ b, rtol=1e-5)
        np.testing.assert_array_equal(tensors["L1.v.kr.0.c"], w1)
        self.assertEqual(config["sites"]["L1.v.kr.0"]["scale"], 2.0)

    def test_two_whole_factors_have_no_scale(self):
        prefix = "lora_unet_model_layers_0_mlp_gate_proj"
        box = lycoris.convert({f"{prefix}.lokr_w1": numbers(4, 2), f"{prefix}.lokr_w2": numbers(8, 8),
                               f"{prefix}.alpha": np.float32(1e10)}, CONFIG, "base")
        self.assertEqual(written(box)[0]["sites"]["L0.gate.kr.0"]["scale"], 1.0)

    def test_a_hadamard_product_of_two_pairs(self):
        prefix = "lycoris_model_layers_0_self_attn_q_proj"
        factors = {"hada_w1_a": numbers(16, 1), "hada_w1_b": numbers(1, 16), "hada_w2_a": numbers(16, 1),
                   "hada_w2_b": numbers(1, 16)}
        tensors = {f"{prefix}.{k}": v for k, v in factors.items()} | {f"{prefix}.alpha": np.float32(0.5)}
        _, written_tensors = written(lycoris.convert(tensors, CONFIG, "base"))
        product = written_tensors["L0.q.lr.0.b"] @ written_tensors["L0.q.lr.0.a"]
        expected = 0.5 * (factors["hada_w1_a"] @ factors["hada_w1_b"]) * (factors["hada_w2_a"] @ factors["hada_w2_b"])
        np.testing.assert_allclose(product, expected, atol=1e-5)

    def test_a_magnitude_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "dora_scale"):
            lycoris.convert({"lycoris_model_layers_0_mlp_up_proj.dora_scale": numbers(1, 4)}, CONFIG, "base")


class FactTest(unittest.TestCase):
    def test_the_wide_side_is_four_chunks_of_the_narrow_one(self):
        rank, width = 2, 8
        tensors = {"FacTu.weight": numbers(rank, width), "FacTv.weight": numbers(width, rank)}
        for name in ("q", "k", "v", "proj"):
            tensors[f"blocks.0.attn.{name}_FacTs.weight"] = numbers(rank, rank)
        tensors["blocks.0.mlp.fc1_FacTs.weight"] = numbers(4 * rank, rank)
        tensors["blocks.0.mlp.fc2_FacTs.weight"] = numbers(rank, 4 * rank)
        config, got = written(fact.convert(tensors, 0.5, "base"))
        u, v, x = tensors["FacTu.weight"], tensors["FacTv.weight"], numbers(width)
        inner = tensors["blocks.0.mlp.fc1_FacTs.weight"] @ (u @ x)
        wide = np.concatenate([v @ part for part in np.split(inner, 4)])
        np.testing.assert_allclose(got["L0.fc1.lr.0.b"] @ (got["shared.u"] @ x), wide, rtol=1e-4, atol=1e-4)
        x = numbers(4 * width)
        inner = np.concatenate([u @ part for part in np.split(x, 4)])
        narrow = v @ (tensors["blocks.0.mlp.fc2_FacTs.weight"] @ inner)
        np.testing.assert_allclose(got["shared.v"] @ (got["L0.fc2.lr.0.a"] @ x), narrow, rtol=1e-4, atol=1e-4)
        self.assertEqual(config["sites"]["L0.fc2.lr.0"], {"scale": 0.5, "b": "shared.v"})


class AdaptFormerTest(unittest.TestCase):
    def test_a_trained_scale_wins_over_the_given_one(self):
        prefix = "blocks.0.adaptmlp."
        tensors = {f"{prefix}down_proj.weight": numbers(2, 8), f"{prefix}up_proj.weight": numbers(8, 2)}
        config, got = written(adaptformer.convert(tensors | {f"{prefix}scale": np.float32([0.25])}, 3.0, "base"))
        self.assertEqual(config["sites"]["L0.mlp.bn.0"], {"tap": "r", "act": "relu", "scale": 0.25})
        self.assertEqual(set(got), {f"L0.mlp.bn.0.{name}" for name in ("wd", "bd", "wu", "bu")})
        self.assertEqual(written(adaptformer.convert(tensors, 3.0, "base"))[0]["sites"]["L0.mlp.bn.0"]["scale"], 3.0)
        with self.assertRaisesRegex(SystemExit, "--scale"):
            adaptformer.convert(tensors, None, "base")


class SsfTest(unittest.TestCase):
    def test_a_scale_moves_biases_and_norms(self):
        width, base, tensors = 4, {}, {}
        for name, out in {"attn.c_attn": 12, "attn.c_proj": 4, "mlp.c_fc": 16, "mlp.c_proj": 4}.items():
            base[f"h.0.{name}.bias"] = numbers(out)
        for name in ("h.0.ln_1", "h.0.ln_2", "ln_f"):
            base[f"{name}.weight"], base[f"{name}.bias"] = numbers(width), numbers(width)
        for name, out in {"attn.{}_1": 12, "attn.{}_2": 4, "mlp.{}_1": 16, "mlp.{}_2": 4, "{}_1": 4, "{}_2": 4}.items():
            for part in ("ssf_scale", "ssf_shift"):
                tensors[f"blocks.0.{name.format(part)}"] = numbers(out)
        tensors["ssf_scale_1"], tensors["ssf_shift_1"] = numbers(width), numbers(width)
        _, got = written(ssf.convert(tensors, base, "base"))
        np.testing.assert_allclose(got["L0.fc1.bi.0.b"],
                                   tensors["blocks.0.mlp.ssf_scale_1"] * base["h.0.mlp.c_fc.bias"]
                                   + tensors["blocks.0.mlp.ssf_shift_1"], rtol=1e-5)
        np.testing.assert_allclose(got["normf.nw.0.b"],
                                   tensors["ssf_scale_1"] * base["ln_f.bias"] + tensors["ssf_shift_1"], rtol=1e-5)

    def test_a_shift_without_a_bias_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "no bias"):
            ssf._norm(container.Container("ssf", "base"), "normf", {"n.weight": numbers(4)}, "n", numbers(4),
                      numbers(4))


if __name__ == "__main__":
    unittest.main()
