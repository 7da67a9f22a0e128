#!/usr/bin/env python3
"""Holds the model of simulate.py to real replicas: measures a calibration, then one trace on both.

Replicas of one thread each stand behind HAProxy in network namespaces (fleet.py); their memory
holds --slots of the --num-adapters adapters of one rank that all of them know, the rest is read
back from files. `polyad bench` sends a Zipf trace over HTTP with every routing in turn, and the
model gets the same trace, the calibration that was measured before it, and which replica HAProxy's
hash had sent each adapter to (of routing affine, which comes first). Replicas share this machine's
cores, so how much longer steps and reads take beside 1, 2, ... stepping replicas is measured too.

  simulate_check.py --loras LORAS --calibration measured.json --json check.json
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

import fleet as fleet_module
import http_client
import load
import machine
import replica_model
import replicas
import simulate
import workloads

MIB = 1 << 20
# The shipped defaults of polyad serve: --max-running, --max-step-tokens.
ROWS, STEP_TOKENS = 64, 512
PROBES = 8
CONCURRENCIES = (1, 4, 8)
PROMPTS = (4, 32)  # as long as those of a trace of --scale 16
STEPPING = 4  # rows of a replica that steps beside others
PROBE_SECONDS = 0.5  # between two reads beside steps


def burst(count, prompt, output, models):
    return [workloads.request(0.0, models[i % len(models)], prompt, output) for i in range(count)]


def named(lines):
    return list(workloads.named(map(dict, lines), "lora-{:02d}", "tenant-{}"))


def least_squares(rows, values):
    """Solves the normal equations of few unknowns by elimination."""
    size = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)]
        + [sum(row[i] * value for row, value in zip(rows, values))]
        for i in range(size)
    ]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(matrix[k][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for k in range(size):
            if k != i:
                factor = matrix[k][i] / matrix[i][i]
                matrix[k] = [a - factor * b for a, b in zip(matrix[k], matrix[i])]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]


class Measurer:
    """The first replica, and others only where they step beside it."""

    def __init__(self, fleet, args):
        self.fleet, self.args = fleet, args
        self.one = fleet.replicas[0]
        self.last = 0  # the adapter that was read back last

    def start(self, lines, replica=None):
        return self.fleet.bench("http", named(lines), replica or self.one)

    def send(self, lines):
        return checked(self.start(lines))

    def resident(self, count):
        """The first `count` adapters, one after the other, read back where they were not there."""
        self.send([workloads.request(0.1 * i, i, 4, 2) for i in range(count)])
        return list(range(count))

    def decode_ms(self, concurrency, adapters):
        """A step of so many rows of so many adapters."""
        models = self.resident(adapters)
        lines = burst(concurrency, 4, self.args.gen_tokens, models)
        return statistics.median(
            self.send(lines)[0]["median_tpot_ms"] for _ in range(self.args.repeats)
        )

    def first_token_ms(self, prompt):
        """Through the proxy, of requests that find everything there and nobody else."""
        times = [i * PROBE_SECONDS for i in range(2 + 2 * self.args.repeats)]
        lines = [workloads.request(at_s, 0, prompt, 2) for at_s in times]
        _, rows = checked(self.fleet.bench("http", named(lines)))
        return median_first(row for row in rows if row["at_s"] >= times[2])

    def swapped_out(self):
        """The adapter that was asked for longest ago, of all but the first."""
        self.last = self.last % (self.args.num_adapters - 1) + 1
        return self.last

    def disk_ms(self):
        """What a first token takes more where neither memory nor page cache has the adapter."""
        missed, found = [], []
        for _ in range(PROBES):
            forget_files(self.args.loras)
            lines = [workloads.request(PROBE_SECONDS, self.swapped_out(), 16, 2)]
            missed += self.send(lines)[1]
            found += self.send(lines)[1]
        return max(0.0, median_first(missed) - median_first(found))

    def stepping(self, count, tokens):
        """Each of the first `count` replicas decodes rows of the first adapter."""
        lines = burst(STEPPING, 4, tokens, [0])
        return [self.start(lines, one) for one in self.fleet.replicas[:count]]

    def step_beside(self, count):
        """A step of each of `count` replicas that step at the same time."""
        runs = []
        for _ in range(self.args.repeats):
            benches = self.stepping(count, self.args.gen_tokens)
            runs += [checked(one)[0]["median_tpot_ms"] for one in benches]
        return statistics.median(runs)

    def read_beside(self, count, step_ms):
        """What a read back takes while `count` replicas step, the one that reads among them."""
        lines = []
        for i in range(PROBES):
            lines.append(workloads.request(i * PROBE_SECONDS, self.swapped_out(), 16, 2))
            lines.append(workloads.request((i + 0.5) * PROBE_SECONDS, 0, 16, 2))
        self.send(burst(1, 4, 2, [0]))
        seconds = (PROBES + 2) * PROBE_SECONDS
        benches = self.stepping(count, math.ceil(seconds * 1e3 / step_ms))
        stepping = lambda: all(one.running()[0] for one in self.fleet.replicas[:count])
        fleet_module.wait_until(stepping, "replicas that step")
        before = read_back(self.fleet)
        _, rows = self.send(lines)
        reads = read_back(self.fleet) - before
        if reads != PROBES:
            raise RuntimeError(f"calibration: expected {PROBES} adapters read back, got {reads}")
        for bench in benches:
            checked(bench)
        found = [row for row in rows if row["model"] == "lora-00"]
        missed = [row for row in rows if row["model"] != "lora-00"]
        return max(0.0, median_first(missed) - median_first(found))


def checked(bench):
    """-> (result, rows), none of which failed."""
    result, rows = bench.finish()
    if replicas.failed(rows):
        raise RuntimeError(f"calibration: {replicas.describe(replicas.failed(rows)[0])}")
    return result, rows


def median_first(rows):
    return statistics.median(row["ttft_ms"] for row in rows)


def forget_files(folder):
    """Drops what the page cache holds of the adapters' files."""
    for path in folder.glob("*/*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_back(fleet):
    """Of every replica together."""
    name = "polyad_adapters_read_back_total"
    return sum(http_client.metrics(one.url)[name] for one in fleet.replicas)


def factors(values):
    """How many times the first each is, never less than those before it."""
    return tuple(itertools.accumulate((one / values[0] for one in values), max))


def calibrate(args):
    """-> (calibration, how replicas slow each other down here)"""
    counts = range(1, args.replicas + 1)
    with fleet_module.Fleet(args, args.replicas, args.replicas) as fleet:
        device = http_client.by_label(fleet.replicas[0].url, "polyad_adapters", "tier")["device"]
        measurer = Measurer(fleet, args)
        points = [(1.0, float(c), 1.0) for c in CONCURRENCIES]
        many = min(CONCURRENCIES[-1], int(device))
        points.append((1.0, float(CONCURRENCIES[-1]), float(many)))
        decode = [measurer.decode_ms(int(c), int(a)) for _, c, a in points]
        step_ms, row_ms, adapter_ms = (max(0.0, x) for x in least_squares(points, decode))
        short, long = (measurer.first_token_ms(prompt) for prompt in PROMPTS)
        token_ms = max(0.0, (long - short) / (PROMPTS[1] - PROMPTS[0]))
        front_ms = max(0.0, short - step_ms - adapter_ms - PROMPTS[0] * token_ms)
        steps = [measurer.step_beside(count) for count in counts]
        measurer.resident(args.num_adapters)
        disk_ms = measurer.disk_ms()
        reads = [measurer.read_beside(count, steps[0]) for count in (0, *counts)]
    calibration = replica_model.Calibration(
        step_ms=step_ms,
        row_ms=row_ms,
        token_ms=token_ms,
        adapter_ms=adapter_ms,
        host_ms=reads[0],
        disk_ms=max(reads[0], disk_ms),
        slots=int(device),
        host_slots=args.num_adapters,  # the page cache holds all of them
        rows=ROWS,
        step_tokens=STEP_TOKENS,
        front_ms=front_ms,
        busy_read=max(1.0, reads[1] / reads[0]),
    )
    return calibration, replica_model.Beside(factors(steps), factors(reads))


def trace_of(args):
    lines = workloads.zipf(args.num_adapters, args.rate, args.seconds, args.seed, args.exponent)
    return named(workloads.scaled(lines, args.scale))


def measure(args, routing, trace):
    """-> (figures, {adapter: index of the only replica that has served it})"""
    with fleet_module.Fleet(args, args.replicas, args.replicas, routing) as fleet:
        counted = fleet.counts()  # the start asked each replica for every adapter
        fleet.bench("http", [one | {"at_s": one["at_s"] / 2} for one in trace]).finish()  # warm
        before = read_back(fleet)
        result, rows = fleet.bench("http", trace).finish()
        if replicas.failed(rows):
            raise RuntimeError(f"{routing}: {replicas.describe(replicas.failed(rows)[0])}")
        misses = read_back(fleet) - before
        served = {}
        for index, one in enumerate(fleet.replicas):
            for adapter, count in one.requests_by_adapter().items():
                if count > counted[one.name][adapter]:
                    served.setdefault(adapter, []).append(index)
    homes = {adapter: by[0] for adapter, by in served.items() if len(by) == 1}
    figures = {
        "ttft_p50_ms": result["median_ttft_ms"],
        "ttft_p99_ms": result["p99_ttft_ms"],
        "hit_rate": 1 - misses / len(rows),
        "client_cores": result["client_cores"],
    }
    return figures, homes


def predict(args, measured, routing, trace, homes):
    """The same trace twice, of which the second run counts. measured: (calibration, beside)"""
    calibration, beside = measured
    setup = replica_model.Setup(calibration, args.replicas, routing, homes=homes, beside=beside)
    half = max(one["at_s"] for one in trace) / 2
    pause = half + 60
    warm = [one | {"at_s": one["at_s"] / 2} for one in trace]
    again = [one | {"at_s": one["at_s"] + pause} for one in trace]
    requests, fleet, seconds = replica_model.run(warm + again, setup)
    return simulate.summarise(setup, requests[len(trace) :], fleet, seconds - pause)


def error_of(predicted, measured):
    return f"{predicted / measured - 1:+.0%}" if measured else "-"


def table(results):
    lines = ["| routing | | TTFT p50 ms | TTFT p99 ms | hits |", "|---|---|---|---|---|"]
    for one in results:
        measured, predicted = one["measured"], one["predicted"]
        for name, figures in (("measured", measured), ("predicted", predicted)):
            lines.append(
                f"| {one['routing']} | {name} | {figures['ttft_p50_ms']:.0f} "
                f"| {figures['ttft_p99_ms']:.0f} | {figures['hit_rate']:.1%} |"
            )
        points = predicted["hit_rate"] - measured["hit_rate"]
        lines.append(
            f"| | error | {error_of(predicted['ttft_p50_ms'], measured['ttft_p50_ms'])} "
            f"| {error_of(predicted['ttft_p99_ms'], measured['ttft_p99_ms'])} "
            f"| {100 * points:+.1f} points |"
        )
    return "\n".join(lines)


def resident_bytes(args):
    """What an adapter takes in memory."""
    path = next(iter(args.adapters.values()))
    command = [args.polyad, "inspect", path, "--model", args.model, "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)["resident_bytes"]


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    replicas.add_fleet(parser)
    parser.add_argument("--calibration", type=pathlib.Path, help="file for what was measured")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--slots", type=int, default=8, help="adapters that memory holds")
    parser.add_argument("--routing", nargs="+", default=["affine", "bounded", "robin"])
    parser.add_argument("--rate", type=float, default=5, help="requests per second")
    parser.add_argument("--seconds", type=float, default=20, help="of arrivals")
    parser.add_argument("--exponent", type=float, default=0.5)
    parser.add_argument("--scale", type=int, default=16, help="lengths are divided by this")
    parser.add_argument("--gen-tokens", type=int, default=48, help="of the calibration")
    parser.add_argument("--repeats", type=int, default=3)
    parser.set_defaults(num_adapters=24)
    args = parser.parse_args()
    if set(args.routing) - set(fleet_module.ROUTINGS):
        parser.error(f"--routing: expected of {', '.join(fleet_module.ROUTINGS)}")
    replicas.name_adapters(args)
    limit = max(1, round((args.slots + 0.5) * resident_bytes(args) / MIB))
    # The model has no prefixes, and both the calibration and the trace come more than once.
    args.polyad_flags += f" --max-adapter-mib {limit} --prefix-cache=false"
    return args


def main():
    args = parse_args()
    replicas.enter_hub_or_skip(args.model)
    calibration, beside = calibrate(args)
    fields = dataclasses.asdict(calibration)
    print(json.dumps(fields | {"beside": dataclasses.asdict(beside)}), flush=True)
    if args.calibration:
        args.calibration.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    trace, homes, results = trace_of(args), {}, []
    for routing in args.routing:
        measured, found = measure(args, routing, trace)
        homes = found if routing == "affine" else homes
        predicted = predict(args, (calibration, beside), routing, trace, homes)
        results.append({"routing": routing, "measured": measured, "predicted": predicted})
        print(json.dumps(results[-1]), flush=True)
    print(table(results))
    if args.json:
        result = {"calibration": fields, "beside": dataclasses.asdict(beside), "results": results}
        result["machine"] = machine.describe()
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if load.percentile([one["measured"]["client_cores"] for one in results], 100) > 0.2:
        sys.exit("the client took more than a fifth of a core: its figures are not to be trusted")


if __name__ == "__main__":
    main()
