#!/usr/bin/env python3
"""What it costs to serve many more adapters than memory holds: S-LoRA's trace in a closed loop.

Servers of FEW, FITTING and MANY registered LoRAs of mixed ranks, whose memory holds FITTING of
them, are up at once and take turns, those that wait are paused. Each runs the same trace: a request
asks for adapter int(N u^(1/alpha)) of N, u uniform (alpha 1: every adapter as often; 0.3: the first
ten of 200 take two fifths), for prompts and answers of lengths from a range (S-LoRA: Sheng et al.
2023, section 6). MANY may make 10 % fewer tokens per second than FEW at alpha 0.3 and 25 % at 1.
FITTING says how much of that is not swapping, but that the rows of a step have more adapters.

With --memory-mib K/V and adapters of a server share one limit: so much, or without a number the
memory for FITTING adapters and --kv-mib together.

Then, on the idle server of MANY, the first token of a swapped-out adapter against that of the same
adapter once it is there: what a request waits for a miss. Many names may share a directory: a name
is loaded, swapped out and read back by itself. Exits 1 where a limit is passed.

  swapping.py --model HF_DIR --loras DIR         # directories of tools/make_random_adapters.py
"""

import argparse
import dataclasses
import json
import pathlib
import random
import statistics
import sys
import tempfile

import http_client
import load
import machine
import prefixes
import servers

LIMITS = {0.3: 0.90, 1.0: 0.75}  # of the tokens per second with few adapters, at least
MIB = 1 << 20
MISS_PROMPT_TOKENS = 16


def find_loras(folder):
    """Directories of adapters beneath `folder`, relative to it, those of different ranks in turn."""
    by_rank = {}
    for config in sorted(folder.glob("**/adapter_config.json")):
        rank = json.loads(config.read_text(encoding="utf-8"))["r"]
        by_rank.setdefault(rank, []).append(config.parent.relative_to(folder))
    if not by_rank:
        sys.exit(f"{folder}: has no adapters")
    longest = max(map(len, by_rank.values()))
    return [found[i % len(found)] for i in range(longest) for found in by_rank.values()]


def mean_bytes(folder, loras):
    files = [folder / lora / "adapter_model.safetensors" for lora in loras]
    return statistics.mean(file.stat().st_size for file in files)


def names_of(count):
    return tuple(f"lora-{i:04d}" for i in range(count))


def start_server(args, count, limit_mib):
    """A server with `count` registered adapters."""
    limits = f"--max-adapter-mib {limit_mib} --kv-mib {args.kv_mib}"
    if args.memory_mib is not None:
        limits = f"--memory-mib {args.memory_mib or limit_mib + args.kv_mib}"
    flags = f"--adapter-root {args.loras} {limits} {args.polyad_flags}"
    log = str(args.log_folder / f"polyad-{count}.log")
    server = servers.Polyad(args.polyad, args.model, log, flags=flags)
    server.start()
    loras = find_loras(args.loras)
    for i, name in enumerate(names_of(count)):
        http_client.load_adapter(server.url, name, loras[i % len(loras)])
    return server


def trace(args, count, alpha):
    return load.Load(
        url="",
        concurrency=args.concurrency,
        requests=args.requests,
        lengths=tuple(args.lengths),
        adapters="power",
        alpha=alpha,
        adapter_names=names_of(count),
    )


def read_back(server):
    return http_client.metrics(server.url)["polyad_adapters_read_back_total"]


def run_turn(server, one):
    """One run of a load, with how many requests of it found their adapter swapped out."""
    server.resume()
    before = read_back(server)
    run = server.run(one)
    run["missed"] = (read_back(server) - before) / one.requests
    server.pause()
    if run["errors"]:
        raise RuntimeError(f"{len(one.adapter_names)} adapters: {run['first_error']}")
    return run


def measure_misses(server, count, probes, rng):
    """-> median first tokens of adapters that were swapped out, and of the same ones after that."""
    server.resume()
    missed, found = [], []
    for i in rng.sample(range(count), min(probes, count)):
        client = prefixes.Client(server.addresses["http"], names_of(count)[i])
        before = read_back(server)
        prompt = lambda: prefixes.random_prompt(rng, MISS_PROMPT_TOKENS)
        first = client.first_token_ms(prompt())
        if read_back(server) > before:
            missed.append(first)
            found.append(client.first_token_ms(prompt()))
        client.connection.close()
    server.pause()
    if not missed:
        return {}
    return {
        "miss_first_token_ms": statistics.median(missed),
        "found_first_token_ms": statistics.median(found),
        "misses_probed": len(missed),
    }


def measure(args):
    """-> {"count alpha": summary of runs}, and what a miss costs."""
    limit_mib = round(args.fitting * mean_bytes(args.loras, find_loras(args.loras)) / MIB)
    running, runs = {}, {}
    result = {"limit_mib": limit_mib}
    try:
        for count in (args.few, args.fitting, args.many):
            running[count] = start_server(args, count, limit_mib)
            result[f"adapter_mb_of_{count}"] = (
                http_client.metrics(running[count].url)["polyad_adapter_bytes"] / 1e6
            )
            running[count].pause()
        turns = [(count, alpha) for alpha in args.alphas for count in running]
        for turn in range(args.rounds + 1):
            shift = turn % len(turns)
            for count, alpha in turns[shift:] + turns[:shift]:
                one = dataclasses.replace(trace(args, count, alpha), seed=args.seed + turn)
                run = run_turn(running[count], one)
                if turn > 0:  # the first warms up
                    runs.setdefault((count, alpha), []).append(run)
                    print(
                        f"  round {turn}: {count} at alpha {alpha}: {run['gen_tok_s']:.1f} tok/s, "
                        f"{run['missed']:.0%} missed",
                        flush=True,
                    )
        result["runs"] = {
            f"{count} {alpha}": load.summarise(found) for (count, alpha), found in runs.items()
        }
        rng = random.Random(args.seed)
        result |= measure_misses(running[args.many], args.many, args.miss_probes, rng)
    finally:
        for server in running.values():
            server.stop()
    return result


def rows_of(args, result):
    """-> [(alpha, tokens/s of few, fitting, many, share missed, many / few, limit or None)]."""
    rows = []
    for alpha in args.alphas:
        runs = [result["runs"][f"{n} {alpha}"] for n in (args.few, args.fitting, args.many)]
        speeds = [run["gen_tok_s"] for run in runs]
        ratio = speeds[2] / speeds[0]
        rows.append((alpha, *speeds, runs[2]["missed"], ratio, LIMITS.get(alpha)))
    return rows


def print_report(args, result, rows):
    print(f"memory for adapters: {result['limit_mib']} MiB")
    if args.memory_mib is not None:
        shared = args.memory_mib or result["limit_mib"] + args.kv_mib
        print(f"shared with K/V: {shared} MiB")
    print(
        f"| alpha | {args.few} | {args.fitting} | {args.many} registered, tokens/s | missed "
        f"| {args.many} / {args.fitting} | {args.many} / {args.few} | at least |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for alpha, few, fitting, many, missed, ratio, limit in rows:
        asked = "" if limit is None else f"{limit:.2f}"
        print(
            f"| {alpha} | {few:.1f} | {fitting:.1f} | {many:.1f} | {missed:.0%} "
            f"| {many / fitting:.2f} | {ratio:.2f} | {asked} |"
        )
    if "misses_probed" in result:
        print(
            f"first token of {MISS_PROMPT_TOKENS} tokens, {result['misses_probed']} adapters: "
            f"{result['miss_first_token_ms']:.1f} ms swapped out, "
            f"{result['found_first_token_ms']:.1f} ms resident"
        )


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    servers.add_model(parser)
    parser.add_argument(
        "--loras", type=pathlib.Path, required=True, help="directory with adapters' directories"
    )
    parser.add_argument("--few", type=int, default=5)
    parser.add_argument("--fitting", type=int, default=200, help="what the memory is for")
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--alphas", type=float, nargs="+", default=list(LIMITS))
    parser.add_argument(
        "--lengths",
        type=int,
        nargs=2,
        default=(8, 512),
        help="of prompts and of answers, from the first up to the second, exclusive",
    )
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64, help="of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--miss-probes", type=int, default=40)
    parser.add_argument("--kv-mib", type=int, default=1024, help="K/V pool of each server")
    parser.add_argument(
        "--memory-mib",
        type=int,
        nargs="?",
        const=0,
        help="one limit for adapters and K/V; without a number both limits' sum",
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", help="file to which the result is written")
    args = parser.parse_args()
    args.loras = args.loras.resolve()
    return args


def main():
    args = parse_args()
    described = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        args.log_folder = pathlib.Path(folder)
        result = measure(args)
    rows = rows_of(args, result)
    print_report(args, result, rows)
    if args.json:
        result.update(machine=described)
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(limit is not None and ratio < limit for *_, ratio, limit in rows))


if __name__ == "__main__":
    main()
