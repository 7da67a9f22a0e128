#!/usr/bin/env python3
"""Ten times as many requests as a server can serve, for a minute, over HTTP.

First the machine's own rate: closed loops of as many clients as there are places, the tokens of
answers that were read to the end. Then Poisson arrivals at ten times the rate of requests that
this made, none waiting for another, each on a connection of its own. Counted are

  refusals   429 with Retry-After, and how long from connecting to the whole answer
  goodput    tokens of answers read to the end, against the peak's
  TTFT       of the answered, from connecting, against --max-wait-ms, which is the server's too
  memory     the server's resident memory at its most, against --max-growth-mib above the peak's

Fails where one is beyond its limit, where an answer is neither 200 nor 429, or where the server is
gone. The client runs on the server's cores; the share of one that it takes is printed.

  overload.py --model HF_DIR --seconds 60
"""

import argparse
import asyncio
import dataclasses
import json
import os
import pathlib
import random
import sys
import tempfile
import time
import urllib.parse

import load
import machine
import servers

LOOK_SECONDS = 0.5
DRAIN_SECONDS = 60
SETTLE_SECONDS = 5  # of a loop that do not count: places fill, queues form


class Answer(asyncio.Protocol):
    """One request: when its head, its first text and its end came; keeps no text."""

    def __init__(self, request, done):
        self.request = request
        self.done = done
        self.started = time.perf_counter()
        self.head = b""
        self.status = 0
        self.first_text = None
        self.ended = None
        self.tokens = 0
        self.whole = False
        self.tail = b""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data):
        now = time.perf_counter()
        if not self.status:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            self.status = int(self.head[9:12])
        window = self.tail + data
        if self.status == 200:
            events = len(load.TEXT_EVENT.findall(window)) - len(load.TEXT_EVENT.findall(self.tail))
            if events and self.first_text is None:
                self.first_text = now
            self.tokens += events
            if load.END_OF_STREAM in window:
                self.whole = True
        self.ended = now
        self.tail = window[-64:]

    def connection_lost(self, error):
        if not self.done.done():
            self.done.set_result(None)


async def ask(url, request, timeout_seconds):
    loop = asyncio.get_running_loop()
    answer = Answer(request, loop.create_future())
    try:
        transport, _ = await loop.create_connection(lambda: answer, url.hostname, url.port)
    except OSError as error:
        answer.head = str(error).encode()
        return answer
    try:
        await asyncio.wait_for(answer.done, timeout_seconds)
    finally:
        transport.abort()
    return answer


@dataclasses.dataclass
class Loop:
    """What one loop amounts to."""

    answers: list
    begin: float
    end: float

    def goodput(self):
        """Tokens a second, of answers whose end came within the loop's counted time."""
        begin = self.begin + SETTLE_SECONDS
        tokens = sum(a.tokens for a in self.answers if a.whole and begin <= a.ended <= self.end)
        return tokens / (self.end - begin)


async def peak(base, url, concurrency, seconds):
    rng = random.Random(base.seed)
    answers = []
    begin = time.perf_counter()

    async def worker():
        while time.perf_counter() < begin + seconds:
            body = load.make_body(base, len(answers), rng)
            request = load.make_http_request(url, "/v1/completions", body)
            answers.append(await ask(url, request, base.timeout_seconds))

    await asyncio.gather(*[worker() for _ in range(concurrency)])
    return Loop(answers, begin, begin + seconds)


async def flood(base, url, rate, seconds, look):
    """Open loop. Requests are made beforehand, so that the client does little while it lasts."""
    rng = random.Random(base.seed + 1)
    arrivals, at = [], rng.expovariate(rate)
    while at < seconds:
        arrivals.append(at)
        at += rng.expovariate(rate)
    bodies = [load.make_body(base, i, rng) for i in range(min(len(arrivals), 2000))]
    requests = [load.make_http_request(url, "/v1/completions", body) for body in bodies]
    tasks = []
    watching = asyncio.create_task(look())
    begin = time.perf_counter()
    for number, moment in enumerate(arrivals):
        await asyncio.sleep(max(0.0, begin + moment - time.perf_counter()))
        request = requests[number % len(requests)]
        tasks.append(asyncio.create_task(ask(url, request, base.timeout_seconds)))
    done, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
    watching.cancel()
    for task in late:
        task.cancel()
    return Loop([task.result() for task in done], begin, begin + seconds), len(late)


def run(args, server):
    url = urllib.parse.urlsplit(server.url)
    base = load.Load(
        url=server.url, prompt_tokens=args.prompt_tokens, gen_tokens=args.gen_tokens, seed=args.seed
    )
    asyncio.run(peak(base, url, args.max_running, 2))  # warm
    alone = asyncio.run(peak(base, url, args.max_running, args.peak_seconds))
    resident = machine.resident_kib(server.process.pid)
    most = resident
    rate = args.times * alone.goodput() / args.gen_tokens

    async def look():
        nonlocal most
        while server.process.poll() is None:
            most = max(most, machine.resident_kib(server.process.pid))
            await asyncio.sleep(LOOK_SECONDS)

    cpu = time.process_time()
    flooded, late = asyncio.run(flood(base, url, rate, args.seconds, look))
    cpu = time.process_time() - cpu
    answered = [a for a in flooded.answers if a.status == 200]
    refused = [a for a in flooded.answers if a.status == 429]
    others = [a for a in flooded.answers if a.status not in (200, 429)]
    ttft = [(a.first_text - a.started) * 1e3 for a in answered if a.first_text]
    return {
        "peak_tokens_per_second": alone.goodput(),
        "offered_per_second": rate,
        "requests": len(flooded.answers) + late,
        "answered": len(answered),
        "cut": sum(not a.whole for a in answered),
        "refused": len(refused),
        "without_retry": sum(b"retry-after:" not in a.head.lower() for a in refused),
        "other": [a.head[:100].decode(errors="replace") for a in others[:5]],
        "num_other": len(others) + late,
        "goodput_share": flooded.goodput() / alone.goodput(),
        "refusal_p50_ms": load.percentile([(a.ended - a.started) * 1e3 for a in refused], 50),
        "refusal_p99_ms": load.percentile([(a.ended - a.started) * 1e3 for a in refused], 99),
        "ttft_p50_ms": load.percentile(ttft, 50),
        "ttft_p99_ms": load.percentile(ttft, 99),
        "growth_mib": (most - resident) / 1024,
        "client_cores": cpu / args.seconds,
        "alive": server.process.poll() is None,
    }


def broken(result, args):
    """What is beyond its limit, in words."""
    out = []
    if not result["alive"]:
        out.append("the server is gone")
    if result["num_other"]:
        out.append(f"{result['num_other']} answers neither 200 nor 429: {result['other']}")
    if result["cut"] or result["without_retry"]:
        out.append(f"{result['cut']} cut, {result['without_retry']} refusals without Retry-After")
    for name, limit in (
        ("refusal_p99_ms", args.max_refusal_ms),
        ("ttft_p99_ms", args.max_wait_ms),
        ("growth_mib", args.max_growth_mib),
    ):
        if not result[name] <= limit:
            out.append(f"{name}: expected at most {limit}, got {result[name]:.1f}")
    if not result["goodput_share"] >= args.min_goodput:
        out.append(f"goodput: expected {args.min_goodput} of the peak, got {result['goodput_share']:.3f}")
    return out


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    servers.add_model(parser)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--peak-seconds", type=float, default=30)
    parser.add_argument("--max-running", type=int, default=16)
    parser.add_argument("--max-wait-ms", type=int, default=5000)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--gen-tokens", type=int, default=32)
    parser.add_argument("--max-refusal-ms", type=float, default=50)
    parser.add_argument("--min-goodput", type=float, default=0.9)
    parser.add_argument("--max-growth-mib", type=float, default=128)
    parser.add_argument("--nice", type=int, default=0, help="of this client, below 0 as root")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="file for the whole result")
    return parser.parse_args()


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--max-running {args.max_running} --max-wait-ms {args.max_wait_ms} "
            "--http-max-connections 8192"
        )
        with servers.running_polyad(args, flags, folder) as server:
            os.nice(args.nice)
            result = run(args, server)
    result["machine"] = machine.describe()
    print(json.dumps(result, indent=1))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    wrong = broken(result, args)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
