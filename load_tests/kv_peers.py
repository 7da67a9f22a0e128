#!/usr/bin/env python3
"""K/V in fewer bits and a shared beginning, beside llama.cpp's server, in one run.

Every server has the same bf16 weights; polyad keeps K/V as bf16, int8 and int4, llama.cpp as bf16,
q8_0 and q4_0. All are up at once and take turns, those that wait are paused: streams over a prompt
of --prompt-tokens, --streams at a time, for the time between their tokens and to the first one.
Then, on the servers with bf16, requests one after the other that begin with the same tokens: the
first one's first token against the median of the later ones'. A peer's flags are its best of what
was tried. No limits: it prints each turn, then a table. A round takes 13 minutes on two cores,
nearly all of them the peer's prompts.

  kv_peers.py --model HF_DIR --llama-server PROGRAM --bf16-gguf FILE
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import statistics
import tempfile
import urllib.parse

import load
import machine
import servers

POLYAD_FORMATS = ("bf16", "int8", "int4")
LLAMA_FORMATS = ("bf16", "q8_0", "q4_0")
OWN_TOKENS = 16


def start_all(args, folder):
    """-> {name: server}, each paused."""
    room = args.prompt_tokens + args.gen_tokens + 64
    most = max(args.streams)
    running = {}
    for kind in POLYAD_FORMATS:
        flags = f"--kv-mib {args.kv_mib} --kv-dtype {kind} {args.polyad_flags}"
        name = f"polyad {kind}"
        running[name] = servers.Polyad(args.polyad, args.model, f"{folder}/{name}.log", flags=flags)
    for kind in LLAMA_FORMATS:
        flags = (
            f"-t {os.cpu_count()} -np {most} -c {room * most} --cache-ram 0 "
            f"-ctk {kind} -ctv {kind} {args.llama_flags}"
        )
        name = f"llama.cpp {kind}"
        running[name] = servers.LlamaServer(
            args.llama_server, args.bf16_gguf, f"{folder}/{name}.log", (), flags
        )
    for server in running.values():
        server.start()
        server.pause()
    return running


def measure_streams(args, running):
    """-> {name: {streams: medians of the turns' medians}}."""
    turns = {name: {count: [] for count in args.streams} for name in running}
    for turn in range(args.rounds):
        names = list(running)
        for name in names[turn % len(names):] + names[: turn % len(names)]:
            running[name].resume()
            for count in args.streams:
                one = load.Load(url="", concurrency=count, requests=count, seed=turn + 1,
                                prompt_tokens=args.prompt_tokens, gen_tokens=args.gen_tokens)
                result = running[name].run(one)
                if result["errors"]:
                    raise RuntimeError(f"{name}: {result['first_error']}")
                turns[name][count].append(result)
                print(f"{name}, {count} streams: {result['itl_p50_ms']:.1f} ms a token, "
                      f"{result['ttft_p50_ms']:.0f} ms to the first", flush=True)
            running[name].pause()
    return {
        name: {
            count: {key: statistics.median(one[key] for one in results)
                    for key in ("itl_p50_ms", "ttft_p50_ms")}
            for count, results in by_count.items()
        }
        for name, by_count in turns.items()
    }


def first_token_ms(server, prompt):
    base = load.Load(url=server.url, model=server.model, adapter_style=server.adapter_style,
                     gen_tokens=2)
    url = urllib.parse.urlsplit(server.url)
    body = load.make_body(base, 0, random.Random(0)) | {"prompt": prompt}
    if server.adapter_style == "llamacpp":
        body["cache_prompt"] = True
    request = load.make_http_request(url, "/v1/completions", body)
    answer = load.read_answer(asyncio.run(load.send(url, request, base.timeout_seconds)))
    if answer.error:
        raise RuntimeError(f"{server.name}: {answer.error}")
    return answer.ttft_ms


def measure_shared(args, server):
    """-> first tokens in ms of requests with one beginning: the first one's, the others' median."""
    rng = random.Random(7)
    draw = lambda count: [rng.randrange(load.FIRST_PROMPT_ID, load.LAST_PROMPT_ID)
                          for _ in range(count)]
    beginning = draw(args.shared_tokens)
    server.resume()
    first_token_ms(server, draw(OWN_TOKENS))  # warm
    times = [first_token_ms(server, beginning + draw(OWN_TOKENS)) for _ in range(args.sharers)]
    server.pause()
    return {"first_ms": times[0], "later_ms": statistics.median(times[1:])}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    servers.add_model(parser)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--llama-flags", default="-fa on -lm none")
    parser.add_argument("--bf16-gguf", type=pathlib.Path, required=True)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--gen-tokens", type=int, default=100)
    parser.add_argument("--shared-tokens", type=int, default=1024)
    parser.add_argument("--sharers", type=int, default=16)
    parser.add_argument("--kv-mib", type=int, default=1024, help="K/V pool of each polyad")
    parser.add_argument("--json", help="file to which the result is written")
    return parser.parse_args()


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = start_all(args, folder)
        try:
            streams = measure_streams(args, running)
            shared = {name: measure_shared(args, running[name])
                      for name in ("polyad bf16", "llama.cpp bf16")}
        finally:
            for server in running.values():
                server.stop()
    print(f"| prompt of {args.prompt_tokens} |"
          + "".join(f" token of {n} at a time, ms | first token, ms |" for n in args.streams)
          + "\n|---" + "|---|---" * len(args.streams) + "|")
    for name, by_count in streams.items():
        cells = [f"{by_count[count][key]:.1f}" for count in args.streams
                 for key in ("itl_p50_ms", "ttft_p50_ms")]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name, times in shared.items():
        print(f"{name}: {args.shared_tokens} shared tokens, first request {times['first_ms']:.1f} "
              f"ms, later ones {times['later_ms']:.1f} ms")
    if args.json:
        result = {"streams": streams, "shared": shared, "machine": machine.describe()}
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
