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

import adamix  # noqa: E402
import adaptformer  # noqa: E402
import arrow  # noqa: E402
import base_record  # noqa: E402
import biadapter  # noqa: E402
import bitdelta  # noqa: E402
import command  # noqa: E402
import container  # noqa: E402
import deltas  # noqa: E402
import dylora  # noqa: E402
import fact  # noqa: E402
import glora_supernet  # noqa: E402
import llama_adapter  # noqa: E402
import lycoris  # noqa: E402
import peft_complete  # noqa: E402
import peqa  # noqa: E402
import places  # noqa: E402
import propetl  # noqa: E402
import qalora  # noqa: E402
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


class ArrowTest(unittest.TestCase):
    def test_a_prototype_is_the_main_right_singular_vector(self):
        a, b = numbers(2, 16), numbers(12, 2)
        a[1] *= 0.1
        found = arrow.prototype(a, b, numbers(16))
        main = np.linalg.svd(b @ a)[2][0]
        self.assertAlmostEqual(float(abs(found @ main)), 1.0, places=4)

    def test_a_lora_with_more_than_its_pairs_is_refused(self):
        with tempfile.TemporaryDirectory() as path:
            weights_io.write_json(f"{path}/adapter_config.json", {"peft_type": "LORA", "r": 2, "lora_alpha": 4,
                                                                  "use_dora": True})
            with self.assertRaises(SystemExit):
                arrow.read_lora(path)


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
        np.testing.assert_allclose(tensors["L1.v.kr.0.d"], a.astype(np.float64) @ b, rtol=1e-5)
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


class AdaMixTest(unittest.TestCase):
    def test_experts_are_averaged_and_parts_act_on_their_own_rows(self):
        path, a, b = "transformer.h.0.attn.c_attn", numbers(2, 2, 4), numbers(2, 8, 1)  # two experts of rank 1
        state = {f"{path}.experts_lora_{leaf}.{k}": value[k] for leaf, value in (("A", a), ("B", b)) for k in range(2)}
        state[f"{path}.lora_expert_score_weight"] = np.zeros(2, np.float32)
        tensors, config = adamix.convert(state, 3.0)
        np.testing.assert_allclose(tensors[f"{path}.lora_A.weight"], a.mean(axis=0), rtol=1e-6)
        product = tensors[f"{path}.lora_B.weight"] @ tensors[f"{path}.lora_A.weight"]
        mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
        np.testing.assert_allclose(product[:4], mean_b[:4] @ mean_a[:1], rtol=1e-5)
        np.testing.assert_array_equal(product[4:8], 0)
        np.testing.assert_allclose(product[8:], mean_b[4:] @ mean_a[1:], rtol=1e-5)
        self.assertEqual(config["lora_alpha"] / config["r"], 3.0)

    def test_an_unknown_tensor_is_refused_by_name(self):
        with self.assertRaisesRegex(SystemExit, "c_attn.lora_A"):
            adamix.convert({"c_attn.lora_A": numbers(2, 4)}, 1.0)

    def test_bottleneck_experts_are_one_by_side_and_one_may_be_shared(self):
        soup = "transformer.h.1.mlp.ExpertSoup."
        experts = [numbers(3, 8), numbers(3, 8)]
        state = {f"{soup}MoA_A.deepspeed_experts.{k}.weight": experts[k] for k in range(2)}
        state |= {f"{soup}MoA_A.deepspeed_experts.{k}.bias": numbers(3) for k in range(2)}
        state[f"{soup}MoA_A.expert_score_weight"] = np.log([1, 3]).astype(np.float32)
        state |= {f"{soup}MoA_B.deepspeed_experts.0.weight": numbers(8, 3),
                  f"{soup}MoA_B.deepspeed_experts.0.bias": numbers(8), f"{soup}MoA_B.expert_score_weight": np.zeros(1)}
        config, got = written(adamix.convert_bottlenecks(state, "base"))
        np.testing.assert_allclose(got["L1.mlp.bn.0.wd"], (experts[0] + 3 * experts[1]) / 4, rtol=1e-5)
        np.testing.assert_allclose(got["L1.mlp.bn.0.wu"], state[f"{soup}MoA_B.deepspeed_experts.0.weight"], rtol=1e-6)
        self.assertEqual(config["sites"]["L1.mlp.bn.0"], {"tap": "o", "act": "gelu_new"})
        del state[f"{soup}MoA_A.deepspeed_experts.1.weight"]
        with self.assertRaisesRegex(SystemExit, "1 experts for 2 scores"):
            adamix.convert_bottlenecks(state, "base")


class BiAdapterTest(unittest.TestCase):
    def test_one_bit_is_the_median_of_each_half(self):
        np.testing.assert_allclose(biadapter.codebook(1), [-0.6744898, 0.6744898], atol=1e-6)

    def test_codes_count_from_the_lowest_digit_and_the_head_is_left_out(self):
        statistics = np.float32([0.5, 2.0]).tobytes()
        data = bytes([0b0000_0101]) + statistics + bytes([0xFF]) + statistics + np.zeros(5, np.float32).tobytes()
        _, got = written(biadapter.convert(data, (1, 4, 2), 1, 1.0, "adaptformer", "base"))
        level = 2.0 * 0.6744898
        np.testing.assert_allclose(got["L0.mlp.bn.0.wd"].reshape(-1),
                                   0.5 + level * np.array([1, -1, 1, -1, -1, -1, -1, -1]), rtol=1e-5)

    def test_a_file_that_ends_early_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "ends within"):
            biadapter.convert(bytes(12), (1, 4, 2), 1, 1.0, "adaptformer", "base")


class GloraSupernetTest(unittest.TestCase):
    def test_chosen_paths_become_ops(self):
        module, base = "blocks.0.attn.proj", {"h.0.attn.c_proj.weight": numbers(3, 2), "h.0.attn.c_proj.bias": numbers(2)}
        shapes = {"Ad": (2, 2), "Au": (2, 3), "Bd": (2, 2), "Bu": (2, 3), "Cd": (3, 2), "Cu": (2, 1), "D": (2,), "E": (2,)}
        tensors = {f"{module}.{leaf}": numbers(*shape) for leaf, shape in shapes.items()}
        chosen = {module: {"A": "vector", "B": "LoRA_1", "C": "vector", "D": "none", "E": "constant"}}
        _, got = written(glora_supernet.convert(tensors, chosen, base, "base"))
        np.testing.assert_allclose(got["L0.o.os.0.c"], 1 + tensors[f"{module}.Ad"][:, 0], rtol=1e-6)
        self.assertEqual((got["L0.o.lr.0.b"].shape, got["L0.o.lr.0.a"].shape), ((2, 1), (1, 3)))
        expected = tensors[f"{module}.E"][0] + base["h.0.attn.c_proj.weight"].T @ tensors[f"{module}.Cd"][:, 0]
        np.testing.assert_allclose(got["L0.o.bi.0.delta"], expected, rtol=1e-5)


class LlamaAdapterTest(unittest.TestCase):
    def test_vectors_belong_to_the_last_layers(self):
        tensors = {"adapter_query.weight": numbers(4, 8)} | {f"layers.{i}.attention.gate": numbers(1, 2, 1, 1) for i in range(3)}
        config, got = written(llama_adapter.convert(tensors, 2, "tanh", "base"))
        np.testing.assert_array_equal(got["L2.attn.kv.0.rows"], tensors["adapter_query.weight"][2:])
        np.testing.assert_allclose(got["L1.attn.kv.0.gate"], np.tanh(tensors["layers.1.attention.gate"].reshape(-1)), rtol=1e-6)
        self.assertEqual(set(config["sites"]), {"L1.attn.kv.0", "L2.attn.kv.0"})
        with self.assertRaisesRegex(SystemExit, "no vectors of 3"):
            llama_adapter.convert(tensors, 3, "tanh", "base")


class ProPetlTest(unittest.TestCase):
    def test_the_lowest_scores_are_masked_by_magnitude(self):
        np.testing.assert_array_equal(propetl.mask_of([[-3.0, 0.1], [0.2, -0.1]], 0.5), [[1, 0], [1, 0]])

    def test_several_names_are_tasks(self):
        path = "encoder.layer.0.output"
        state = {f"{path}.adapters.one.{leaf}": numbers(*shape) for leaf, shape in (
            ("adapter_down.0.weight", (2, 4)), ("adapter_down.0.bias", (2,)), ("adapter_up.weight", (4, 2)),
            ("adapter_up.bias", (4,)))}
        for task in ("a", "b"):
            state |= {f"{path}.adapters_mask.{task}.down_mask": numbers(4, 2), f"{path}.adapters_mask.{task}.up_mask": numbers(2, 4)}
        box, names = propetl.convert(state, 0.5, "relu", "base")
        self.assertEqual(names, ["a", "b"])
        self.assertEqual([options["task"] for options in written(box)[0]["sites"].values()], [0, 1])


class QaLoraTest(unittest.TestCase):
    def test_a_run_of_inputs_shares_its_column(self):
        a, path = numbers(2, 3), "model.layers.0.self_attn.q_proj"
        state, config = qalora.convert({f"base_model.model.{path}.lora_A.weight": a,
                                        f"base_model.model.{path}.lora_B.weight": numbers(6, 2)}, 4, 8.0)
        x = numbers(12)
        np.testing.assert_allclose(state[f"{path}.lora_A.weight"] @ x, a @ x.reshape(3, 4).mean(axis=1), rtol=1e-4, atol=1e-5)
        self.assertEqual((config["r"], config["target_modules"]), (2, ["q_proj"]))


class BaseRecordTest(unittest.TestCase):
    def test_writes_a_digest_in_lower_case_beside_the_adapter_and_refuses_anything_else(self):
        with tempfile.TemporaryDirectory() as path:
            base_record.record(path, "AB" * 32, "q4")
            self.assertEqual(weights_io.read_json(f"{path}/polyad_base.json"),
                             {"name": "q4", "weights_sha256": "ab" * 32})
            for wrong in ("ab" * 31, "zz" * 32, ""):
                with self.assertRaises(SystemExit):
                    base_record.record(path, wrong, "")
            with self.assertRaises(SystemExit):
                base_record.record(f"{path}/nothing", "ab" * 32, "")


class PeqaTest(unittest.TestCase):
    def test_new_scales_over_the_same_integers_are_a_scale_a_row_or_a_change_of_each_group(self):
        rows, groups = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
        codes, old, new = numbers(6, 8), 1 + numbers(6, 2) ** 2, 1 + numbers(6, 2) ** 2
        trained = {f"{rows}.scales": new[:, :1], f"{groups}.scales": new, "model.layers.0.mlp.up_proj.scales": old}
        base = {f"{rows}.scales": old[:, :1], f"{groups}.scales": old, "model.layers.0.mlp.up_proj.scales": old}
        for layout in ("rows", "gptq"):
            laid = [{name: value.T if layout == "gptq" else value for name, value in state.items()}
                    for state in (trained, base)]
            config, tensors = written(peqa.convert(*laid, container.Container("peqa", "b", base_sha256="ab" * 32), 4, layout))
            self.assertEqual(config["base"], {"name": "b", "weights_sha256": "ab" * 32})
            self.assertEqual(set(tensors), {"L0.q.os.0.c", "L1.down.hd.0.u", "L1.down.hd.0.v"})
            weight = old[:, :1] * codes
            np.testing.assert_allclose(tensors["L0.q.os.0.c"][:, None] * weight, new[:, :1] * codes, rtol=1e-5)
            weight = np.repeat(old, 4, axis=1) * codes
            change = weight * (tensors["L1.down.hd.0.v"] @ tensors["L1.down.hd.0.u"])
            np.testing.assert_allclose(weight + change, np.repeat(new, 4, axis=1) * codes, rtol=1e-4, atol=1e-6)
        for spoiled in ({f"{rows}.weight": new}, {f"{rows}.scales": 0 * new[:, :1]}, {f"{rows}.scales": new},
                        {"model.layers.3.mlp.up_proj.scales": new}):
            with self.assertRaises(SystemExit):
                peqa.convert(spoiled, base, container.Container("peqa", "b"), 4)


class CommandTest(unittest.TestCase):
    def test_a_state_of_safetensors_is_read_and_an_option_without_a_default_is_asked_for(self):
        with tempfile.TemporaryDirectory() as path:
            weights_io.write_safetensors(f"{path}/x.safetensors", {"a": weights_io.encode(np.ones(3), "BF16")})
            np.testing.assert_array_equal(command.read_state(f"{path}/x.safetensors")["a"], np.ones(3))
        sys.argv[1:] = ["in", "--base", "b"]
        args = command.arguments("doc", "state", base=str, scale=(float, 2.0), gate=["tanh", "raw"])
        self.assertEqual((args.state, args.base, args.scale, args.gate), ("in", "b", 2.0, "tanh"))
        sys.argv[1:] = []


if __name__ == "__main__":
    unittest.main()
