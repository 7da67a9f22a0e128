#!/usr/bin/env python3
"""What a polyad server costs besides its steps: start-up, loading an adapter, resident memory.

Start-up is from exec to the ready line, the median of several starts; loading an adapter is the
wall time of POST /v1/load_lora_adapter; memory is the resident set once every adapter has served,
against weights on disk + K/V budget + bytes of resident adapters + an allowance. Exits 1 where a
limit is passed.

  measure.py --polyad build/release/bin/polyad --model HF_DIR --adapters DIR
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import http_client
import load
import machine
import servers

START_LIMIT_SECONDS = 2.0
ADAPTER_LIMIT_MS = 150.0
MEMORY_ALLOWANCE_MB = 150.0


def start_times(args, log, repeats):
    seconds = []
    for _ in range(repeats):
        server = servers.Polyad(args.polyad, args.model, log, flags=args.polyad_flags)
        server.start()
        seconds.append(server.start_seconds)
        server.stop()
    return seconds


def load_times_ms(url, paths):
    times = []
    for path in paths:
        started = time.perf_counter()
        http_client.load_adapter(url, path.name, path.name)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def weight_bytes(model):
    files = [model] if model.is_file() else sorted(model.glob("*.safetensors"))
    return sum(path.stat().st_size for path in files)


def kv_bytes(url):
    """The pool's size, as /metrics has it."""
    def number(name):
        return int(http_client.label(url, "vllm:cache_config_info", name))

    return number("num_gpu_blocks") * number("block_size") * number("bytes_per_token")


def measure_serving(args, log, paths):
    """Loads every adapter, lets each serve, and reads the memory; -> part of the result."""
    flags = f"--adapter-root {args.adapters.resolve()} {args.polyad_flags}"
    server = servers.Polyad(args.polyad, args.model, log, flags=flags)
    server.start()
    try:
        pid, mega = server.process.pid, 1e6
        idle = machine.resident_kib(pid) * 1024 / mega
        times = load_times_ms(server.url, paths)
        count = max(1, len(paths))
        names = tuple(path.name for path in paths)
        served = server.run(
            load.Load(
                url="", concurrency=count, requests=count, adapters="distinct", adapter_names=names
            )
        )
        if served["errors"]:
            raise RuntimeError(
                f"{served['errors']} requests failed, the first with {served['first_error']}"
            )
        return {
            "adapter_load_ms_median": statistics.median(times),
            "adapter_load_ms_max": max(times),
            "num_adapters": len(paths),
            "resident_idle_mb": idle,
            "resident_mb": machine.resident_kib(pid) * 1024 / mega,
            "weights_mb": weight_bytes(args.model) / mega,
            "kv_mb": kv_bytes(server.url) / mega,
            "adapters_mb": http_client.metrics(server.url)["polyad_adapter_bytes"] / mega,
        }
    finally:
        server.stop()


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    adapters = os.environ.get("POLYAD_LOAD_ADAPTERS")
    servers.add_polyad(parser)
    servers.add_model(parser)
    parser.add_argument(
        "--adapters",
        type=pathlib.Path,
        default=adapters,
        required=not adapters,
        help="[POLYAD_LOAD_ADAPTERS]",
    )
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", help="file to which the result is written")
    return parser.parse_args()


def main():
    args = parse_args()
    paths = sorted(path for path in args.adapters.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as folder:
        log = str(pathlib.Path(folder) / "polyad.log")
        seconds = start_times(args, log, args.starts)
        result = {
            "start_seconds_median": statistics.median(seconds),
            "start_seconds_max": max(seconds),
        }
        result.update(measure_serving(args, log, paths))
    allowed = result["weights_mb"] + result["kv_mb"] + result["adapters_mb"] + MEMORY_ALLOWANCE_MB
    result.update(allowed_mb=allowed, machine=machine.describe())
    limits = [
        ("start-up, s", result["start_seconds_median"], START_LIMIT_SECONDS),
        ("loading an adapter, ms", result["adapter_load_ms_median"], ADAPTER_LIMIT_MS),
        ("resident memory, MB", result["resident_mb"], allowed),
    ]
    print("| what | measured | limit | holds |\n|---|---|---|---|")
    for name, value, limit in limits:
        print(f"| {name} | {value:.2f} | {limit:.2f} | {'yes' if value <= limit else 'NO'} |")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(value > limit for _, value, limit in limits))


if __name__ == "__main__":
    main()
