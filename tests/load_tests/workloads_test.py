#!/usr/bin/env python3
"""The workloads are the published ones draw for draw, and the others what they say.

Argument: the root.

The figures of numpy are kept from numpy 2 itself (numpy.random.seed and Generator(PCG64)), those of
the papers from their programs: neither from numpy_random.py.
"""

import collections
import json
import math
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else __file__).resolve()
ROOT = ROOT if ROOT.is_dir() else ROOT.parents[2]
sys.path.insert(0, str(ROOT / "load_tests"))

import numpy_random  # noqa: E402
import workloads  # noqa: E402

SKEWED = {
    1024: [291, 194, 157, 129, 86, 57, 38, 25, 17, 11, 7, 5, 3, 2, 1, 1],
    64: [17, 17, 11, 7, 5, 3, 2, 1, 1],
    32: [11, 7, 5, 3, 2, 2, 1, 1],
}


def made(*arguments):
    return list(workloads.make(workloads.parse_args(arguments)))


def counts(trace, key):
    return collections.Counter(one[key] for one in trace)


class NumpyTest(unittest.TestCase):
    def assert_close(self, drawn, kept):
        self.assertEqual(len(drawn), len(kept))
        for one, other in zip(drawn, kept):
            self.assertTrue(math.isclose(one, other, rel_tol=1e-12), (drawn, kept))

    def test_legacy_draws_what_numpy_draws_after_seed_42(self):
        rng = numpy_random.Legacy(42)
        self.assert_close(
            rng.power(0.3, 4),
            [0.03787283477484421, 0.844954709348313, 0.3534746629997689, 0.18082722004447113],
        )
        self.assertEqual(rng.randint(8, 512, 6), [110, 129, 474, 222, 338, 466])
        self.assert_close(
            rng.gamma(1 / 16, 8, 4),
            [0.8031367420410535, 0.03193996184385789, 6.098987719901365, 1.366374954022556e-10],
        )
        self.assert_close(rng.gamma(1, 0.5, 2), [0.10130571141612853, 0.18137686473023856])
        self.assert_close(
            rng.gamma(4, 0.1, 4),
            [0.059425309502106755, 0.5804156252043868, 0.29065783812108226, 0.24208738889340298],
        )

    def test_generator_draws_what_pcg64_draws_tails_included(self):
        rng = numpy_random.Generator(workloads.PUNICA_SEED)
        normals = [rng.normal() for _ in range(200_000)]
        self.assert_close(normals[:3], [0.4296684712337837, 0.29046307501649143, 1.089746230162392])
        self.assertAlmostEqual(sum(normals), -314.38081673696485, places=8)
        self.assertAlmostEqual(max(map(abs, normals)), 5.240279448909492, places=12)
        self.assertEqual(rng.integers(0, 2048, 5), [360, 1691, 873, 761, 357])
        items = list(range(12))
        rng.shuffle(items)
        self.assertEqual(items, [0, 11, 10, 8, 3, 4, 6, 1, 7, 9, 5, 2])


class SLoraTest(unittest.TestCase):
    def test_the_first_adapters_have_the_published_shares(self):
        published = {
            0.1: (0.589, 0.741), 0.3: (0.204, 0.407), 0.6: (0.042, 0.166), 1: (0.005, 0.05),
        }
        for alpha, (first, ten) in published.items():
            trace = workloads.slora(200, alpha, rate=100, duration=300)
            asked = counts(trace, "model")
            for k, share in ((1, first), (10, ten)):
                found = sum(asked[i] for i in range(k)) / len(trace)
                noise = 5 * math.sqrt(share * (1 - share) / len(trace)) + 0.0005  # and rounding
                self.assertAlmostEqual(found, share, delta=noise, msg=f"alpha {alpha}, first {k}")

    def test_order_of_draws_and_totals(self):
        trace = workloads.slora(200, 0.3, 2, 4, 300)
        self.assertEqual(len(trace), 600)
        draws = numpy_random.Legacy(42).power(0.3, 600)
        self.assertEqual([one["model"] for one in trace], [int(200 * x) for x in draws])
        # From numpy itself.
        self.assertEqual((trace[0]["prompt_tokens"], trace[0]["output_tokens"]), (12, 410))
        self.assertEqual((trace[-1]["prompt_tokens"], trace[-1]["output_tokens"]), (388, 489))
        self.assertAlmostEqual(trace[-1]["at_s"], 353.7552165951454, places=9)

    def test_gaps_have_the_mean_and_the_variation_asked_for(self):
        for cv in (1, 2, 4):
            trace = workloads.slora(5, 1.0, rate=50, cv=cv, duration=1000)
            times = [0.0] + [one["at_s"] for one in trace]
            gaps = [b - a for a, b in zip(times, times[1:])]
            mean = sum(gaps) / len(gaps)
            deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
            self.assertAlmostEqual(mean * 50, 1, delta=5 * cv / math.sqrt(len(gaps)))
            self.assertAlmostEqual(deviation / mean / cv, 1, delta=0.1)

    def test_satisfaction_falls_to_nothing_at_six_seconds(self):
        found = [workloads.slora_satisfaction(t) for t in (0, 3, 6, 7, None)]
        self.assertEqual(found, [1, 0.75, 0, 0, 0])


class PunicaTest(unittest.TestCase):
    def test_popularities(self):
        for count, skewed in SKEWED.items():
            self.assertEqual(workloads.punica_counts(count, "skewed"), skewed)
            self.assertEqual(workloads.punica_counts(count, "identical"), [count])
            self.assertEqual(workloads.punica_counts(count, "distinct"), [1] * count)
        self.assertEqual(workloads.punica_counts(1024, "uniform"), [32] * 32)
        self.assertEqual(workloads.punica_counts(32, "uniform"), [6, 6, 5, 5, 5, 5])
        with self.assertRaises(ValueError):
            workloads.punica_counts(32, "zipf")

    def test_lengths_and_assignment_are_numpys(self):
        trace = workloads.punica("skewed")
        self.assertEqual(sorted(counts(trace, "model").values(), reverse=True), SKEWED[1024])
        lengths = [(one["prompt_tokens"], one["output_tokens"]) for one in trace]
        self.assertEqual(lengths[:4], [(24, 796), (21, 673), (42, 904), (8, 111)])
        self.assertEqual([sum(x) for x in zip(*lengths)], [23614, 1034920])
        distinct = [one["model"] for one in workloads.punica("distinct")]
        self.assertEqual(distinct[:5], [865, 977, 109, 162, 694])


class OthersTest(unittest.TestCase):
    def test_the_noisy_tenant_sends_fifty_times_the_others_and_does_not_change_them(self):
        trace = workloads.noisy(adapters=4, rate=2, duration=200)
        sent = counts(trace, "tenant")
        quiet = sum(sent[i] for i in (1, 2, 3)) / 3
        self.assertAlmostEqual(sent[0] / quiet, 50, delta=8)
        alone = [one for one in workloads.noisy(2, 2, 200) if one["tenant"] == 1]
        self.assertEqual([one for one in trace if one["tenant"] == 1], alone)

    def test_thrash_never_asks_for_an_adapter_that_lru_still_holds(self):
        held = collections.OrderedDict()
        for one in workloads.thrash(slots=4, rate=10, duration=10):
            self.assertNotIn(one["model"], held)
            held[one["model"]] = None
            if len(held) > 4:
                held.popitem(last=False)

    def test_a_flash_crowd_is_twenty_times_as_much_for_one_adapter(self):
        trace = workloads.flash(adapters=8, rate=20, duration=90)
        inside = [one for one in trace if 31 <= one["at_s"] < 60]
        outside = [one for one in trace if one["at_s"] < 30 or one["at_s"] >= 60]
        self.assertAlmostEqual(len(inside) / 29 / (len(outside) / 60), 20, delta=2.5)
        self.assertGreater(counts(inside, "model")[0] / len(inside), 0.9)
        self.assertLess(counts(outside, "model")[0] / len(outside), 0.2)

    def test_shares_of_slow_readers_and_cancels(self):
        trace = workloads.slow(rate=100, duration=60)
        paused = [one for one in trace if "read_pause_ms" in one]
        self.assertAlmostEqual(len(paused) / len(trace), 0.1, delta=0.02)
        trace = workloads.cancels(rate=100, duration=60)
        cut = [one for one in trace if "cancel_after_tokens" in one]
        self.assertAlmostEqual(len(cut) / len(trace), 0.3, delta=0.03)
        for one in cut:
            self.assertLess(one["cancel_after_tokens"], one["output_tokens"])

    def test_a_day_is_quiet_at_its_ends(self):
        trace = workloads.diurnal(rate=100, duration=100)
        middle = sum(45 <= one["at_s"] < 55 for one in trace)
        ends = sum(one["at_s"] < 5 or one["at_s"] >= 95 for one in trace)
        self.assertAlmostEqual(middle, 990, delta=160)
        self.assertAlmostEqual(ends, 205, delta=75)

    def test_prefixes_are_whole_system_prompts_even_scaled(self):
        for one in made("prefix", "--scale", "8"):
            self.assertEqual(one["prefix_tokens"], 32)
            self.assertGreater(one["prompt_tokens"], 32)

    def test_zipf_counts_fall_as_one_over_rank(self):
        asked = counts(workloads.zipf(adapters=1000, rate=1000, duration=60), "model")
        harmonic = sum(1 / (i + 1) for i in range(1000))
        for i in (0, 1, 9):
            expected = 60000 / harmonic / (i + 1)
            self.assertAlmostEqual(asked[i], expected, delta=5 * math.sqrt(expected))


class LinesTest(unittest.TestCase):
    def test_every_workload_writes_rising_lines_equal_for_equal_arguments(self):
        for name in workloads.WORKLOADS:
            short = ["--count", "64"] if name == "punica" else ["--duration", "20"]
            trace = made(name, "--scale", "8", *short)
            self.assertEqual(trace, made(name, "--scale", "8", *short))
            self.assertGreater(len(trace), 5, name)
            times = [one["at_s"] for one in trace]
            self.assertEqual(times, sorted(times), name)
            for one in trace:
                self.assertGreaterEqual(min(one["prompt_tokens"], one["output_tokens"]), 1)
                self.assertRegex(one["model"], r"^lora-\d\d+$")

    def test_scaled_lengths_of_s_lora_are_those_of_two_cores(self):
        lengths = [one["prompt_tokens"] for one in made("slora", "--scale", "8", "--rate", "20")]
        self.assertEqual((min(lengths), max(lengths)), (1, 63))

    def test_the_program_writes_json_lines_and_refuses_nonsense(self):
        program = [sys.executable, str(ROOT / "load_tests/workloads.py"), "slora"]
        ran = subprocess.run([*program, "--duration", "5"], capture_output=True, text=True)
        self.assertEqual(len([json.loads(line) for line in ran.stdout.splitlines()]), 10)
        for flags in (["--rate", "0"], ["--scale", "0"], ["--rate", "1e9"], ["--rate", "nan"]):
            refused = subprocess.run([*program, *flags], capture_output=True)
            self.assertEqual(refused.returncode, 2, flags)


if __name__ == "__main__":
    unittest.main()
