#!/usr/bin/env python3
"""Equal tenants of which one offers fifty times what the others do, over HTTP.

First the machine's own rate with a full batch, then four open loops of Poisson arrivals:

  alone    the light tenants, each asking for half of its share, without the heavy one
  shared   the same arrivals, and the heavy one with nine tenths of the rest: a machine in use
  beside   the same arrivals, and the heavy one with fifty times a light one's rate
  flooded  everybody asks for twice its share, the heavy one for fifty times that

The noise is what the flood of the third does to the light tenants' 99th percentiles, of first
tokens and of gaps between tokens, against the second, where the heavy one keeps to what is there.
(Against the first they also pay for using one machine together.) Of the fourth it counts how the
tokens were shared: Jain's index, 1 where all have the same. Fails where that is below --min-jain or
the noise above --max-noise. Refused requests (429) are the heavy tenant's to bear. Standard library
only.

  fairness.py --model HF_DIR --seconds 20
"""

import argparse
import asyncio
import dataclasses
import hashlib
import json
import pathlib
import random
import sys
import tempfile
import time
import urllib.parse

import load
import machine
import servers

HEAVY = "heavy"
HEAVY_TIMES = 50
LIGHT_SHARE = 0.5
SHARED_REST = 0.9
FLOODED_SHARE = 2.0
MAX_QUEUED = 64  # of one tenant
DRAIN_SECONDS = 60


def jain_index(values):
    """(sum x)^2 / (n sum x^2)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else float("nan")


def write_tenants(path, names):
    tenants = {
        name: {
            "keys": [hashlib.sha256(key_of(name).encode()).hexdigest()],
            "max_queued": MAX_QUEUED,
        }
        for name in names
    }
    path.write_text(json.dumps({"tenants": tenants}), encoding="utf-8")


def key_of(name):
    return f"key-of-{name}"


def request_of(url, name, base, rng):
    request = load.make_http_request(url, "/v1/completions", load.make_body(base, 0, rng))
    head = f"\r\nAuthorization: Bearer {key_of(name)}\r\nHost: ".encode()
    return request.replace(b"\r\nHost: ", head, 1)


def arrivals(rates, seconds, seed):
    """[(second, tenant)] in order; a tenant's are the same whoever else there is."""
    out = []
    for name, rate in rates.items():
        rng = random.Random(f"{seed} {name}")
        at = rng.expovariate(rate)
        while at < seconds:
            out.append((at, name))
            at += rng.expovariate(rate)
    return sorted(out)


@dataclasses.dataclass
class Sent:
    """A request's answer and whose it was."""

    tenant: str
    stream: load.Stream


async def open_loop(base, rates, seconds, seed):
    """-> [Sent]; those still under way at the end are awaited."""
    url = urllib.parse.urlsplit(base.url)
    rng = random.Random(seed)
    planned = [
        (at, name, request_of(url, name, base, rng)) for at, name in arrivals(rates, seconds, seed)
    ]
    sent, tasks = [], []

    async def ask(name, request):
        sent.append(Sent(name, await load.send(url, request, base.timeout_seconds)))

    started = time.perf_counter()
    for at, name, request in planned:
        await asyncio.sleep(max(0.0, at - (time.perf_counter() - started)))
        tasks.append(asyncio.create_task(ask(name, request)))
    done, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
    for task in late:
        task.cancel()
    for task in done:
        task.result()
    return started, sent


def tokens_within(sent, end):
    """{tenant: text events that came before `end`}, those of unfinished answers too."""
    tokens = {}
    for one in sent:
        for moment, piece in zip(one.stream.times, one.stream.pieces):
            if moment <= end:
                events = len(load.TEXT_EVENT.findall(piece))
                tokens[one.tenant] = tokens.get(one.tenant, 0) + events
    return tokens


def times_of(sent, names):
    """Percentiles of the tenants' answers, and how many were refused or failed."""
    answers = [load.read_answer(one.stream) for one in sent if one.tenant in names]
    good = [answer for answer in answers if not answer.error]
    refused = [answer for answer in answers if " 429 " in answer.error]
    gaps = [gap for answer in good for gap in answer.gaps_ms]
    return {
        "answers": len(good),
        "refused": len(refused),
        "failed": len(answers) - len(good) - len(refused),
        "ttft_p50_ms": load.percentile([answer.ttft_ms for answer in good], 50),
        "ttft_p99_ms": load.percentile([answer.ttft_ms for answer in good], 99),
        "itl_p50_ms": load.percentile(gaps, 50),
        "itl_p99_ms": load.percentile(gaps, 99),
    }


async def full_rate(base, concurrency, seconds):
    """Requests a second with `concurrency` of the heavy tenant's under way."""
    url = urllib.parse.urlsplit(base.url)
    rng = random.Random(base.seed)
    ended = []
    stop = time.perf_counter() + seconds

    async def worker():
        while time.perf_counter() < stop:
            await load.send(url, request_of(url, HEAVY, base, rng), base.timeout_seconds)
            ended.append(time.perf_counter())

    started = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(concurrency)])
    return len(ended) / (max(ended) - started)


def measure(base, args):
    lights = [f"light-{i}" for i in range(args.tenants - 1)]
    asyncio.run(full_rate(base, args.max_running, 2))  # warm
    rate = asyncio.run(full_rate(base, args.max_running, args.seconds / 2))
    share = rate / args.tenants
    result = {"requests_per_second": rate}
    light = {name: LIGHT_SHARE * share for name in lights}
    rest = rate - sum(light.values())
    for loop, rates in (
        ("alone", light),
        ("shared", {**light, HEAVY: SHARED_REST * rest}),
        ("beside", {**light, HEAVY: HEAVY_TIMES * LIGHT_SHARE * share}),
    ):
        _, sent = asyncio.run(open_loop(base, rates, args.seconds, args.seed))
        result[loop] = {"light": times_of(sent, lights), "heavy": times_of(sent, [HEAVY])}
    result["noise"] = {
        name: result["beside"]["light"][name] / result["shared"]["light"][name] - 1
        for name in ("ttft_p99_ms", "itl_p99_ms")
    }
    rates = {name: FLOODED_SHARE * share for name in lights}
    rates[HEAVY] = HEAVY_TIMES * FLOODED_SHARE * share
    started, sent = asyncio.run(open_loop(base, rates, args.seconds, args.seed))
    tokens = tokens_within(sent, started + args.seconds)
    result["flooded"] = {
        "tokens": tokens,
        "jain": jain_index([tokens.get(name, 0) for name in [HEAVY, *lights]]),
        "light": times_of(sent, lights),
        "heavy": times_of(sent, [HEAVY]),
    }
    return result


def describe(result):
    print(f"full batch: {result['requests_per_second']:.1f} requests/s")
    for loop in ("alone", "shared", "beside", "flooded"):
        for who in ("light", "heavy"):
            times = result[loop][who]
            if times["answers"] + times["refused"] == 0:
                continue
            print(
                f"{loop:8s} {who:6s} {times['answers']:5d} answers {times['refused']:6d} refused "
                f"{times['failed']:3d} failed  TTFT p50/p99 {times['ttft_p50_ms']:.0f}/"
                f"{times['ttft_p99_ms']:.0f} ms  ITL p50/p99 {times['itl_p50_ms']:.1f}/"
                f"{times['itl_p99_ms']:.1f} ms"
            )
    for name, noise in result["noise"].items():
        print(f"noise: {name} {noise:+.1%}")
    print(f"flooded: Jain's index of tokens {result['flooded']['jain']:.3f}")


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    servers.add_model(parser)
    parser.add_argument("--tenants", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20, help="of each loop")
    parser.add_argument("--max-running", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--gen-tokens", type=int, default=32)
    parser.add_argument("--max-noise", type=float, default=0.10)
    parser.add_argument("--min-jain", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="file for the whole result")
    return parser.parse_args()


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        names = [HEAVY, *[f"light-{i}" for i in range(args.tenants - 1)]]
        write_tenants(folder / "tenants.json", names)
        flags = (
            f"--tenants-file {folder / 'tenants.json'} --max-running {args.max_running} "
            "--http-max-connections 8192"
        )
        with servers.running_polyad(args, flags, folder) as server:
            base = load.Load(
                url=server.url, prompt_tokens=args.prompt_tokens, gen_tokens=args.gen_tokens
            )
            result = measure(base, args)
    describe(result)
    if args.json:
        result["machine"] = machine.describe()
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    wrong = [
        f"noise, {name}: expected at most {args.max_noise}, got {noise:.3f}"
        for name, noise in result["noise"].items()
        if not noise <= args.max_noise
    ]
    if not result["flooded"]["jain"] >= args.min_jain:
        jain = result["flooded"]["jain"]
        wrong.append(f"Jain's index: expected at least {args.min_jain}, got {jain}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
