#!/usr/bin/env python3
"""The open-loop comparison counts what it says, for servers and for a library in process.

Argument: the root.
"""

import pathlib
import sys
import types
import unittest

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else __file__).resolve()
ROOT = ROOT if ROOT.is_dir() else ROOT.parents[2]
sys.path.insert(0, str(ROOT / "load_tests"))

import compare_traces  # noqa: E402
import openvino_peer  # noqa: E402
import peft_peer  # noqa: E402
import replica_model  # noqa: E402
import simulate_check  # noqa: E402

FINISHED = "finished"


class FakeHandle:
    def __init__(self, tokens):
        self.left, self.unread = tokens, 0

    def can_read(self):
        return self.unread > 0

    def read(self):
        count, self.unread = self.unread, 0
        return {0: types.SimpleNamespace(generated_ids=[7] * count)}

    def get_status(self):
        return FINISHED if self.left == 0 and self.unread == 0 else "running"


class FakePipeline:
    """Gives every request a token a step, or ends those of `short` one token early."""

    def __init__(self, short=()):
        self.handles, self.short = {}, short

    def add_request(self, number, prompt, config):
        self.handles[number] = FakeHandle(config - (number in self.short))
        return self.handles[number]

    def step(self):
        for one in self.handles.values():
            if one.left > 0:
                one.left -= 1
                one.unread += 1


def line(at_s, tokens):
    return {
        "at_s": at_s,
        "model": "",
        "tenant": "all",
        "prompt_tokens": 3,
        "output_tokens": tokens,
    }


def replay(pipeline, trace):
    run = openvino_peer.Replay(
        pipeline, lambda count: [0] * count, lambda one: one["output_tokens"], trace
    )
    return run.result(FINISHED)


class ReplayTest(unittest.TestCase):
    def test_requests_come_when_due_and_are_answered_whole(self):
        answer = replay(FakePipeline(), [line(0.0, 2), line(0.0, 5), line(0.05, 1)])
        rows = sorted(answer["rows"], key=lambda row: (row["at_s"], row["output_tokens"]))
        self.assertEqual([row["output_tokens"] for row in rows], [2, 5, 1])
        self.assertEqual({row["end"] for row in rows}, {"completed"})
        self.assertGreaterEqual(answer["duration"], 0.05)
        for row in rows:
            self.assertLessEqual(0, row["sent_ms"])
            self.assertLessEqual(row["sent_ms"], row["ttft_ms"])
            self.assertLessEqual(row["ttft_ms"], row["e2el_ms"])
        self.assertIsNone(rows[2]["tpot_ms"])

    def test_an_answer_that_is_too_short_has_failed(self):
        answer = replay(FakePipeline(short=(0,)), [line(0.0, 4)])
        self.assertEqual(answer["rows"][0]["end"], "failed")


class BatchesTest(unittest.TestCase):
    def test_a_batch_is_what_has_arrived_and_others_wait_for_its_end(self):
        batches, clock = [], [0.0]

        def generate(batch, wrote):
            batches.append([line["output_tokens"] for line in batch])
            for step in range(max(batches[-1])):
                for line in batch:
                    if step < line["output_tokens"]:
                        wrote(line, 1)
            clock[0] += 0.02

        run = peft_peer.Replay(generate, [line(0.0, 3), line(0.0, 1), line(0.01, 2)])
        run.now = lambda: clock[0]
        answer = run.result()
        self.assertEqual(batches, [[3, 1], [2]])
        self.assertEqual({row["end"] for row in answer["rows"]}, {"completed"})
        self.assertAlmostEqual(answer["rows"][2]["ttft_ms"], 10)

    def test_a_batch_has_its_bound(self):
        sizes = []

        def generate(batch, wrote):
            sizes.append(len(batch))
            for one in batch:
                wrote(one, 1)

        answer = peft_peer.Replay(generate, [line(0.0, 1)] * 40).result()
        self.assertEqual(sizes, [peft_peer.MAX_BATCH, 8])
        self.assertEqual(len(answer["rows"]), 40)


class FiguresTest(unittest.TestCase):
    ARGS = types.SimpleNamespace(slo_ttft_ms=100, slo_tpot_ms=10)

    @staticmethod
    def row(ttft_ms, tpot_ms, end="completed"):
        return {"end": end, "ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "output_tokens": 6, "model": ""}

    def test_good_ones_keep_both_limits(self):
        rows = [
            self.row(100, 10),
            self.row(20, None),
            self.row(101, 1),
            self.row(1, 11),
            self.row(None, None, "failed"),
        ]
        figures = compare_traces.summarise(self.ARGS, 2.0, rows)
        self.assertEqual(figures["attainment"], 2 / 5)
        self.assertEqual(figures["goodput"], 1.0)
        self.assertEqual(figures["tok_s"], 12.0)
        self.assertEqual((figures["requests"], figures["failed"]), (5, 1))
        self.assertEqual(figures["ttft_ms_p50"], 60)

    def test_the_page_has_every_row_and_says_who_is_absent(self):
        figures = compare_traces.summarise(self.ARGS, 2.0, [self.row(20, 5)])
        place = {"workload": "base", "rate": 2.0, "server": "polyad", "command": "polyad serve"}
        machine = {"cpu": "c", "cores": 2, "memory_gib": 1, "kernel": "6", "flags": []}
        result = {
            "machine": machine | {"load_average": 0.0, "steal_percent": 0.0},
            "asked": {"scale": 8, "seconds": 20, "seed": 42, "slo_ttft_ms": 1, "slo_tpot_ms": 2},
            "rows": [place | figures],
            "command": "load_tests/compare_traces.py",
            "notes": [],
        }
        text = compare_traces.page(result)
        self.assertIn("| base | 2 | polyad | 100% | 0.50 | 3 | 20 / 20 | 5.0 / 5.0 | 0 |", text)
        self.assertIn("Not in this run: llama.cpp, OpenVINO GenAI, vLLM, PEFT.", text)
        self.assertIn("- base, polyad: `polyad serve`", text)


class CalibrationTest(unittest.TestCase):
    def test_least_squares_finds_what_made_the_values(self):
        rows = [(1.0, float(c), float(a)) for c, a in ((1, 1), (4, 1), (8, 1), (8, 8))]
        found = simulate_check.least_squares(rows, [5 + 2 * c + 0.5 * a for _, c, a in rows])
        for value, expected in zip(found, (5, 2, 0.5)):
            self.assertAlmostEqual(value, expected)

    def test_factors_never_fall(self):
        self.assertEqual(simulate_check.factors([2.0, 1.0, 3.0]), (1.0, 1.0, 1.5))

    def test_the_second_run_of_a_trace_counts(self):
        calibration = replica_model.Calibration(10, 0, 0, 0, 1, 50, 8, 8, 8, 512)
        args = types.SimpleNamespace(replicas=2)
        trace = [line(0.1 * i, 2) | {"model": f"lora-{i % 6}"} for i in range(60)]
        homes = {f"lora-{i}": i % 2 for i in range(6)}
        alone = replica_model.Beside((1.0,), (1.0,))
        figures = simulate_check.predict(args, (calibration, alone), "affine", trace, homes)
        self.assertEqual(figures["hit_rate"], 1.0)
        self.assertEqual(figures["requests"], 60)
        self.assertLess(figures["ttft_p99_ms"], 25)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
