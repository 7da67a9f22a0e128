#!/usr/bin/env python3
"""Holds the model of simulate.py to real replicas: measures a calibration, then one trace on both.

Replicas of one thread each stand behind HAProxy in network namespaces (fleet.py); their memory
holds --slots of the --num-adapters adapters of one rank that all of them know, the rest is read
back from files. `polyad bench` sends a Zipf trace over HTTP with every routing in turn, and the
model gets the same trace, the calibration that was measured before it, and where the adapters'
homes were. Replicas share this machine's cores, and so do the model's (shared_cores).

  simulate_check.py --loras LORAS --calibration measured.json --json check.json
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
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
# What the shipped defaults of polyad serve allow; far above what this trace asks for.
ROWS, STEP_TOKENS = 256, 512
PROBES = 8
CONCURRENCIES = (1, 4, 8)
PROMPTS = (16, 256)


def burst(count, prompt, output, models):
    return [workloads.request(0.0, models[i % len(models)], prompt, output) for i in range(count)]


def named(lines):
    return list(workloads.named(lines, "lora-{:02d}", "tenant-{}"))


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
    """One replica, and nothing else that runs."""

    def __init__(self, fleet, args):
        self.fleet, self.args = fleet, args

    def send(self, lines):
        result, rows = self.fleet.bench("http", named(lines)).finish()
        if replicas.failed(rows):
            raise RuntimeError(f"calibration: {replicas.describe(replicas.failed(rows)[0])}")
        return result, rows

    def resident(self, count):
        """The first `count` adapters, read back where they were not there."""
        self.send([workloads.request(0.1 * i, i, 4, 2) for i in range(count)])
        return list(range(count))

    def decode_ms(self, concurrency, adapters):
        models = self.resident(adapters)
        runs = []
        for _ in range(self.args.repeats):
            result, _ = self.send(burst(concurrency, 4, self.args.gen_tokens, models))
            runs.append(result["median_tpot_ms"])
        return statistics.median(runs)

    def first_token_ms(self, prompt):
        models = self.resident(1)
        runs = []
        for _ in range(self.args.repeats):
            result, _ = self.send(burst(1, prompt, 2, models))
            runs.append(result["median_ttft_ms"])
        return statistics.median(runs)

    def miss_ms(self, from_disk):
        """What the first token of a swapped-out adapter takes more than that of one in memory."""
        missed, found = [], []
        for i in itertools.islice(itertools.cycle(range(self.args.num_adapters)), 4 * PROBES):
            if from_disk:
                forget_files(self.args.loras)
            before = read_back(self.fleet)
            first = self.send(burst(1, 16, 2, [i]))[0]["median_ttft_ms"]
            if read_back(self.fleet) > before:
                missed.append(first)
                found.append(self.send(burst(1, 16, 2, [i]))[0]["median_ttft_ms"])
            if len(missed) == PROBES:
                break
        if not missed:
            raise RuntimeError("calibration: no adapter was swapped out; see --slots")
        return max(0.0, statistics.median(missed) - statistics.median(found))


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


def calibrate(args):
    with fleet_module.Fleet(args, 1, 1) as fleet:
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
        host_ms, disk_ms = measurer.miss_ms(False), measurer.miss_ms(True)
    return replica_model.Calibration(
        step_ms=step_ms,
        row_ms=row_ms,
        token_ms=token_ms,
        adapter_ms=adapter_ms,
        host_ms=host_ms,
        disk_ms=max(host_ms, disk_ms),
        slots=int(device),
        host_slots=args.num_adapters,  # the page cache holds all of them
        rows=ROWS,
        step_tokens=STEP_TOKENS,
        front_ms=front_ms,
    )


def trace_of(args):
    lines = workloads.zipf(args.num_adapters, args.rate, args.seconds, args.seed, args.exponent)
    return named(workloads.scaled(lines, args.scale))


def measure(args, routing, trace):
    """-> (figures, homes of adapters that one replica alone has served)"""
    with fleet_module.Fleet(args, args.replicas, args.replicas, routing) as fleet:
        # Adapters that no request has asked for are where the start left them: warm up.
        fleet.bench("http", [one | {"at_s": one["at_s"] / 2} for one in trace]).finish()
        before, counted = read_back(fleet), fleet.counts()
        result, rows = fleet.bench("http", trace).finish()
        if replicas.failed(rows):
            raise RuntimeError(f"{routing}: {replicas.describe(replicas.failed(rows)[0])}")
        misses = read_back(fleet) - before
        served = {}
        for index, one in enumerate(fleet.replicas):
            for adapter in counted[one.name].keys() | one.requests_by_adapter().keys():
                served.setdefault(adapter, []).append(index)
    homes = {adapter: by[0] for adapter, by in served.items() if len(by) == 1}
    figures = {
        "ttft_p50_ms": result["median_ttft_ms"],
        "ttft_p99_ms": result["p99_ttft_ms"],
        "hit_rate": 1 - misses / len(rows),
        "client_cores": result["client_cores"],
    }
    return figures, homes


def predict(args, calibration, routing, trace, homes):
    """The same trace twice, of which the second run counts."""
    shared = dataclasses.replace(calibration, shared_cores=os.cpu_count())
    setup = replica_model.Setup(shared, args.replicas, routing, homes=homes)
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
    sizes = [path.stat().st_size for path in args.loras.glob("*/adapter_model.safetensors")]
    # Half an adapter more, for what packing adds.
    limit = max(1, round((args.slots + 0.5) * statistics.mean(sizes) / MIB))
    args.polyad_flags += f" --max-adapter-mib {limit}"
    return args


def main():
    args = parse_args()
    replicas.enter_hub_or_skip()
    calibration = calibrate(args)
    fields = dataclasses.asdict(calibration)
    print(json.dumps(fields), flush=True)
    if args.calibration:
        args.calibration.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    trace = trace_of(args)
    results = []
    for routing in args.routing:
        measured, homes = measure(args, routing, trace)
        homes = homes if routing == "affine" else None
        predicted = predict(args, calibration, routing, trace, homes)
        results.append({"routing": routing, "measured": measured, "predicted": predicted})
    print(table(results))
    if args.json:
        result = {"calibration": fields, "results": results, "machine": machine.describe()}
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if load.percentile([one["measured"]["client_cores"] for one in results], 100) > 0.2:
        sys.exit("the client took more than a fifth of a core: its figures are not to be trusted")


if __name__ == "__main__":
    main()
