#!/usr/bin/env python3
"""Closed-loop streaming load on an OpenAI-style /v1/completions endpoint.

C workers each send a request, read its stream to the end and send the next. Prompts are token ids
drawn from a seeded generator, different for every request, so no prefix cache helps; ignore_eos
makes every request generate the same number of tokens. The adapter is picked by the "model" field,
or, with --adapter-style llamacpp, by llama-server's per-request "lora" field.

The client shares its cores with the server it measures, so while a run lasts it only stores what
arrives and when; events are found and counted after the clock has stopped. Standard library only.

Throughput is generated tokens (as the server's usage block counts them) over the wall time of the
whole loop, prefill included. TTFT is the time from connecting to the first event that carries text,
ITL the gap between later such events.

  load.py --url http://127.0.0.1:8080 --model smollm2-135m --concurrency 32 --adapters distinct
"""

import argparse
import asyncio
import bisect
import dataclasses
import json
import random
import re
import statistics
import sys
import time
import urllib.parse

# An event that carries text: OpenAI's completion chunk with a non-empty "text".
TEXT_EVENT = re.compile(rb'"text":\s*"(?!")')
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
END_OF_STREAM = b"data: [DONE]"
# Token ids that are ordinary words in the vocabularies of interest.
FIRST_PROMPT_ID, LAST_PROMPT_ID = 1000, 20000


@dataclasses.dataclass
class Load:
    """One load to put on a server. Counts are per run; seconds where a name says so."""

    url: str
    model: str = ""
    concurrency: int = 1
    requests: int = 4
    prompt_tokens: int = 128
    gen_tokens: int = 64
    lengths: tuple = ()  # instead: both are drawn for each request from [first, second)
    adapters: str = "none"
    alpha: float = 1.0  # of adapters "power"
    adapter_names: tuple = ()
    adapter_style: str = "model"
    seed: int = 1
    timeout_seconds: float = 600.0


def percentile(values, percent):
    """Linear interpolation between the closest ranks; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def choose_adapter(load, request_index, rng):
    """Index of the adapter that request `request_index` asks for, or None for the base model."""
    count = len(load.adapter_names)
    if load.adapters == "none":
        return None
    if load.adapters == "one":
        return 0
    if load.adapters == "zipf":
        return rng.choices(range(count), [1 / (i + 1) for i in range(count)])[0]
    if load.adapters == "power":  # the first k are asked for (k / count) ** alpha of the time
        return int(count * rng.random() ** (1 / load.alpha))
    return request_index % count


def make_body(load, request_index, rng):
    lengths = (load.prompt_tokens, load.gen_tokens)
    if load.lengths:
        lengths = (rng.randrange(*load.lengths), rng.randrange(*load.lengths))
    body = {
        "model": load.model,
        "prompt": [rng.randrange(FIRST_PROMPT_ID, LAST_PROMPT_ID) for _ in range(lengths[0])],
        "max_tokens": lengths[1],
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }
    adapter = choose_adapter(load, request_index, rng)
    if load.adapter_style == "llamacpp":
        body["cache_prompt"] = False
        if adapter is not None:
            body["lora"] = [{"id": adapter, "scale": 1.0}]
    elif adapter is not None:
        body["model"] = load.adapter_names[adapter]
    return body


def make_http_request(url, path, body):
    """The bytes of one POST; the connection closes after its answer."""
    payload = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + payload


class Stream(asyncio.Protocol):
    """Sends one request and keeps every piece of the answer with its time of arrival."""

    def __init__(self, request, done):
        self.request = request
        self.done = done
        self.started = time.perf_counter()
        self.times = []
        self.pieces = []
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data):
        self.times.append(time.perf_counter())
        self.pieces.append(data)
        if END_OF_STREAM in data:  # one cut in two ends with the connection instead
            self.transport.close()
            self.finish()

    def connection_lost(self, error):
        self.finish()

    def finish(self):
        if not self.done.done():
            self.done.set_result(None)


async def send(url, request, timeout_seconds):
    loop = asyncio.get_running_loop()
    stream = Stream(request, loop.create_future())
    stream.started = time.perf_counter()
    await loop.create_connection(lambda: stream, url.hostname, url.port)
    try:
        await asyncio.wait_for(stream.done, timeout_seconds)
    finally:
        stream.transport.abort()
    return stream


@dataclasses.dataclass
class Answer:
    """What one stream amounts to; times in milliseconds."""

    tokens: int = 0
    ttft_ms: float = float("nan")
    gaps_ms: list = dataclasses.field(default_factory=list)
    error: str = ""


def read_answer(stream):
    data = b"".join(stream.pieces)
    status = data.split(b"\r\n", 1)[0]
    if b" 200 " not in status or END_OF_STREAM not in data:
        return Answer(
            error=f"{status.decode(errors='replace')}: {data[-200:].decode(errors='replace')}"
        )
    ends, total = [], 0
    for piece in stream.pieces:
        total += len(piece)
        ends.append(total)
    arrivals = [stream.times[bisect.bisect_left(ends, m.end())] for m in TEXT_EVENT.finditer(data)]
    usage = COMPLETION_TOKENS.findall(data)
    if not arrivals or not usage:
        return Answer(error="no text event or no usage block in a finished stream")
    gaps = [(b - a) * 1e3 for a, b in zip(arrivals, arrivals[1:])]
    return Answer(int(usage[-1]), (arrivals[0] - stream.started) * 1e3, gaps)


async def run_loop(load):
    """Runs the closed loop once; returns (wall seconds, streams)."""
    url = urllib.parse.urlsplit(load.url)
    rng = random.Random(load.seed)
    bodies = [make_body(load, i, rng) for i in range(load.requests)]
    requests = iter([make_http_request(url, "/v1/completions", body) for body in bodies])
    streams = []

    async def worker():
        for request in requests:
            streams.append(await send(url, request, load.timeout_seconds))

    started = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(load.concurrency)])
    return time.perf_counter() - started, streams


def run_once(load):
    """One run of the load as a flat record."""
    wall, streams = asyncio.run(run_loop(load))
    answers = [read_answer(stream) for stream in streams]
    errors = [a.error for a in answers if a.error]
    good = [a for a in answers if not a.error]
    gaps = [gap for a in good for gap in a.gaps_ms]
    tokens = sum(a.tokens for a in good)
    return {
        "gen_tok_s": tokens / wall,
        "wall_s": wall,
        "gen_tokens": tokens,
        "requests": len(good),
        "errors": len(errors),
        "first_error": errors[0] if errors else "",
        "ttft_p50_ms": percentile([a.ttft_ms for a in good], 50),
        "ttft_p99_ms": percentile([a.ttft_ms for a in good], 99),
        "itl_p50_ms": percentile(gaps, 50),
        "itl_p99_ms": percentile(gaps, 99),
    }


def summarise(runs):
    """Medians over repeats, with the range of the throughput."""
    numeric = [k for k, v in runs[0].items() if isinstance(v, (int, float))]
    summary = {k: statistics.median(run[k] for run in runs) for k in numeric}
    rates = [run["gen_tok_s"] for run in runs]
    summary.update(
        gen_tok_s_min=min(rates),
        gen_tok_s_max=max(rates),
        errors=sum(run["errors"] for run in runs),
        first_error=next((run["first_error"] for run in runs if run["first_error"]), ""),
        repeats=len(runs),
    )
    return summary


def describe(label, load, summary):
    s = summary
    return (
        f"{label:24s} C={load.concurrency:<3d} {load.adapters:8s} {s['gen_tok_s']:7.1f} tok/s "
        f"[{s['gen_tok_s_min']:.1f}..{s['gen_tok_s_max']:.1f}]  "
        f"TTFT p50/p99 {s['ttft_p50_ms']:.0f}/{s['ttft_p99_ms']:.0f} ms  "
        f"ITL p50/p99 {s['itl_p50_ms']:.1f}/{s['itl_p99_ms']:.1f} ms  errors {s['errors']}"
    )


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="loopback address of the server")
    parser.add_argument("--model", default="", help="the base model's name")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument(
        "--requests", type=int, help="requests a run (default: concurrency, at least 4)"
    )
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--gen-tokens", type=int, default=64)
    parser.add_argument("--adapters", choices=["none", "one", "distinct", "zipf"], default="none")
    parser.add_argument("--num-adapters", type=int, default=32)
    parser.add_argument("--adapter-name", default="lora-{:02d}", help="format of an adapter's name")
    parser.add_argument("--adapter-style", choices=["model", "llamacpp"], default="model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout-seconds", type=float, default=600)
    parser.add_argument("--label", default="")
    parser.add_argument("--json", help="file to which one JSON line is appended")
    args = parser.parse_args()
    if urllib.parse.urlsplit(args.url).hostname not in ("127.0.0.1", "localhost", "::1"):
        parser.error("--url must be a loopback address")
    return args


def main():
    args = parse_args()
    load = Load(
        url=args.url,
        model=args.model,
        concurrency=args.concurrency,
        requests=args.requests or max(4, args.concurrency),
        prompt_tokens=args.prompt_tokens,
        gen_tokens=args.gen_tokens,
        adapters=args.adapters,
        adapter_names=tuple(args.adapter_name.format(i) for i in range(args.num_adapters)),
        adapter_style=args.adapter_style,
        timeout_seconds=args.timeout_seconds,
    )
    run_once(
        dataclasses.replace(
            load, requests=min(load.requests, 4), gen_tokens=8, seed=args.seed + 10**6
        )
    )
    runs = [run_once(dataclasses.replace(load, seed=args.seed + i)) for i in range(args.repeats)]
    summary = summarise(runs)
    print(describe(args.label, load, summary), flush=True)
    if args.json:
        fields = dataclasses.asdict(load)
        del fields["adapter_names"]
        with open(args.json, "a", encoding="utf-8") as out:
            out.write(json.dumps({"label": args.label, **fields, **summary}) + "\n")
    if summary["errors"]:
        sys.exit(f"{summary['errors']} requests failed, the first with: {summary['first_error']}")


if __name__ == "__main__":
    main()
