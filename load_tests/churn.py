#!/usr/bin/env python3
"""Thousands of short requests that end in every way, then a look for anything they left behind.

Starts polyad on a tiny model and runs a seeded mix: complete answers (streamed or not), clients
that vanish before, during or right after the answer starts, requests that must be refused, and
adapters that come and go under the traffic. A reference completion is repeated throughout and must
never change. When all is done and every adapter unloaded, the server must hold no running or
waiting request, no K/V block and no adapter version (so no lease), and no more threads or
descriptors than after the warm-up.

  churn.py --polyad build/release/bin/polyad --model TINY_HF_DIR --adapters DIR --count 20000
"""

import argparse
import asyncio
import collections
import json
import pathlib
import random
import sys
import tempfile
import time
import urllib.parse

import http_client
import machine
import servers

WARM_UP_REQUESTS = 300
ANSWER_TIMEOUT_SECONDS = 60
NUM_NAMES = 6
NUM_LOOKS = 5
# Weights of the mix. Loads and unloads are 4% of all requests.
MIX = {
    "complete": 50,
    "stream": 20,
    "leave_in_stream": 12,
    "leave_after_sending": 6,
    "leave_in_request": 2,
    "refused": 6,
    "load": 2,
    "unload": 2,
}
# What each kind may answer: a name may be gone (404), being loaded or present already (409, 400),
# and the queue may be full (429, 503).
ALLOWED = {
    "complete": {200, 404, 429, 503},
    "stream": {200, 404, 429, 503},
    "refused": {400, 404},
    "load": {200, 400, 409},
    "unload": {200, 404},
}


class Churn:
    """The state that the workers share: the mix, what was answered, the first surprises."""

    def __init__(self, url, adapters, vocab_size, seed):
        self.url = urllib.parse.urlsplit(url)
        self.adapters = adapters
        self.vocab_size = vocab_size
        self.rng = random.Random(seed)
        self.counts = collections.Counter()
        self.surprises = []
        self.reference = None

    def surprise(self, text):
        self.counts["surprise"] += 1
        if len(self.surprises) < 10:
            self.surprises.append(text)

    def completion(self, stream):
        rng = self.rng
        names = [""] + [f"churn-{i}" for i in range(NUM_NAMES)]
        return {
            "model": rng.choice(names),
            "prompt": [rng.randrange(3, self.vocab_size) for _ in range(rng.randint(1, 48))],
            "max_tokens": rng.randint(1, 24),
            "temperature": rng.choice([0, 0, 0.8]),
            "seed": rng.randrange(1 << 30),
            "stream": stream,
            "ignore_eos": True,
        }

    def refused(self):
        """A body that breaks one rule."""
        body = self.completion(stream=False)
        body.update(
            self.rng.choice(
                [
                    {"prompt": [self.vocab_size + 7]},
                    {"prompt": [-1]},
                    {"model": "no-such-adapter"},
                    {"temperature": -1},
                    {"max_tokens": -5},
                    {"prompt": {"not": "a prompt"}},
                ]
            )
        )
        return body

    async def connect(self, path, body):
        """-> (reader, writer) with the request sent."""
        reader, writer = await asyncio.open_connection(self.url.hostname, self.url.port)
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.url.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + payload)
        return reader, writer

    async def ask(self, path, body):
        """The whole answer: (status, bytes after the head)."""
        reader, writer = await self.connect(path, body)
        try:
            answer = await asyncio.wait_for(reader.read(), ANSWER_TIMEOUT_SECONDS)
        finally:
            writer.transport.abort()
        head, _, rest = answer.partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        return (int(words[1]) if len(words) > 1 else 0), rest

    async def leave(self, kind):
        """Sends all or half of a request and goes away, maybe after a piece of the answer."""
        if kind == "leave_in_request":
            reader, writer = await asyncio.open_connection(self.url.hostname, self.url.port)
            writer.write(
                b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"pro'
            )
            await writer.drain()
        else:
            body = self.completion(stream=True)
            body["max_tokens"] = 64
            reader, writer = await self.connect("/v1/completions", body)
            await writer.drain()
            if kind == "leave_in_stream":
                await asyncio.wait_for(
                    reader.read(self.rng.randint(1, 2000)), ANSWER_TIMEOUT_SECONDS
                )
        writer.transport.abort()

    async def check_reference(self):
        body = {
            "prompt": list(range(3, 23)),
            "max_tokens": 16,
            "temperature": 0,
            "ignore_eos": True,
        }
        status, answer = await self.ask("/v1/completions", body)
        if status in (429, 503):
            return
        start = answer.find(b"{")
        text = (
            json.loads(answer[start : answer.rfind(b"}") + 1])["choices"][0]["text"]
            if status == 200
            else None
        )
        if self.reference is None:
            self.reference = text
        if text is None or text != self.reference:
            self.surprise(
                f"reference completion: expected {self.reference!r}, got {status} {text!r}"
            )

    async def step(self, kind):
        if kind.startswith("leave"):
            await self.leave(kind)
            return
        name = f"churn-{self.rng.randrange(NUM_NAMES)}"
        if kind == "load":
            body = {"lora_name": name, "lora_path": self.rng.choice(self.adapters)}
            status, answer = await self.ask("/v1/load_lora_adapter", body)
        elif kind == "unload":
            status, answer = await self.ask("/v1/unload_lora_adapter", {"lora_name": name})
        else:
            body = self.refused() if kind == "refused" else self.completion(kind == "stream")
            status, answer = await self.ask("/v1/completions", body)
        self.counts[f"{kind} {status}"] += 1
        if status not in ALLOWED[kind]:
            self.surprise(f"{kind}: unexpected status {status}: {answer[:200]!r}")
        if kind == "stream" and status == 200 and b"data: [DONE]" not in answer:
            self.surprise(f"a stream ended without [DONE]: {answer[-200:]!r}")

    async def run(self, count, concurrency):
        kinds = iter(self.rng.choices(list(MIX), list(MIX.values()), k=count))

        async def worker():
            for kind in kinds:
                self.counts[kind] += 1
                try:
                    await self.step(kind)
                except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                    self.surprise(f"{kind}: {type(error).__name__} {error}")
                if self.rng.random() < 0.005:
                    await self.check_reference()

        await self.check_reference()
        await asyncio.gather(*[worker() for _ in range(concurrency)])
        await self.check_reference()


def unload_all(url):
    for i in range(NUM_NAMES):
        status, text = http_client.post(url, "/v1/unload_lora_adapter", {"lora_name": f"churn-{i}"})
        if status not in (200, 404):
            raise RuntimeError(f"unloading churn-{i}: expected 200 or 404, got {status}: {text}")


def holdings(server):
    """What the server holds now, by name; all but threads and descriptors are zero when idle."""
    pid, values = server.process.pid, http_client.metrics(server.url)
    return {
        "running requests": values["vllm:num_requests_running"],
        "waiting requests": values["vllm:num_requests_waiting"],
        "K/V blocks": values["polyad_kv_blocks_used"],
        "adapter versions": values.get("polyad_adapters", 0),
        "adapter bytes": values["polyad_adapter_bytes"],
        "threads": machine.num_threads(pid),
        "descriptors": machine.num_descriptors(pid),
    }


def lowest_holdings(server):
    """The least of several looks, since connections that just ended take a moment to close."""
    looks = []
    for _ in range(NUM_LOOKS):
        looks.append(holdings(server))
        time.sleep(0.2)
    return {key: min(look[key] for look in looks) for key in looks[0]}


def settle(server, allowed, seconds):
    """Waits up to `seconds` until nothing is held beyond `allowed`; -> the last look."""
    deadline = time.monotonic() + seconds
    while True:
        held = holdings(server)
        if all(held[key] <= allowed.get(key, 0) for key in held) or time.monotonic() > deadline:
            return held
        time.sleep(0.2)


def run(args, server):
    """-> (counts, what was left beyond what is allowed, surprises)."""
    config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    adapters = sorted(path.name for path in args.adapters.iterdir() if path.is_dir())
    churn = Churn(server.url, adapters, config["vocab_size"], args.seed)
    asyncio.run(churn.run(WARM_UP_REQUESTS, args.concurrency))
    unload_all(server.url)
    before = lowest_holdings(server)
    resident = machine.resident_kib(server.process.pid)
    started = time.perf_counter()
    asyncio.run(churn.run(args.count, args.concurrency))
    seconds = time.perf_counter() - started
    unload_all(server.url)
    allowed = {key: before[key] for key in ("threads", "descriptors")}
    after = settle(server, allowed, args.settle_seconds)
    grown = (machine.resident_kib(server.process.pid) - resident) / 1024
    print(f"{args.count} requests in {seconds:.1f} s; resident memory grew by {grown:.1f} MiB")
    print(f"after warm-up: {before}\nafterwards:    {after}")
    left = {key: value for key, value in after.items() if value > allowed.get(key, 0)}
    if grown > args.max_growth_mib:
        left["resident MiB"] = grown
    return churn.counts, left, churn.surprises


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = pathlib.Path(__file__).resolve().parent.parent
    servers.add_polyad(parser)
    parser.add_argument("--model", type=pathlib.Path, default=root / "tests/golden/models/llama")
    parser.add_argument(
        "--adapters", type=pathlib.Path, default=root / "tests/golden/adapters/llama"
    )
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle-seconds", type=float, default=30)
    parser.add_argument("--max-growth-mib", type=float, default=64)
    return parser.parse_args()


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "polyad.log"
        flags = f"--adapter-root {args.adapters.resolve()} {args.polyad_flags}"
        server = servers.Polyad(args.polyad, args.model, str(log), flags=flags)
        server.start()
        try:
            counts, left, surprises = run(args, server)
            died = server.process.poll() is not None
        finally:
            server.stop()
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    for surprise in surprises:
        print("surprise:", surprise)
    if died or left or counts["surprise"]:
        print(tail, file=sys.stderr)
        sys.exit(f"left behind: {left}; surprises: {counts['surprise']}; died: {died}")
    print("nothing left behind")


if __name__ == "__main__":
    main()
