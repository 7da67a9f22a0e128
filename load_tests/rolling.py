#!/usr/bin/env python3
"""Rolling restarts of two servers under load: no stream that a server took may be cut.

Two polyads and clients that go to them in turn. A server gets SIGTERM, drains and ends while the
clients go on; it is started again and is ready before it is the other one's turn. Nobody tells the
clients: one that is refused (503, a refused or reset connection before the first byte of an answer)
asks the other server. Some read slowly, with small socket buffers and pauses, so that what a server
has said is still on its way when it wants to end.

Taken means that the answer's head has come. A taken stream that ends without its last event is cut;
a request that no server takes within --patience is lost. Either makes the script fail, as does a
server that does not end with 0.

  rolling.py --model HF_DIR --restarts 50
"""

import argparse
import asyncio
import collections
import json
import pathlib
import random
import socket
import sys
import tempfile
import time
import urllib.parse

import load
import machine
import servers

RETRY_SECONDS = 0.02
ANSWER_TIMEOUT_SECONDS = 600
# Slow readers ask for much more text than the sockets between hold, half a mebibyte.
SLOW_PAUSE_SECONDS = 0.1
SLOW_READ_BYTES = 16384
SLOW_BUFFER_BYTES = 4096
SLOW_CHOICES = 4
SLOW_LOGPROBS = 20


class Fleet:
    """The servers that clients know of, and what became of their requests."""

    def __init__(self, vocabulary, args):
        self.vocabulary = vocabulary
        self.args = args
        self.urls = []
        self.turn = 0
        self.counts = collections.Counter()
        self.under_way = collections.Counter()  # by url: taken and not ended
        self.cut = []

    def next_url(self):
        self.turn += 1
        return self.urls[self.turn % len(self.urls)]

    def request(self, url, rng, slow):
        body = {
            "prompt": [rng.randrange(3, self.vocabulary) for _ in range(self.args.prompt_tokens)],
            "max_tokens": self.args.gen_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        if slow:
            body.update(n=SLOW_CHOICES, logprobs=SLOW_LOGPROBS)
        return load.make_http_request(url, "/v1/completions", body)

    async def ask(self, rng, slow):
        """One request until a server takes it."""
        until = time.monotonic() + self.args.patience
        while time.monotonic() < until:
            url = self.next_url()
            taken = await self.ask_at(url, rng, slow)
            if taken:
                return
            self.counts["asked again"] += 1
            await asyncio.sleep(RETRY_SECONDS)
        self.counts["lost"] += 1

    async def ask_at(self, url, rng, slow):
        """-> whether the server took it."""
        place = urllib.parse.urlsplit(url)
        sock = socket.socket()
        sock.setblocking(False)
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        answer = b""
        taken = False
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (place.hostname, place.port))
            await loop.sock_sendall(sock, self.request(place, rng, slow))
            while True:
                size = SLOW_READ_BYTES if slow else 65536
                piece = await asyncio.wait_for(loop.sock_recv(sock, size), ANSWER_TIMEOUT_SECONDS)
                answer += piece
                if not taken and b"\r\n" in answer:
                    status = answer.split(b"\r\n", 1)[0]
                    if b" 503 " in status or b" 429 " in status:
                        self.counts["refused"] += 1
                        return False
                    taken = True
                    self.under_way[url] += 1
                if not piece or load.END_OF_STREAM in answer:
                    break
                if slow:
                    await asyncio.sleep(SLOW_PAUSE_SECONDS)
        except OSError as error:
            if not taken:
                self.counts[f"no answer ({type(error).__name__})"] += 1
                return False
            answer += str(error).encode()
        finally:
            sock.close()
            if taken:
                self.under_way[url] -= 1
        if not taken:
            self.counts["no answer (closed)"] += 1
            return False
        if load.END_OF_STREAM in answer:
            self.counts["slow and whole" if slow else "whole"] += 1
            self.counts["slow bytes"] += len(answer) if slow else 0
        else:
            self.counts["cut"] += 1
            self.cut.append(f"{'slow, ' if slow else ''}{len(answer)} bytes: ...{answer[-200:]!r}")
        return True

    async def client(self, number, done):
        rng = random.Random(f"{self.args.seed} {number}")
        while not done.is_set():
            await self.ask(rng, slow=number < self.args.slow)


async def restart(fleet, fleet_servers, which):
    """SIGTERM, the end, a new start, while the clients go on. -> seconds the drain took"""
    server = fleet_servers[which]
    loop = asyncio.get_running_loop()
    fleet.counts["under way at a signal"] += fleet.under_way[fleet.urls[which]]
    started = time.perf_counter()
    server.process.terminate()
    code = await loop.run_in_executor(None, server.process.wait)
    took = time.perf_counter() - started
    if code != 0:
        raise RuntimeError(f"server {which}: expected to end with 0, got {code}")
    server.stop()
    await loop.run_in_executor(None, server.start)
    fleet.urls[which] = server.url
    return took


async def roll(fleet, fleet_servers, args):
    done = asyncio.Event()
    clients = [asyncio.create_task(fleet.client(i, done)) for i in range(args.concurrency)]
    drains = []
    try:
        for number in range(args.restarts):
            await asyncio.sleep(args.pause)
            drains.append(await restart(fleet, fleet_servers, number % 2))
    finally:
        done.set()
        await asyncio.gather(*clients)
    return drains


def make_server(args, log):
    # A stream goes into the server's buffer whole, so that a slow reader is not given up.
    flags = f"--kv-mib 64 --drain-ms 60000 --stream-buffer-kib 1024 {args.polyad_flags}"
    server = servers.Polyad(args.polyad, args.model, log, flags=flags)
    # Answers wait here rather than in the kernel.
    return server


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = pathlib.Path(__file__).resolve().parent.parent
    servers.add_polyad(parser)
    parser.add_argument("--model", type=pathlib.Path, default=root / "tests/golden/models/llama")
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--slow", type=int, default=4, help="of those, how many read slowly")
    parser.add_argument("--prompt-tokens", type=int, default=8)
    parser.add_argument("--gen-tokens", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between restarts")
    parser.add_argument("--patience", type=float, default=300)
    parser.add_argument("--vocabulary", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="file for the whole result")
    return parser.parse_args()


def main():
    args = parse_args()
    fleet = Fleet(args.vocabulary, args)
    with tempfile.TemporaryDirectory() as folder:
        logs = [pathlib.Path(folder) / f"log-{i}" for i in range(2)]
        fleet_servers = [make_server(args, log) for log in logs]
        try:
            for server in fleet_servers:
                server.start()
                fleet.urls.append(server.url)
            drains = asyncio.run(roll(fleet, fleet_servers, args))
        finally:
            for server in fleet_servers:
                server.stop()
    counts = dict(sorted(fleet.counts.items()))
    print(
        f"{args.restarts} restarts, drains p50/max {load.percentile(drains, 50):.2f}/"
        f"{max(drains):.2f} s: {json.dumps(counts)}"
    )
    for text in fleet.cut[:10]:
        print("cut:", text)
    if args.json:
        result = {"counts": counts, "drain_seconds": drains, "machine": machine.describe()}
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    if counts.get("cut") or counts.get("lost") or not counts.get("whole"):
        sys.exit(f"expected no stream cut and no request lost, got {counts}")
    if not counts.get("under way at a signal"):
        sys.exit("no stream was under way at any signal: nothing was tried")


if __name__ == "__main__":
    main()
