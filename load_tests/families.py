#!/usr/bin/env python3
"""A batch of eight families of adapters against a batch of LoRA alone, on one polyad, in one run.

Both loads are 32 clients: 32 distinct LoRAs, or eight families with four adapters each (made by
tools/make_family_adapters.py, which sizes them like the LoRAs). They take turns for some rounds on
servers that are paused in between; the ratio of the medians has a floor. Then, with base clients
streaming, each round has two turns for every family: one loads it again and again, the other does
not. Its load time, and what loads do to the 99th percentile of the time between tokens, have
limits. A turn without loads is the same for every family, so a family's turns with loads are held
to all of those: median over median. Exits 1 where a limit is passed. --only measures the loads of
some families alone.

  families.py --polyad build/release/bin/polyad --model HF_DIR --loras DIR --families DIR
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

import http_client
import load
import machine
import servers

NUM_CLIENTS = 32
RATIO_FLOOR = 0.85
LOAD_LIMIT_MS = 200.0
GAP_GROWTH_LIMIT = 1.10
STREAMING_CLIENTS = 8


def adapter_paths(folder, count):
    paths = sorted(path for path in folder.iterdir() if path.is_dir())[:count]
    if len(paths) < count:
        raise SystemExit(f"{folder}: expected {count} adapters, got {len(paths)}")
    return {path.name: path for path in paths}


def start(args, log, adapters):
    server = servers.Polyad(args.polyad, args.model, log, adapters, args.polyad_flags)
    server.start()
    return server


def throughput(server, names, seed):
    result = server.run(
        load.Load(url="", concurrency=NUM_CLIENTS, requests=NUM_CLIENTS, adapters="distinct",
                  adapter_names=tuple(names), seed=seed)
    )
    if result["errors"]:
        raise RuntimeError(f"{result['errors']} requests failed, first: {result['first_error']}")
    return result["gen_tok_s"]


def compare(args, folder, loras, families):
    """-> medians of generated tokens/s and of adapter bytes: {"lora": ..., "families": ...}."""
    contenders = {"lora": loras, "families": families}
    running = {name: start(args, f"{folder}/{name}.log", adapters)
               for name, adapters in contenders.items()}
    speeds = {name: [] for name in contenders}
    try:
        held = {name: http_client.metrics(server.url)["polyad_adapter_bytes"]
                for name, server in running.items()}
        for server in running.values():
            server.pause()
        for turn in range(args.rounds + 1):
            for name in sorted(contenders, reverse=turn % 2 == 1):
                running[name].resume()
                speed = throughput(running[name], contenders[name], seed=turn + 1)
                running[name].pause()
                if turn > 0:  # the first warms up
                    speeds[name].append(speed)
    finally:
        for server in running.values():
            server.stop()
    return {name: {"gen_tok_s": statistics.median(values), "adapter_mb": held[name] / 1e6}
            for name, values in speeds.items()}


def stream_gaps(server, seed, while_running):
    """The summary of base clients streaming while `while_running(stop)` runs beside them.

    All begin at once and none after them: a step that also reads a new prompt is no load's doing.
    """
    stop = threading.Event()
    beside = threading.Thread(target=while_running, args=(stop,))
    beside.start()
    try:
        return server.run(load.Load(url="", concurrency=STREAMING_CLIENTS,
                                    requests=STREAMING_CLIENTS, gen_tokens=512, seed=seed))
    finally:
        stop.set()
        beside.join()


def measure_loading(args, folder, families):
    """-> {family: {"load_ms": median, "gap_growth": p99 with loads over p99 without}}."""
    flags = f"--adapter-root {args.families.resolve()} {args.polyad_flags}"
    server = servers.Polyad(args.polyad, args.model, f"{folder}/loading.log", flags=flags)
    server.start()
    names = args.only or sorted({name.rsplit("-", 1)[0] for name in families})
    result = {family: {"times_ms": [], "quiet_p99_ms": [], "busy_p99_ms": []} for family in names}

    def churn(stop, name, times):
        while not stop.is_set():
            started = time.perf_counter()
            http_client.load_adapter(server.url, name, name)
            times.append((time.perf_counter() - started) * 1e3)
            http_client.unload_adapter(server.url, name)
            stop.wait(args.seconds_between_loads)

    try:
        server.run(load.Load(url="", concurrency=STREAMING_CLIENTS, requests=STREAMING_CLIENTS))
        # All families in each round: a slow minute of the machine is not one family's.
        for turn in range(args.rounds):
            for family, figures in result.items():
                loads = functools.partial(churn, name=f"{family}-0", times=figures["times_ms"])
                quiet = stream_gaps(server, 1 + turn, lambda stop: None)
                busy = stream_gaps(server, 1 + turn, loads)
                figures["quiet_p99_ms"].append(quiet["itl_p99_ms"])
                figures["busy_p99_ms"].append(busy["itl_p99_ms"])
    finally:
        server.stop()
    without_loads = statistics.median(
        gap for figures in result.values() for gap in figures["quiet_p99_ms"]
    )
    for figures in result.values():
        figures["load_ms"] = statistics.median(figures["times_ms"])
        figures["gap_growth"] = statistics.median(figures["busy_p99_ms"]) / without_loads
    return result


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--loras", type=pathlib.Path, required=True)
    parser.add_argument("--families", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="FAMILY")
    parser.add_argument("--seconds-between-loads", type=float, default=0.5)
    parser.add_argument("--json", help="file to which the result is written")
    return parser.parse_args()


def main():
    args = parse_args()
    loras = adapter_paths(args.loras, NUM_CLIENTS)
    families = adapter_paths(args.families, NUM_CLIENTS)
    with tempfile.TemporaryDirectory() as folder:
        speed = {} if args.only else compare(args, folder, loras, families)
        loading = measure_loading(args, folder, families)
    limits = []
    if speed:
        ratio = speed["families"]["gen_tok_s"] / speed["lora"]["gen_tok_s"]
        limits.append(("families / LoRA, tokens/s", ratio, RATIO_FLOOR, ratio >= RATIO_FLOOR))
    for family, figures in loading.items():
        limits.append((f"loading {family}, ms", figures["load_ms"], LOAD_LIMIT_MS,
                       figures["load_ms"] <= LOAD_LIMIT_MS))
        limits.append((f"token gap p99 while loading {family}, ratio", figures["gap_growth"],
                       GAP_GROWTH_LIMIT, figures["gap_growth"] <= GAP_GROWTH_LIMIT))
    for name, figures in speed.items():
        print(f"{name}: {figures['gen_tok_s']:.1f} tokens/s, {figures['adapter_mb']:.0f} MB")
    print("| what | measured | limit | holds |\n|---|---|---|---|")
    for name, value, limit, holds in limits:
        print(f"| {name} | {value:.2f} | {limit:.2f} | {'yes' if holds else 'NO'} |")
    if args.json:
        result = {"speed": speed, "loading": loading, "machine": machine.describe()}
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(not all(holds for _, _, _, holds in limits))


if __name__ == "__main__":
    main()
