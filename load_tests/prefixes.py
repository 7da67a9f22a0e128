#!/usr/bin/env python3
"""What soft prompts and shared prompt beginnings cost: first tokens, blocks, and leaks of time.

On one server: the first token of a request over a soft prompt of 512 tokens against the same
request without it, taking turns; the K/V blocks of several such requests at once; and a beginning
of 1,024 tokens that requests of one adapter share, the first request's first token against the
later ones'. Then, on a server with two tenants, whether one can tell from the time to the first
token what the other has cached: probes of prompts that the other sent before and of prompts that
nobody did, as the area under the ROC curve (0.5: it cannot). Exits 1 where a limit is passed.

  prefixes.py --polyad build/release/bin/polyad --model HF_DIR
"""

import argparse
import hashlib
import http.client
import json
import pathlib
import random
import statistics
import struct
import sys
import tempfile
import threading
import time

import http_client
import load
import machine
import servers

SOFT_TOKENS = 512
PROMPT_TOKENS = (16, 128)
BLOCK_TOKENS = 16
SHARED_TOKENS = 1024
SHARED_REQUESTS = 32
NUM_STREAMS = 8
SOFT_LIMIT = 1.05
SHARED_LIMIT = 0.10
PROBE_LIMIT = 0.55
PROBE_TOKENS = 256
TIMEOUT_SECONDS = 120


def write_soft_prompt(directory, hidden, seed):
    """A PEFT prompt-tuning adapter of SOFT_TOKENS random embeddings."""
    directory.mkdir()
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": SOFT_TOKENS,
        "token_dim": hidden,
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    rng = random.Random(seed)
    values = [rng.gauss(0, 0.05) for _ in range(SOFT_TOKENS * hidden)]
    data = struct.pack(f"<{len(values)}f", *values)
    entry = {"dtype": "F32", "shape": [SOFT_TOKENS, hidden], "data_offsets": [0, len(data)]}
    header = json.dumps({"prompt_embeddings": entry}).encode()
    header += b" " * (-len(header) % 8)
    with open(directory / "adapter_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + data)


def random_prompt(rng, count):
    return [rng.randint(load.FIRST_PROMPT_ID, load.LAST_PROMPT_ID) for _ in range(count)]


class Client:
    """One kept connection; the key is sent as a bearer token where there is one."""

    def __init__(self, address, model="", key=""):
        self.connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        self.model = model
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def first_token_ms(self, prompt, max_tokens=1):
        """Milliseconds until the first text of a streamed answer, which is read to its end."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        data = json.dumps(body)
        started = time.perf_counter()
        self.connection.request("POST", "/v1/completions", data, self.headers)
        answer = self.connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"expected 200, got {answer.status}: {answer.read()!r}")
        first = None
        for line in answer:
            if first is None and load.TEXT_EVENT.search(line):
                first = (time.perf_counter() - started) * 1e3
        if first is None:
            raise RuntimeError("an answer brought no text")
        return first


def measure_soft(address, rng, turns, prompt_tokens):
    """-> median first tokens, base and soft, of prompts that nobody shares."""
    base, soft = Client(address), Client(address, "soft")
    times = {"base": [], "soft": []}
    for turn in range(turns + 2):
        order = [("base", base), ("soft", soft)]
        for name, client in order if turn % 2 else reversed(order):
            elapsed = client.first_token_ms(random_prompt(rng, prompt_tokens))
            if turn >= 2:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def most_blocks(server, model, rng):
    """The most blocks in use while NUM_STREAMS requests of equal length run."""
    address = server.addresses["http"]
    threads = [
        threading.Thread(
            target=Client(address, model).first_token_ms, args=(random_prompt(rng, 100), 60)
        )
        for _ in range(NUM_STREAMS)
    ]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, int(http_client.metrics(server.url)["polyad_kv_blocks_used"]))
    return most


def measure_shared(address, rng):
    """-> first tokens of requests with one beginning, in their order."""
    client = Client(address, "soft")
    client.first_token_ms(random_prompt(rng, SHARED_TOKENS + 16))  # warm
    beginning = random_prompt(rng, SHARED_TOKENS)
    return [
        client.first_token_ms(beginning + random_prompt(rng, 16)) for _ in range(SHARED_REQUESTS)
    ]


def roc_area(cached, fresh):
    """The chance that a probe of a cached prompt is faster than one of a fresh prompt."""
    ranked = sorted([(value, True) for value in cached] + [(value, False) for value in fresh])
    wins = seen = 0
    for _, is_cached in ranked:
        if is_cached:
            seen += 1
        else:
            wins += seen
    return wins / (len(cached) * len(fresh))


def measure_probes(args, folder, log):
    """-> areas of a foreign tenant's probes, and of the owner's own as a check of the probe."""
    keys = {tenant: f"key-of-{tenant}" for tenant in ("owner", "prober")}
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()}
    tenants = {"tenants": {name: {"keys": [digest]} for name, digest in digests.items()}}
    (folder / "tenants").write_text(json.dumps(tenants), encoding="utf-8")
    flags = f"--tenants-file {folder / 'tenants'} {args.polyad_flags}"
    server = servers.Polyad(args.polyad, args.model, log, flags=flags)
    server.start()
    try:
        address = server.addresses["http"]
        owner, prober = (Client(address, key=key) for key in keys.values())
        rng = random.Random(args.seed)
        times = {"foreign": ([], []), "own": ([], [])}
        for _ in range(args.probes // 2):
            for whose, client in (("foreign", prober), ("own", owner)):
                cached, fresh = random_prompt(rng, PROBE_TOKENS), random_prompt(rng, PROBE_TOKENS)
                owner.first_token_ms(cached)
                probes = [(cached, times[whose][0]), (fresh, times[whose][1])]
                rng.shuffle(probes)
                for prompt, to in probes:
                    to.append(client.first_token_ms(prompt))
        return {whose: roc_area(*pair) for whose, pair in times.items()}
    finally:
        server.stop()


def measure(args, folder):
    log = str(folder / "polyad.log")
    hidden = json.loads((args.model / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    write_soft_prompt(folder / "soft", hidden, args.seed)
    flags = f"--adapter-root {folder} {args.polyad_flags}"
    server = servers.Polyad(args.polyad, args.model, log, flags=flags)
    server.start()
    try:
        rng = random.Random(args.seed)
        http_client.load_adapter(server.url, "soft", "soft")
        computed = http_client.metrics(server.url)["polyad_soft_prompt_tokens_total"]
        first = {
            count: measure_soft(server.addresses["http"], rng, args.turns, count)
            for count in PROMPT_TOKENS
        }
        blocks = {model: most_blocks(server, model, rng) for model in ("", "soft")}
        shared = measure_shared(server.addresses["http"], rng)
        again = http_client.metrics(server.url)["polyad_soft_prompt_tokens_total"]
    finally:
        server.stop()
    result = {
        f"{name}_first_token_of_{count}_ms": medians[name]
        for count, medians in first.items()
        for name in ("base", "soft")
    }
    result |= {
        "blocks_of_streams": blocks[""],
        "blocks_of_streams_with_soft_prompt": blocks["soft"],
        "shared_first_ms": shared[0],
        "shared_later_ms_median": statistics.median(shared[1:]),
        "shared_later_ms_max": max(shared[1:]),
        "soft_tokens_computed_by_the_load": computed,
        "soft_tokens_computed_by_requests": again - computed,
    }
    if args.probes:
        areas = measure_probes(args, folder, log)
        result.update(probe_area=areas["foreign"], own_probe_area=areas["own"])
    return result


def limits_of(result):
    """(what, value, limit)."""
    limits = [
        (
            f"first token of {count} tokens over a soft prompt / without",
            result[f"soft_first_token_of_{count}_ms"] / result[f"base_first_token_of_{count}_ms"],
            SOFT_LIMIT,
        )
        for count in PROMPT_TOKENS
    ]
    limits += [
        (
            "blocks a soft prompt adds to all its requests together",
            result["blocks_of_streams_with_soft_prompt"] - result["blocks_of_streams"],
            SOFT_TOKENS // BLOCK_TOKENS,
        ),
        ("soft prompt tokens computed by requests", result["soft_tokens_computed_by_requests"], 0),
        (
            f"later first tokens over {SHARED_TOKENS} shared tokens / the first",
            result["shared_later_ms_median"] / result["shared_first_ms"],
            SHARED_LIMIT,
        ),
    ]
    if "probe_area" in result:
        area = max(result["probe_area"], 1 - result["probe_area"])
        limits.append(("ROC area of another tenant's probes", area, PROBE_LIMIT))
    return limits


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    servers.add_model(parser)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--probes", type=int, default=2000, help="0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="file to which the result is written")
    return parser.parse_args()


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, pathlib.Path(folder))
    result["machine"] = machine.describe()
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    for name, value in result.items():
        if name != "machine":
            print(f"{name}: {value:.3f}")
    failed = False
    for what, value, limit in limits_of(result):
        passed = value <= limit
        failed = failed or not passed
        print(f"{'ok' if passed else 'PASSED THE LIMIT'}: {what}: {value:.3f} (limit {limit})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
