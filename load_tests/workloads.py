#!/usr/bin/env python3
"""Arrival traces of published and of adversarial workloads, as JSON lines for `polyad bench`.

A line is one request: at_s (seconds after the start, rising), model, tenant, prompt_tokens,
output_tokens, and where a workload has them prefix and prefix_tokens (requests of one prefix number
begin with the same tokens), read_pause_ms (before every read), cancel_after_tokens. Equal arguments
give equal lines, on every machine.

  slora       S-LoRA (Sheng et al. 2023), benchmarks/trace.py: adapter int(N x), x drawn from the
              power distribution, so that the first k adapters get (k / N) ** alpha of the requests;
              lengths uniform over [8, 512); gaps gamma, of coefficient of variation cv
  punica      Punica (Chen et al. 2023): a closed set that arrives at once; identical, distinct,
              uniform or skewed popularity; prompts log-normal, totals uniform below 2048
  noisy       equal Poisson tenants, of which the first sends fifty times what the others do
  thrash      one adapter more than there are slots for, in turn: the worst case of LRU
  flash       Poisson; then within a second twenty times as much, the surplus for one adapter
  prefix      every tenant's prompts begin with a system prompt of its own, of 256 tokens
  slow        one reader of ten waits before every read
  cancels     three requests of ten are cancelled part-way
  diurnal     one day, rate between a fifth of the peak and the peak, squeezed into the duration
  zipf        Poisson; adapter i with weight 1 / i ** exponent

  workloads.py slora --adapters 32 --rate 4 --duration 60 --scale 8 > trace.jsonl
"""

import argparse
import bisect
import collections
import inspect
import itertools
import json
import math
import random
import sys

import numpy_random

SLORA_LENGTHS = (8, 512)  # of prompts and of answers, exclusive
SLORA_FIRST_TOKEN_S = 6.0
PUNICA_SEED = 0xABCDABCD987
PUNICA_MAX_TOKENS = 2048
POPULARITIES = ("identical", "distinct", "uniform", "skewed")
NOISY_TIMES = 50
FLASH_TIMES = 20
SYSTEM_PROMPT_TOKENS = 256
MAX_REQUESTS = 10_000_000


def slora(adapters=200, alpha=1.0, rate=2.0, cv=1.0, duration=300.0, seed=42):
    """S-LoRA's draws in S-LoRA's order: adapters, prompts, answers, gaps."""
    rng = numpy_random.Legacy(seed)
    count = int(rate * duration)
    chosen = [int(x * adapters) for x in rng.power(alpha, count)]
    prompts = rng.randint(*SLORA_LENGTHS, count)
    answers = rng.randint(*SLORA_LENGTHS, count)
    times = itertools.accumulate(rng.gamma(1 / (cv * cv), cv * cv / rate, count))
    return [request(*fields) for fields in zip(times, chosen, prompts, answers)]


def slora_satisfaction(first_token_s):
    """S-LoRA's metric of one request; None: it was aborted."""
    if first_token_s is None or first_token_s >= SLORA_FIRST_TOKEN_S:
        return 0.0
    return 1 - (first_token_s / SLORA_FIRST_TOKEN_S) ** 2


def punica_counts(count, popularity):
    """How many of `count` requests ask for each LoRA."""
    if popularity == "identical":
        return [count]
    if popularity == "distinct":
        return [1] * count
    if popularity == "uniform":
        loras = math.ceil(math.sqrt(count))
        return [count // loras + (i < count % loras) for i in range(loras)]
    if popularity != "skewed":
        raise ValueError(f"popularity: expected one of {POPULARITIES}, got {popularity}")
    counts, next_count = [], 1.0
    while sum(counts) + int(next_count) < count:
        counts.append(int(next_count))
        next_count *= 1.5
    return sorted(counts + [count - sum(counts)], reverse=True)


def punica_lengths(count, max_tokens=PUNICA_MAX_TOKENS):
    """-> [(prompt, answer)] in tokens."""
    rng = numpy_random.Generator(PUNICA_SEED)
    drawn = [math.exp(0.8 * rng.normal()) * 18.0 - 1.0 for _ in range(count)]
    prompts = [int(min(max(x, 1), max_tokens - 2)) for x in drawn]
    totals = rng.integers(0, max_tokens, count)
    return [(p, max(p + 2, total) - p) for p, total in zip(prompts, totals)]


def punica(popularity="skewed", count=1024):
    """Everything arrives at once: a batch of 32 is the server's matter."""
    loras = [i for i, n in enumerate(punica_counts(count, popularity)) for _ in range(n)]
    numpy_random.Generator(PUNICA_SEED).shuffle(loras)
    lengths = punica_lengths(count)
    return [request(0.0, lora, *pair) for lora, pair in zip(loras, lengths)]


def request(at_s, adapter, prompt_tokens, output_tokens, tenant=0, **more):
    """`adapter`, `tenant`: indices, which main() turns into names."""
    return {
        "at_s": at_s,
        "model": adapter,
        "tenant": tenant,
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        **more,
    }


def poisson(rng, rate, duration):
    """Arrivals of a Poisson process."""
    at_s = rng.expovariate(rate)
    while at_s < duration:
        yield at_s
        at_s += rng.expovariate(rate)


def varying(rng, rate_at, peak, duration):
    """Arrivals of a Poisson process of rate rate_at(t) <= peak, by thinning."""
    return [t for t in poisson(rng, peak, duration) if rng.random() * peak < rate_at(t)]


def lengths_of(rng):
    return rng.randrange(*SLORA_LENGTHS), rng.randrange(*SLORA_LENGTHS)


def noisy(adapters=8, rate=2.0, duration=60.0, seed=1):
    """`rate`: of each of the quiet tenants, whose requests do not depend on the noisy one's."""
    found = []
    for tenant in range(adapters):
        rng = random.Random(f"{seed} {tenant}")
        times = NOISY_TIMES if tenant == 0 else 1
        for at_s in poisson(rng, rate * times, duration):
            found.append(request(at_s, tenant, *lengths_of(rng), tenant=tenant))
    return sorted(found, key=lambda one: one["at_s"])


def thrash(slots=8, rate=2.0, duration=60.0, seed=1):
    rng = random.Random(seed)
    return [
        request(i / rate, i % (slots + 1), *lengths_of(rng)) for i in range(int(rate * duration))
    ]


def flash(adapters=8, rate=2.0, duration=60.0, seed=1):
    """The crowd comes after a third of the time, leaves after another."""
    rng = random.Random(seed)
    begin, end = duration / 3, duration * 2 / 3

    def surplus(at_s):
        risen = min(max(at_s - begin, 0.0), 1.0)
        return rate * (FLASH_TIMES - 1) * risen if at_s < end else 0.0

    usual = [(t, rng.randrange(adapters)) for t in poisson(rng, rate, duration)]
    crowd = [(t, 0) for t in varying(rng, surplus, rate * (FLASH_TIMES - 1), duration)]
    return [request(t, adapter, *lengths_of(rng)) for t, adapter in sorted(usual + crowd)]


def prefix(adapters=8, rate=2.0, duration=60.0, seed=1):
    rng = random.Random(seed)
    found = []
    for at_s in poisson(rng, rate, duration):
        tenant, (own, answer) = rng.randrange(adapters), lengths_of(rng)
        beginning = {"prefix": tenant, "prefix_tokens": SYSTEM_PROMPT_TOKENS}
        found.append(
            request(at_s, tenant, SYSTEM_PROMPT_TOKENS + own, answer, tenant=tenant, **beginning)
        )
    return found


def slow(adapters=8, rate=2.0, duration=60.0, seed=1, share=0.1, pause_ms=200):
    rng = random.Random(seed)
    found = []
    for at_s in poisson(rng, rate, duration):
        more = {"read_pause_ms": pause_ms} if rng.random() < share else {}
        found.append(request(at_s, rng.randrange(adapters), *lengths_of(rng), **more))
    return found


def cancels(adapters=8, rate=2.0, duration=60.0, seed=1, share=0.3):
    rng = random.Random(seed)
    found = []
    for at_s in poisson(rng, rate, duration):
        one = request(at_s, rng.randrange(adapters), *lengths_of(rng))
        if rng.random() < share:
            one["cancel_after_tokens"] = rng.randrange(1, one["output_tokens"])
        found.append(one)
    return found


def diurnal(adapters=8, rate=2.0, duration=60.0, seed=1):
    """`rate`: of the peak, in the middle."""
    rng = random.Random(seed)
    rate_at = lambda t: rate * (0.6 - 0.4 * math.cos(2 * math.pi * t / duration))
    times = varying(rng, rate_at, rate, duration)
    return [request(t, rng.randrange(adapters), *lengths_of(rng)) for t in times]


def zipf(adapters=8, rate=2.0, duration=60.0, seed=1, exponent=1.0):
    rng = random.Random(seed)
    sums = list(itertools.accumulate(1 / (i + 1) ** exponent for i in range(adapters)))
    pick = lambda: min(bisect.bisect(sums, rng.random() * sums[-1]), adapters - 1)
    return [request(t, pick(), *lengths_of(rng)) for t in poisson(rng, rate, duration)]


def scaled(trace, divisor):
    """All lengths divided, at least 1, prompts longer than their prefix."""
    for one in trace:
        for key in ("prompt_tokens", "output_tokens", "prefix_tokens", "cancel_after_tokens"):
            if key in one:
                one[key] = max(1, one[key] // divisor)
        one["prompt_tokens"] = max(one["prompt_tokens"], one.get("prefix_tokens", 0) + 1)
        yield one


def named(trace, model_format, tenant_format):
    for one in trace:
        one["model"] = model_format.format(one["model"])
        one["tenant"] = tenant_format.format(one["tenant"])
        one["at_s"] = round(one["at_s"], 6)
        yield one


def read(lines):
    """-> [request] of a trace's lines."""
    return [json.loads(line) for line in lines if line.strip()]


def shares(trace):
    """-> [(model, share of the requests)], the most asked for first."""
    counts = collections.Counter(one["model"] for one in trace)
    return [(model, count / len(trace)) for model, count in counts.most_common()]


WORKLOADS = {
    "slora": (slora, ("adapters", "alpha", "rate", "cv", "duration", "seed")),
    "punica": (punica, ("popularity", "count")),
    "noisy": (noisy, ("adapters", "rate", "duration", "seed")),
    "thrash": (thrash, ("slots", "rate", "duration", "seed")),
    "flash": (flash, ("adapters", "rate", "duration", "seed")),
    "prefix": (prefix, ("adapters", "rate", "duration", "seed")),
    "slow": (slow, ("adapters", "rate", "duration", "seed", "share", "pause_ms")),
    "cancels": (cancels, ("adapters", "rate", "duration", "seed", "share")),
    "diurnal": (diurnal, ("adapters", "rate", "duration", "seed")),
    "zipf": (zipf, ("adapters", "rate", "duration", "seed", "exponent")),
}
FLOATS = ("alpha", "rate", "cv", "duration", "share", "exponent")


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="workload", required=True)
    for name, (_, flags) in WORKLOADS.items():
        command = commands.add_parser(name)
        for flag in flags:
            if flag == "popularity":
                command.add_argument("--popularity", choices=POPULARITIES)
                continue
            kind = float if flag in FLOATS else int
            command.add_argument("--" + flag.replace("_", "-"), type=kind)
        command.add_argument("--scale", type=int, default=1, help="lengths are divided by this")
        command.add_argument("--model", default="lora-{:02d}", help="format of an adapter's name")
        command.add_argument("--tenant", default="tenant-{}", help="format of a tenant's name")
    args = parser.parse_args(arguments)
    if args.scale < 1:
        parser.error("--scale: expected at least 1")
    for flag in WORKLOADS[args.workload][1]:
        value = getattr(args, flag)
        if flag not in ("popularity", "seed") and value is not None and not value > 0:
            parser.error(f"--{flag.replace('_', '-')}: expected more than 0, got {value}")
    if not most_requests(args) <= MAX_REQUESTS:
        parser.error(f"expected a workload of at most {MAX_REQUESTS} requests")
    if (getattr(args, "adapters", None) or 1) > MAX_REQUESTS:
        parser.error(f"--adapters: expected at most {MAX_REQUESTS}")
    return args


def most_requests(args):
    """About how many requests a workload has at most."""
    function, flags = WORKLOADS[args.workload]
    defaults = inspect.signature(function).parameters
    value = {flag: getattr(args, flag) or defaults[flag].default for flag in flags}
    if args.workload == "punica":
        return value["count"]
    times = {"noisy": NOISY_TIMES - 1 + value.get("adapters", 1), "flash": FLASH_TIMES}
    return value["rate"] * value["duration"] * times.get(args.workload, 1)


def make(args):
    function, flags = WORKLOADS[args.workload]
    given = {flag: getattr(args, flag) for flag in flags if getattr(args, flag) is not None}
    return named(scaled(function(**given), args.scale), args.model, args.tenant)


def main():
    for one in make(parse_args()):
        sys.stdout.write(json.dumps(one, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
