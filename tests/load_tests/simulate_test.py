#!/usr/bin/env python3
"""The model of replicas against what queueing theory and caching theory say of it.

Argument: the root.
"""

import json
import math
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else __file__).resolve()
ROOT = ROOT if ROOT.is_dir() else ROOT.parents[2]
sys.path.insert(0, str(ROOT / "load_tests"))

import replica_model  # noqa: E402
import simulate  # noqa: E402
import workloads  # noqa: E402

BASE = {
    "step_ms": 10.0,
    "row_ms": 0.0,
    "token_ms": 0.0,
    "adapter_ms": 0.0,
    "host_ms": 0.0,
    "disk_ms": 0.0,
    "slots": 1000,
    "host_slots": 0,
    "rows": 1,
    "step_tokens": 1,
}


def setup(count=1, routing="affine", homes=None, beside=None, **fields):
    calibration = replica_model.Calibration(**(BASE | fields))
    return replica_model.Setup(calibration, count, routing, homes=homes, beside=beside)


def poisson_trace(rate, count, seed, adapters=1, output=1):
    rng = random.Random(seed)
    at_s, lines = 0.0, []
    for _ in range(count):
        at_s += rng.expovariate(rate)
        lines.append(workloads.request(at_s, rng.randrange(adapters), 1, output))
    return lines


def zipf_trace(adapters, count, seed):
    """One request at a time: far apart beside the times of BASE."""
    rng = random.Random(seed)
    weights = [1 / (i + 1) for i in range(adapters)]
    drawn = rng.choices(range(adapters), weights, k=count)
    return [workloads.request(i * 1.0, one, 1, 1) for i, one in enumerate(drawn)]


def run_warm(lines, one):
    """The lines after 100 s, when every adapter of theirs is in memory. -> (their times, seconds)"""
    adapters = sorted({line["model"] for line in lines})
    warm = [workloads.request(float(i), adapter, 1, 1) for i, adapter in enumerate(adapters)]
    late = [line | {"at_s": line["at_s"] + 100} for line in lines]
    requests, _, seconds = replica_model.run(warm + late, one)
    times = [((r.first - 100) * 1e3, (r.end - 100) * 1e3) for r in requests[len(warm) :]]
    return times, seconds - 100


def waits_ms(requests, service_ms):
    return [(one.first - one.at) * 1e3 - service_ms for one in requests]


def batch_means(values, batches=40):
    """-> (mean, its standard error), of values that depend on their neighbours."""
    size = len(values) // batches
    means = [statistics.fmean(values[i * size : (i + 1) * size]) for i in range(batches)]
    return statistics.fmean(means), statistics.stdev(means) / math.sqrt(batches)


def che_hit_ratio(weights, slots):
    """Che, Tung, Wang 2002: an item is in an LRU cache for a time t that is the same for all."""
    total = sum(weights)
    rates = [weight / total for weight in weights]
    low, high = 0.0, 1e9
    for _ in range(200):
        t = (low + high) / 2
        held = sum(-math.expm1(-rate * t) for rate in rates)
        low, high = (t, high) if held < slots else (low, t)
    return sum(rate * -math.expm1(-rate * t) for rate in rates)


class QueueTest(unittest.TestCase):
    def assert_mean(self, values, expected):
        mean, error = batch_means(values)
        self.assertLess(error, 0.03 * expected)
        self.assertLess(abs(mean - expected), 4 * error, (mean, expected, error))

    def test_one_row_is_an_m_d_1_queue(self):
        for load in (0.3, 0.6):
            trace = poisson_trace(load * 100, 50_000, seed=7)
            requests, _, _ = replica_model.run(trace, setup())
            # Pollaczek and Khinchine, of a service that always takes 10 ms.
            self.assert_mean(waits_ms(requests, 10), load * 10 / (2 * (1 - load)))

    def test_replicas_chosen_at_random_are_m_d_1_queues_each(self):
        trace = poisson_trace(4 * 60, 50_000, seed=8)
        requests, _, _ = replica_model.run(trace, setup(4, "random"))
        self.assert_mean(waits_ms(requests, 10), 0.6 * 10 / (2 * 0.4))

    def test_of_equal_services_turns_wait_least_and_chance_most(self):
        trace = poisson_trace(4 * 80, 24_000, seed=9)
        mean = {}
        for routing in ("random", "robin", "least"):
            requests, _, _ = replica_model.run(trace, setup(4, routing))
            mean[routing] = statistics.fmean(waits_ms(requests, 10))
        # The replica whose turn it is has had its last request for longest: it has the least work.
        self.assertLess(mean["robin"], 0.95 * mean["least"])
        self.assertLess(mean["least"], 0.5 * mean["random"])

    def test_a_batch_takes_what_its_rows_tokens_and_adapters_take(self):
        fields = {"row_ms": 2.0, "token_ms": 0.5, "adapter_ms": 3.0, "front_ms": 7.0}
        lines = [workloads.request(0.0, i % 2, 6, 5) for i in range(4)]
        sized = setup(rows=4, step_tokens=24, **fields)
        # All arrive at once, the first begins alone; the others join its second step.
        times, seconds = run_warm(lines, sized)
        first = 10 + 6 * 0.5 + 3
        second = first + 10 + 2 + 3 * 6 * 0.5 + 2 * 3
        self.assertAlmostEqual(times[0][0], first + 7)
        self.assertAlmostEqual(times[3][0], second + 7)
        third_to_fifth = 3 * (10 + 4 * 2 + 2 * 3)
        self.assertAlmostEqual(times[0][1], second + third_to_fifth)
        # The first one's last step was the fifth: three rows of two adapters are left for one more.
        self.assertAlmostEqual(seconds * 1e3, second + third_to_fifth + 10 + 3 * 2 + 2 * 3)

    def test_rows_and_step_tokens_bound_a_step(self):
        lines = [workloads.request(0.0, 0, 6, 1) for _ in range(5)]
        ends = lambda **fields: sorted(round(end) for _, end in run_warm(lines, setup(**fields))[0])
        self.assertEqual(ends(rows=8, step_tokens=12), [10, 20, 20, 30, 30])
        self.assertEqual(ends(rows=3, step_tokens=100), [10, 20, 20, 20, 30])
        self.assertEqual(ends(rows=8, step_tokens=1), [10, 20, 30, 40, 50])

    def test_replicas_that_share_a_core_slow_each_other_down_while_both_step(self):
        lines = [workloads.request(0.005 * i, i, 1, 1) for i in range(2)]
        one_core = replica_model.Beside((1.0, 2.0), (1.0,))
        requests, fleet, seconds = replica_model.run(
            lines, setup(2, homes={0: 0, 1: 1}, beside=one_core)
        )
        # Half of each step beside the other's, at half the speed.
        self.assertAlmostEqual(requests[0].end, 0.015)
        self.assertAlmostEqual(requests[1].end, 0.020)
        self.assertAlmostEqual(seconds, 0.020)
        self.assertAlmostEqual(sum(one.busy_s for one in fleet), 0.030)

    def test_a_read_takes_longer_while_its_replica_steps(self):
        # The second's adapter is read beside the first's steps, at a third of the speed.
        lines = [workloads.request(0.0, 0, 1, 9), workloads.request(0.025, 1, 1, 1)]
        slow = setup(rows=2, disk_ms=5.0, busy_read=3.0)
        requests, _, _ = replica_model.run(lines, slow)
        self.assertAlmostEqual(requests[0].first, 0.015)
        # 10 of 15 ms by the end of the step at 35 ms; it is ready at 40, and joins at 45.
        self.assertAlmostEqual(requests[1].first, 0.055)

    def test_known_homes_come_before_hashing(self):
        lines = [workloads.request(0.1 * i, i, 1, 1) for i in range(8)]
        for routing in ("affine", "bounded"):
            requests, _, _ = replica_model.run(lines, setup(4, routing, {i: 3 for i in range(6)}))
            self.assertEqual([one.replica for one in requests][:6], [3] * 6)


class MemoryTest(unittest.TestCase):
    ADAPTERS, COUNT, WARM = 1000, 24_000, 6_000

    def setUp(self):
        self.trace = zipf_trace(self.ADAPTERS, self.COUNT, seed=3)
        self.weights = [1 / (i + 1) for i in range(self.ADAPTERS)]

    def assert_hits(self, hits, expected):
        # Four standard errors, and the half of a per cent that the approximation may be off.
        error = math.sqrt(expected * (1 - expected) / len(hits))
        self.assertLess(abs(statistics.fmean(hits) - expected), 4 * error + 0.005)

    def test_hits_are_those_of_che_s_approximation(self):
        for slots in (10, 100, 400):
            requests, _, _ = replica_model.run(self.trace, setup(slots=slots))
            hits = [one.hit for one in requests[self.WARM :]]
            self.assert_hits(hits, che_hit_ratio(self.weights, slots))

    def test_memory_and_host_together_are_one_cache(self):
        tiers = setup(slots=50, host_slots=150, host_ms=1.0, disk_ms=50.0)
        requests, _, _ = replica_model.run(self.trace, tiers)
        late = requests[self.WARM :]
        first_ms = [round((one.first - one.at) * 1e3) for one in late]
        self.assertEqual(set(first_ms), {10, 11, 60})
        self.assert_hits([one == 10 for one in first_ms], che_hit_ratio(self.weights, 50))
        self.assert_hits([one <= 11 for one in first_ms], che_hit_ratio(self.weights, 200))

    def test_affinity_makes_one_large_memory_of_many_small_ones(self):
        hits = {}
        for routing in ("robin", "affine"):
            requests, fleet, _ = replica_model.run(self.trace, setup(4, routing, slots=50))
            hits[routing] = [one.hit for one in requests[self.WARM :]]
            if routing == "affine":
                shared = set.intersection(*(set(one.memory.resident) for one in fleet))
                self.assertEqual(shared, set())
        self.assert_hits(hits["robin"], che_hit_ratio(self.weights, 50))
        # Each has a quarter of the adapters, and as many hits as its share of one of 200 would.
        expected = che_hit_ratio(self.weights, 200)
        self.assertLess(abs(statistics.fmean(hits["affine"]) - expected), 0.02)

    def test_what_a_request_uses_is_not_swapped_out(self):
        lines = [workloads.request(0.0, 0, 1, 50), workloads.request(0.1, 1, 1, 1)]
        requests, (one,), _ = replica_model.run(lines, setup(slots=1, rows=2, host_ms=1.0))
        self.assertGreaterEqual(requests[1].first, requests[0].end)
        self.assertEqual(one.reads, {"host": 0, "disk": 2})
        self.assertEqual(list(one.memory.resident), [1])

    def test_a_bound_on_load_moves_a_crowd_s_overflow(self):
        lines = [workloads.request(0.0, 0, 1, 100) for _ in range(40)]
        for routing, most in (("affine", 40), ("bounded", 13)):
            requests, _, _ = replica_model.run(lines, setup(4, routing, rows=64))
            served = [sum(one.replica == i for one in requests) for i in range(4)]
            self.assertEqual(max(served), most, served)


class ProgramTest(unittest.TestCase):
    def run_program(self, calibration, *flags):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "calibration.json"
            path.write_text(json.dumps(calibration), encoding="utf-8")
            out = pathlib.Path(folder) / "out.json"
            done = subprocess.run(
                [sys.executable, ROOT / "load_tests/simulate.py", "--calibration", path]
                + ["--json", out, *flags],
                capture_output=True,
                text=True,
                check=False,
            )
            found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else None
            return done, found

    def test_equal_seeds_give_equal_tables_with_a_row_of_each_setup(self):
        measured = BASE | {
            "rows": 32,
            "step_tokens": 512,
            "disk_ms": 100.0,
            "replica_per_hour": 1.0,
        }
        flags = "--replicas 2 4 --slots 20 80 --adapters 200 --rate 20 --duration 20 --scale 16"
        flags = flags.split() + ["--slo-ttft-ms", "1000000"]
        done, results = self.run_program(measured, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(results), 2 * 2 * len(replica_model.ROUTINGS))
        self.assertIn("the cheapest that keeps a p99", done.stdout)
        for one in results:
            hours = one["replicas"] * one["requests"] / one["tokens_per_s"]
            self.assertGreater(hours, 0)
            cost = one["replicas"] / 3600 / one["tokens_per_s"] * 1e6
            self.assertAlmostEqual(one["cost_per_million_tokens"], cost)
        again, same = self.run_program(measured, *flags)
        self.assertEqual((again.stdout, same), (done.stdout, results))

    def test_a_wrong_calibration_is_refused_by_name(self):
        for field, value in (("step_ms", -1), ("slots", 0), ("rows", 1.5), ("disk_ms", "x")):
            done, results = self.run_program(BASE | {field: value})
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(field, done.stderr)
            self.assertIsNone(results)
        done, _ = self.run_program(BASE | {"unknown": 1})
        self.assertIn("unknown", done.stderr)

    def test_the_cheapest_keeps_the_limit(self):
        rows = [
            {"ttft_p99_ms": 9, "cost_per_million_tokens": 3},
            {"ttft_p99_ms": 5, "cost_per_million_tokens": 4},
            {"ttft_p99_ms": 4, "cost_per_million_tokens": 5},
        ]
        self.assertIs(simulate.cheapest(rows, 6), rows[1])
        self.assertIsNone(simulate.cheapest(rows, 1))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
