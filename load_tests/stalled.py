#!/usr/bin/env python3
"""Readers that stop reading: whether those who do read feel it, over HTTP.

Rounds of three kinds take turns. In all, clients stream and read in closed loops while --stalled
other requests run beside them for the whole round:

  silent    those answer in one piece at the end, so nothing is written for them meanwhile
  read      those are streams, and their clients take what comes ten times a second
  stalled   those are streams whose clients never read a byte, with small socket buffers

The work is the same, token for token; what differs is what the server does with output that nobody
takes. Fails where the readers' p99 between tokens, or to the first, is more than --max-change above
that of the read rounds, or where one of their streams is not whole. After each round the server
must hold nothing of those that stalled.

  stalled.py --model HF_DIR
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import pathlib
import random
import socket
import sys
import tempfile
import time
import urllib.parse

import http_client
import load
import machine
import servers

SETTLE_SECONDS = 1.5  # of a round, until the beside ones are past their prompts
SMALL_BUFFER_BYTES = 4096
BESIDE_LOGPROBS = 5  # makes an event larger, so that sockets fill
END_SECONDS = 60
READ_SECONDS = 0.1
KINDS = ("silent", "read", "stalled")


def beside_body(base, rng, stream, tokens):
    body = load.make_body(dataclasses.replace(base, gen_tokens=tokens), 0, rng)
    body["logprobs"] = BESIDE_LOGPROBS
    if not stream:
        body.update(stream=False, stream_options=None)
    return body


async def take(sockets):
    """Reads whatever has come, and throws it away."""
    while True:
        for sock in sockets:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sock.recv(1 << 20)
        await asyncio.sleep(READ_SECONDS)


@contextlib.asynccontextmanager
async def beside(base, args, kind, seed):
    """--stalled requests under way, until the block ends."""
    url = urllib.parse.urlsplit(base.url)
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    sockets = []
    try:
        for _ in range(args.stalled):
            sock = socket.socket()
            if kind == "stalled":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
            sock.setblocking(False)
            sockets.append(sock)
            await loop.sock_connect(sock, (url.hostname, url.port))
            body = beside_body(base, rng, kind != "silent", args.beside_tokens)
            request = load.make_http_request(url, "/v1/completions", body)
            await loop.sock_sendall(sock, request)
        taking = asyncio.create_task(take(sockets) if kind == "read" else asyncio.sleep(0))
        yield
        taking.cancel()
    finally:
        for sock in sockets:
            sock.close()


async def one_round(base, args, kind, seed):
    """-> the readers' answers of one round."""
    url = urllib.parse.urlsplit(base.url)
    streams = []
    async with beside(base, args, kind, seed):
        await asyncio.sleep(SETTLE_SECONDS)
        stop = time.perf_counter() + args.seconds

        async def reader(number):
            rng = random.Random(f"{seed} {number}")
            while time.perf_counter() < stop:
                request = load.make_http_request(
                    url, "/v1/completions", load.make_body(base, 0, rng)
                )
                streams.append(await load.send(url, request, base.timeout_seconds))

        await asyncio.gather(*[reader(i) for i in range(args.readers)])
    return [load.read_answer(stream) for stream in streams]


def wait_until_empty(server):
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        values = http_client.metrics(server.url)
        held = {
            name: values[name]
            for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "polyad_kv_blocks_used")
        }
        if not any(held.values()):
            return {}
        time.sleep(0.1)
    return held


def times_of(answers):
    good = [answer for answer in answers if not answer.error]
    gaps = [gap for answer in good for gap in answer.gaps_ms]
    return {
        "answers": len(good),
        "failed": len(answers) - len(good),
        "first_error": next((answer.error for answer in answers if answer.error), ""),
        "itl_p50_ms": load.percentile(gaps, 50),
        "itl_p99_ms": load.percentile(gaps, 99),
        "ttft_p50_ms": load.percentile([answer.ttft_ms for answer in good], 50),
        "ttft_p99_ms": load.percentile([answer.ttft_ms for answer in good], 99),
    }


def run(args, server):
    base = load.Load(
        url=server.url, prompt_tokens=args.prompt_tokens, gen_tokens=args.gen_tokens, seed=args.seed
    )
    answers = {kind: [] for kind in KINDS}
    left = {}
    for number in range(args.rounds):
        for kind in KINDS[number % 3 :] + KINDS[: number % 3]:
            answers[kind] += asyncio.run(one_round(base, args, kind, args.seed + number))
            left = left or wait_until_empty(server)
    result = {kind: times_of(answers[kind]) for kind in KINDS}
    result["left"] = left
    for name in ("itl_p99_ms", "ttft_p99_ms"):
        result[f"{name[:-3]}_change"] = result["stalled"][name] / result["read"][name] - 1
    return result


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    servers.add_model(parser)
    parser.add_argument("--stalled", type=int, default=64)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="of each kind")
    parser.add_argument("--seconds", type=float, default=10, help="of each")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--gen-tokens", type=int, default=32)
    parser.add_argument("--beside-tokens", type=int, default=1000)
    parser.add_argument("--max-change", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="file for the whole result")
    return parser.parse_args()


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--max-running {args.stalled + args.readers} --kv-mib 2048"
        with servers.running_polyad(args, flags, folder) as server:
            result = run(args, server)
    result["machine"] = machine.describe()
    print(json.dumps(result, indent=1))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    wrong = [
        f"{name}: expected a change of at most {args.max_change}, got {result[name]:.3f}"
        for name in ("itl_p99_change", "ttft_p99_change")
        if not result[name] <= args.max_change
    ]
    failed = sum(result[kind]["failed"] for kind in KINDS)
    if failed or result["left"]:
        wrong.append(f"{failed} readers failed, left behind: {result['left']}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
