#!/usr/bin/env python3
"""The load tests measure what they say and notice what they look for. Argument: the root."""

import asyncio
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else __file__).resolve()
ROOT = ROOT if ROOT.is_dir() else ROOT.parents[2]
sys.path.insert(0, str(ROOT / "load_tests"))

import bitdelta  # noqa: E402
import fairness  # noqa: E402
import load  # noqa: E402
import report  # noqa: E402
import servers  # noqa: E402
import swapping  # noqa: E402

FAKE = str(ROOT / "tests/load_tests/fake_polyad.py")


def stream_of(pieces):
    """A finished stream whose pieces arrived one second apart, the first after one second."""
    stream = load.Stream(b"", asyncio.new_event_loop().create_future())
    stream.started = 0.0
    stream.pieces = pieces
    stream.times = [float(i + 1) for i in range(len(pieces))]
    return stream


class FairnessTest(unittest.TestCase):
    def test_jains_index_is_one_over_equals_and_the_share_of_those_served(self):
        self.assertAlmostEqual(fairness.jain_index([3, 3, 3]), 1.0)
        self.assertAlmostEqual(fairness.jain_index([5, 0, 0, 0]), 0.25)

    def test_a_tenants_arrivals_do_not_depend_on_who_else_there_is(self):
        alone = fairness.arrivals({"a": 5.0}, 10, 1)
        beside = fairness.arrivals({"a": 5.0, "b": 250.0}, 10, 1)
        self.assertEqual(alone, [one for one in beside if one[1] == "a"])
        self.assertGreater(len(beside), 40 * len(alone))
        self.assertEqual(beside, sorted(beside))

    def test_only_tokens_of_the_time_count_and_refusals_are_no_failures(self):
        text = b'data: {"choices":[{"text":"a"}]}\n\n'
        stream = stream_of([ReadAnswerTest.HEAD, text, text, ReadAnswerTest.END])
        refused = stream_of([b"HTTP/1.1 429 Too Many Requests\r\n\r\n"])
        sent = [fairness.Sent("a", stream), fairness.Sent("a", refused)]
        self.assertEqual(fairness.tokens_within(sent, 2.5), {"a": 1})
        times = fairness.times_of(sent, ["a"])
        self.assertEqual((times["answers"], times["refused"], times["failed"]), (1, 1, 0))


class ReadAnswerTest(unittest.TestCase):
    HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
    END = b'data: {"choices":[],"usage":{"completion_tokens": 5}}\n\ndata: [DONE]\n\n'

    def test_counts_tokens_by_usage_and_times_by_text_events(self):
        pieces = [
            self.HEAD,
            b'data: {"choices":[{"text":"a"}]}\n\n',
            b'data: {"choices":[{"text":"b"}]}\n\ndata: {"choices":[{"text":"c"}]}\n\n',
            b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n' + self.END,
        ]
        answer = load.read_answer(stream_of(pieces))
        self.assertEqual(answer.error, "")
        self.assertEqual(answer.tokens, 5)
        self.assertEqual(answer.ttft_ms, 2000.0)
        self.assertEqual(answer.gaps_ms, [1000.0, 0.0])

    def test_an_event_cut_in_two_arrives_with_its_second_half(self):
        pieces = [self.HEAD, b'data: {"choices":[{"te', b'xt":"a"}]}\n\n' + self.END]
        self.assertEqual(load.read_answer(stream_of(pieces)).ttft_ms, 3000.0)

    def test_a_stream_without_its_end_is_an_error(self):
        pieces = [self.HEAD, b'data: {"choices":[{"text":"a"}]}\n\n']
        self.assertNotEqual(load.read_answer(stream_of(pieces)).error, "")

    def test_an_error_status_is_an_error(self):
        pieces = [b"HTTP/1.1 429 Too Many Requests\r\n\r\ndata: [DONE]"]
        self.assertIn("429", load.read_answer(stream_of(pieces)).error)


class LoadTest(unittest.TestCase):
    def test_distinct_gives_every_concurrent_request_its_own_adapter(self):
        names = tuple(f"lora-{i:02d}" for i in range(32))
        ask = load.Load(url="", requests=32, adapters="distinct", adapter_names=names)
        bodies = [load.make_body(ask, i, load.random.Random(1)) for i in range(32)]
        self.assertEqual({body["model"] for body in bodies}, set(names))

    def test_power_asks_for_the_first_k_as_often_as_their_share_to_alpha(self):
        for alpha, first_ten in ((1.0, 0.05), (0.3, 0.407)):
            ask = load.Load(url="", adapters="power", alpha=alpha, adapter_names=tuple(range(200)))
            rng = load.random.Random(1)
            picks = [load.choose_adapter(ask, i, rng) for i in range(20000)]
            self.assertAlmostEqual(sum(p < 10 for p in picks) / 20000, first_ten, delta=0.01)
            self.assertEqual((min(picks), max(picks)), (0, 199))

    def test_lengths_are_drawn_for_each_request(self):
        ask = load.Load(url="", lengths=(8, 12))
        bodies = [load.make_body(ask, i, load.random.Random(i)) for i in range(50)]
        self.assertEqual({len(body["prompt"]) for body in bodies}, {8, 9, 10, 11})
        self.assertEqual({body["max_tokens"] for body in bodies}, {8, 9, 10, 11})

    def test_percentiles_interpolate(self):
        self.assertEqual(load.percentile([3.0, 1.0, 2.0, 4.0], 50), 2.5)
        self.assertEqual(load.percentile([1.0, 2.0], 99), 1.99)

    def test_a_closed_loop_counts_every_token_and_every_refusal(self):
        server = servers.Polyad(FAKE, "none", os.devnull)
        server.start()
        try:
            ask = load.Load(url="", requests=6, concurrency=3, gen_tokens=7, prompt_tokens=4)
            result = server.run(ask)
            self.assertEqual(
                (result["errors"], result["requests"]), (6, 0)
            )  # ids past the vocabulary
            load.FIRST_PROMPT_ID, load.LAST_PROMPT_ID = 3, 300
            result = server.run(ask)
            self.assertEqual((result["errors"], result["gen_tokens"]), (0, 42))
        finally:
            load.FIRST_PROMPT_ID, load.LAST_PROMPT_ID = 1000, 20000
            server.stop()


class ReportTest(unittest.TestCase):
    def test_a_ratio_is_against_the_best_rival_and_the_own_base(self):
        setting = {"key": "k", "title": "t", "floor": 5.0}
        rows = [
            {"setting": "k", "server": name, "gen_tok_s": rate}
            for name, rate in (("polyad", 60.0), ("polyad base", 80.0), ("a", 10.0), ("b", 15.0))
        ]
        result = {"settings": [setting], "rows": rows, "own_base_floor": 0.7}
        lines = report.ratio_table(result)
        self.assertEqual(lines[2], "| t | 60.0 | b | 15.0 | 4.00 | 5.00 | NO |")
        self.assertEqual(
            lines[3], "| t, against its own base | 60.0 | polyad base | 80.0 | 0.75 | 0.70 | yes |"
        )


class BitDeltaTest(unittest.TestCase):
    FIGURES = {"gen_tok_s": 0.0, "itl_p50_ms": 0.0, "resident_bytes": 0.0}

    def result(self, **changed):
        result = {"bandwidth": 20e9, "packed_bytes": 12.5e6}
        result["base"] = {**self.FIGURES, "itl_p50_ms": 10.0}
        result["tenants"] = {"gen_tok_s": 800.0, "itl_p50_ms": 20.0, "resident_bytes": 0.5e9}
        return {**result, **changed}

    def test_a_step_is_bound_by_the_base_and_by_reading_every_tenant(self):
        ((_, value, limit, holds, _),) = bitdelta.limits_of(self.result())
        self.assertEqual((value, holds), (20.0, True))
        self.assertAlmostEqual(limit, 1.15 * (10.0 + 10.0))

    def test_copies_make_the_tokens_of_one_in_the_memory_of_all_and_the_best_peer_counts(self):
        copy = {**self.FIGURES, "gen_tok_s": 80.0, "resident_bytes": 0.25e9}
        peers = {f"processes-{n}": {**self.FIGURES, "gen_tok_s": n * 500.0} for n in (1, 2)}
        rows = bitdelta.limits_of(self.result(copy=copy, **peers))
        self.assertAlmostEqual(rows[1][1], (800 / 0.5) / (80 / 4.0))
        self.assertTrue(rows[1][3])
        self.assertAlmostEqual(rows[2][1], 0.8)
        self.assertFalse(rows[2][3])

    def test_a_tenant_differs_from_its_model_in_signs_alone(self):
        header = b'{"a.bits":{"dtype":"I32","shape":[8],"data_offsets":[0,32]},'
        header += b'"a.coef":{"dtype":"F32","shape":[1],"data_offsets":[32,36]}}'
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "zoo.safetensors"
            whole = len(header).to_bytes(8, "little") + header + bytes(36)
            path.write_bytes(whole)
            bitdelta.turn_signs(path, seed=3)
            turned = path.read_bytes()
        self.assertEqual((turned[: -36], turned[-4:]), (whole[:-36], bytes(4)))
        self.assertNotEqual(turned[-36:-4], bytes(32))


class SwappingTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for rank, count in ((8, 2), (64, 1)):
            for i in range(count):
                lora = pathlib.Path(self.folder.name) / f"rank-{rank}" / f"lora-{i}"
                lora.mkdir(parents=True)
                (lora / "adapter_config.json").write_text(f'{{"r": {rank}}}')
                (lora / "adapter_model.safetensors").write_bytes(bytes(1 << 20))

    def run_on_fake(self, miss_seconds):
        return subprocess.run(
            [sys.executable, str(ROOT / "load_tests/swapping.py"), "--polyad", FAKE]
            + ["--model", "none", "--loras", self.folder.name, "--few", "2"]
            + ["--fitting", "4", "--many", "12", "--lengths", "2", "6", "--requests", "24"]
            + ["--concurrency", "4", "--rounds", "1", "--miss-probes", "6"],
            env={**os.environ, "FAKE_POLYAD_MISS_SECONDS": miss_seconds},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_ranks_take_turns(self):
        found = swapping.find_loras(pathlib.Path(self.folder.name))
        self.assertEqual([lora.parts[0] for lora in found], ["rank-64", "rank-8"] * 2)

    def test_misses_are_counted_timed_and_held_to_the_limits(self):
        done = self.run_on_fake("0.05")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("memory for adapters: 4 MiB", done.stdout)
        report = [line for line in done.stdout.splitlines() if line.startswith("| ")]
        alpha, _, _, _, missed, *_ = report[-1].strip("| ").split(" | ")
        self.assertEqual(alpha, "1.0")
        self.assertGreater(int(missed.rstrip("%")), 30)
        probed = done.stdout.splitlines()[-1]
        self.assertIn("ms swapped out", probed)
        self.assertGreater(float(probed.split(": ")[1].split(" ms")[0]), 50)


class ChurnTest(unittest.TestCase):
    def churn(self, fault, settle_seconds):
        return subprocess.run(
            [sys.executable, str(ROOT / "load_tests/churn.py"), "--polyad", FAKE, "--count", "300"]
            + ["--settle-seconds", settle_seconds],
            env={**os.environ, "FAKE_POLYAD_FAULT": fault},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_a_clean_server_passes(self):
        done = self.churn("", "30")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_kept_block_a_kept_descriptor_and_a_changed_answer_fail(self):
        for fault, sign in (
            ("leak_block", "K/V blocks"),
            ("leak_descriptor", "descriptors"),
            ("unstable", "reference completion"),
        ):
            with self.subTest(fault):
                done = self.churn(fault, "1")
                self.assertEqual(done.returncode, 1)
                self.assertIn(sign, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
