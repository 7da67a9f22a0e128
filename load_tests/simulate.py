#!/usr/bin/env python3
"""Many replicas, ten thousand adapters: what routing, memory tiers and replica counts do.

Runs the model of replica_model.py on Poisson traffic for adapters of popularity 1 / rank **
exponent, with S-LoRA's lengths divided by --scale (workloads.py zipf), or on a trace, for every
routing, number of replicas and size of memory asked for. The times of a step and of reads come from
a calibration (JSON, the fields of replica_model.Calibration): simulate_check.py measures one and
holds the model to real replicas.

  random    any replica
  robin     the next replica in turn
  least     the one with the fewest requests
  affine    the adapter's own, by hashing
  bounded   that, but the adapter's next one where it has more than --spill times the mean requests

  simulate.py --calibration measured.json --replicas 4 8 16 --slo-ttft-ms 1000
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import sys

import load
import replica_model
import workloads

HEADER = (
    "| replicas | in memory + host | routing | TTFT p50 | p99 ms | hits | host | disk reads | busy "
    "| busiest | per 1M tokens |"
)


def summarise(setup, requests, replicas, seconds):
    first_ms = [(one.first - one.at) * 1e3 for one in requests]
    tokens = sum(one.output for one in requests)
    cost = setup.calibration.replica_per_hour * len(replicas) * seconds / 3600
    return {
        "replicas": setup.count,
        "slots": setup.calibration.slots,
        "host_slots": setup.calibration.host_slots,
        "routing": setup.routing,
        "requests": len(requests),
        "ttft_p50_ms": load.percentile(first_ms, 50),
        "ttft_p99_ms": load.percentile(first_ms, 99),
        "hit_rate": sum(one.hit for one in requests) / len(requests),
        "host_reads": sum(replica.reads["host"] for replica in replicas),
        "disk_reads": sum(replica.reads["disk"] for replica in replicas),
        "busy": sum(replica.busy_s for replica in replicas) / (seconds * len(replicas)),
        "busiest": max(replica.busy_s for replica in replicas) / seconds,
        "tokens_per_s": tokens / seconds,
        "cost_per_million_tokens": cost / tokens * 1e6,
    }


def row_of(one):
    return (
        f"| {one['replicas']} | {one['slots']} + {one['host_slots']} | {one['routing']} "
        f"| {one['ttft_p50_ms']:.0f} | {one['ttft_p99_ms']:.0f} | {one['hit_rate']:.1%} "
        f"| {one['host_reads']} | {one['disk_reads']} | {one['busy']:.0%} | {one['busiest']:.0%} "
        f"| {one['cost_per_million_tokens']:.2f} |"
    )


def cheapest(results, limit_ms):
    """The cheapest of those whose p99 keeps the limit, or None."""
    kept = [one for one in results if one["ttft_p99_ms"] <= limit_ms]
    return min(kept, key=lambda one: one["cost_per_million_tokens"], default=None)


def setups_of(args, calibration):
    slots = args.slots or [calibration.slots]
    hosts = args.host_slots or [calibration.host_slots]
    for count, held, host, routing in itertools.product(args.replicas, slots, hosts, args.routing):
        sized = dataclasses.replace(calibration, slots=held, host_slots=host)
        if args.replica_per_hour is not None:
            sized = dataclasses.replace(sized, replica_per_hour=args.replica_per_hour)
        yield replica_model.Setup(sized, count, routing, args.spill)


def trace_of(args):
    if args.trace:
        with open(args.trace, encoding="utf-8") as lines:
            return workloads.read(lines)
    trace = workloads.zipf(args.adapters, args.rate, args.duration, args.seed, args.exponent)
    return list(workloads.scaled(trace, args.scale))


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    routings = list(replica_model.ROUTINGS)
    parser.add_argument("--calibration", type=pathlib.Path, required=True)
    parser.add_argument("--replicas", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--routing", nargs="+", default=routings, choices=routings)
    parser.add_argument("--slots", type=int, nargs="+", help="in the calibration's place")
    parser.add_argument("--host-slots", type=int, nargs="+", help="in the calibration's place")
    parser.add_argument("--replica-per-hour", type=float, help="price, in the calibration's place")
    parser.add_argument("--spill", type=float, default=1.25, help="of the mean load, at least 1")
    parser.add_argument("--slo-ttft-ms", type=float, help="names the cheapest that keeps this p99")
    parser.add_argument("--trace", type=pathlib.Path, help="JSON lines of workloads.py instead of:")
    parser.add_argument("--adapters", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100, help="requests per second")
    parser.add_argument("--duration", type=float, default=300, help="seconds")
    parser.add_argument("--exponent", type=float, default=1.0)
    parser.add_argument("--scale", type=int, default=1, help="lengths are divided by this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args(arguments)
    if min(args.replicas) < 1 or not args.spill >= 1 or args.scale < 1 or args.adapters < 1:
        parser.error("--replicas, --spill, --scale, --adapters: expected at least 1")
    if max(args.replicas) > 10_000 or args.adapters > workloads.MAX_REQUESTS:
        parser.error("--replicas, --adapters: expected at most 10000, 10000000")
    if not 1 <= args.rate * args.duration <= workloads.MAX_REQUESTS:
        parser.error(f"--rate times --duration: expected 1 to {workloads.MAX_REQUESTS} requests")
    return args


def main():
    args = parse_args()
    try:
        fields = json.loads(args.calibration.read_text(encoding="utf-8"))
        calibration = replica_model.Calibration(**fields)
        setups = list(setups_of(args, calibration))
        trace = trace_of(args)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"simulate: {error}")
    if not trace:
        sys.exit("simulate: the trace has no requests")
    results = []
    print(HEADER)
    print("|---" * HEADER.count(" | ") + "|---|")
    for setup in setups:
        results.append(summarise(setup, *replica_model.run(trace, setup)))
        print(row_of(results[-1]), flush=True)
    if args.slo_ttft_ms is not None:
        best = cheapest(results, args.slo_ttft_ms)
        keeps = f"keeps a p99 of {args.slo_ttft_ms:g} ms"
        print(f"\nthe cheapest that {keeps}: {row_of(best)}" if best else f"\nnone {keeps}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
