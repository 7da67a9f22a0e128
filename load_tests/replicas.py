#!/usr/bin/env python3
"""Replicas behind HAProxy under an open load: one is added, killed, started again and drained.

Each polyad has a network namespace of its own, HAProxy has deploy/haproxy.cfg, and `polyad bench`
sends half of the requests over gRPC and half over HTTP, on time whatever becomes of the earlier
ones. What must hold:

  stable   nothing fails, and all requests of an adapter are served by one replica
  added    nothing fails; afterwards only the newcomer has taken over adapters, and has some
  killed   SIGKILL: whatever fails was under way on that replica at that moment
  back     started again it has the adapters it had before, and nobody else's
  drained  SIGTERM: no stream that had begun is lost and the program ends with 0. Over HTTP nothing
           fails; over gRPC a request that it refuses before HAProxy has noticed may (UNAVAILABLE)

Needs root, iproute2 and haproxy; exits 77 where there are none. Exits 1 where something does not
hold, and where there was nothing under way to lose.

  replicas.py --model MODEL --loras DIR --seconds 30 --rounds 5
"""

import argparse
import collections
import json
import pathlib
import shutil
import sys
import time

import fleet as fleet_module
import load
import machine
import namespaces
import servers
import workloads

SKIPPED = 77
FRONTS = ("grpc", "http")
BURST = 4  # requests of one front at a time, so that some replica gets several at once
UNDER_WAY = 2  # sequences of a replica that is about to be killed or drained
TOKENS_AGO = 8  # that they have got since
TRIES = 5


class Findings:
    """What did not hold."""

    def __init__(self):
        self.found = []

    def expect(self, holds, text):
        if not holds:
            self.found.append(text)
            print(f"  DOES NOT HOLD: {text}", flush=True)


def describe(row):
    keys = ("front", "model", "end", "error", "sent", "first", "ended")
    return json.dumps({key: row.get(key) for key in keys})


def failed(rows):
    return [row for row in rows if row["end"] != "completed"]


def trace_of(args, front, seed):
    """Half of the requests, in bursts, for all adapters in turn: what one front gets."""
    lines = workloads.thrash(args.num_adapters - 1, args.rate / 2, args.seconds, seed)
    shift = FRONTS.index(front) * args.num_adapters // len(FRONTS)
    for i, line in enumerate(lines):
        line["at_s"] = lines[i - i % BURST]["at_s"]
        line["model"] = (line["model"] + shift) % args.num_adapters
        line.update(prompt_tokens=args.prompt_tokens, output_tokens=args.gen_tokens)
    return list(workloads.named(lines, "lora-{:02d}", "tenant-{}"))


class Campaign:
    def __init__(self, args, fleet):
        self.args, self.fleet = args, fleet
        self.findings = Findings()
        self.seed = args.seed
        self.report = []
        self.benches = []

    def run(self, name, event=None):
        """An open load on both fronts, `event()` while it lasts. -> (rows, what event said)"""
        benches = []
        for front in FRONTS:
            self.seed += 1
            benches.append(self.fleet.bench(front, trace_of(self.args, front, self.seed)))
        self.benches = benches
        said = event() if event else None
        rows = [row for bench in benches for row in bench.finish()[1]]
        first_ms = [1e3 * (row["first"] - row["sent"]) for row in rows if row["first"]]
        line = {
            "phase": name,
            "requests": len(rows),
            "failed": len(failed(rows)),
            "ttft_p50_ms": load.percentile(first_ms, 50),
            "ttft_p99_ms": load.percentile(first_ms, 99),
        }
        self.report.append(line)
        return rows, said

    def note(self, **more):
        self.report[-1].update(more)
        line = self.report[-1]
        extra = "".join(f", {key} {value}" for key, value in line.items() if key in more)
        print(
            f"{line['phase']}: {line['requests']} requests, {line['failed']} failed, first tokens "
            f"p50/p99 {line['ttft_p50_ms']:.0f}/{line['ttft_p99_ms']:.0f} ms{extra}",
            flush=True,
        )

    def nothing_failed(self, name, rows):
        for row in failed(rows):
            self.findings.expect(False, f"{name}: {describe(row)}")

    def stable(self, name):
        """-> {adapter: the replica that served all of its requests}"""
        before = self.fleet.counts()
        rows, _ = self.run(name)
        self.nothing_failed(name, rows)
        done = len(rows) - len(failed(rows))

        def served():
            after = self.fleet.counts()
            gone = {
                one: collections.Counter(n) - collections.Counter(before[one])
                for one, n in after.items()
            }
            return gone if sum(map(collections.Counter.total, gone.values())) >= done else None

        served_by = collections.defaultdict(dict)
        for replica, counts in fleet_module.wait_until(served, "counts of requests").items():
            for adapter, count in counts.items():
                served_by[adapter][replica] = count
        asked = collections.Counter(row["model"] for row in rows)
        for adapter, by in served_by.items():
            self.findings.expect(len(by) == 1, f"{name}: {adapter} was served by {by}")
            total = sum(by.values())
            self.findings.expect(
                total == asked[adapter], f"{name}: {adapter}: {asked[adapter]} sent, {total} served"
            )
        homes = {adapter: min(by) for adapter, by in served_by.items()}
        self.note(adapters=dict(sorted(collections.Counter(homes.values()).items())))
        return homes

    def busy_replica(self):
        """One with streams under way, whose first tokens are some steps ago; None: all are over."""
        tokens = {}

        def pick():
            if all(bench.process.poll() is not None for bench in self.benches):
                return (None,)
            for one in self.fleet.replicas:
                running, generated = one.running()
                if running < UNDER_WAY:
                    tokens.pop(one.name, None)
                elif generated - tokens.setdefault(one.name, generated) >= TOKENS_AGO:
                    return (one,)
            return None

        return fleet_module.wait_until(pick, "a replica with streams under way")[0]

    def until_tried(self, phase, homes):
        """Again where the moment was missed and nothing was under way; all are up after it."""
        for _ in range(TRIES):
            replica, tried = phase(homes)
            if replica is None:
                continue
            replica.start()
            self.fleet.wait_for(self.fleet.replicas)
            if tried:
                return
        self.findings.expect(False, f"{phase.__name__}: nothing was under way")

    def add(self, replica):
        def event():
            time.sleep(self.args.seconds / 4)
            replica.start()
            self.fleet.wait_for([one for one in self.fleet.replicas if one.process])

        rows, _ = self.run("added", event)
        self.nothing_failed("added", rows)
        self.note()

    def kill(self, homes):
        def event():
            time.sleep(self.args.seconds / 4)
            replica = self.busy_replica()
            if replica is None:
                return None, 0, 0
            begun = time.time()
            replica.kill()
            return replica, begun, time.time()

        rows, (replica, begun, dead) = self.run("killed", event)
        if replica is None:
            self.note(missed=True)
            return None, False
        self.fleet.wait_for([one for one in self.fleet.replicas if one is not replica])
        under_way = [
            row
            for row in rows
            if homes.get(row["model"]) in (replica.name, None)
            and row["sent"] <= dead
            and row["ended"] >= begun
        ]
        allowed = {id(row) for row in under_way}
        for row in failed(rows):
            self.findings.expect(id(row) in allowed, f"killed {replica.name}: {describe(row)}")
        self.note(replica=replica.name, under_way=len(under_way))
        return replica, bool(under_way)

    def drain(self, homes):
        def event():
            time.sleep(self.args.seconds / 4)
            replica = self.busy_replica()
            if replica is None:
                return None, 0, 0, 0
            asked = time.time()
            replica.process.terminate()
            self.fleet.wait_for([one for one in self.fleet.replicas if one is not replica])
            noticed = time.time()
            code = replica.process.wait()
            replica.stop()
            return replica, code, asked, noticed

        rows, (replica, code, asked, noticed) = self.run("drained", event)
        if replica is None:
            self.note(missed=True)
            return None, False
        self.findings.expect(code == 0, f"drained: {replica.name} ended with {code}")
        mine = [row for row in rows if homes.get(row["model"]) in (replica.name, None)]
        streams = [row for row in mine if row["first"] and row["first"] <= asked <= row["ended"]]
        refused = [row for row in failed(rows) if row["front"] == "grpc" and not row["first"]]
        for row in failed(rows):
            fine = row in refused and row in mine and row["sent"] <= noticed
            fine = fine and "draining" in row["error"]
            self.findings.expect(fine, f"drained {replica.name}: {describe(row)}")
        self.note(replica=replica.name, streams=len(streams), refused=len(refused))
        return replica, bool(streams)

    def moved_only(self, name, before, after, newcomer):
        """Between two stable sets adapters have moved to the newcomer and nowhere else."""
        moved = {one for one in before if one in after and before[one] != after[one]}
        for one in moved:
            text = f"{name}: {one} moved from {before[one]} to {after[one]}"
            self.findings.expect(after[one] == newcomer, text)
        return moved

    def round(self):
        *others, newcomer = self.fleet.replicas
        two = self.stable("stable")
        self.add(newcomer)
        three = self.stable("stable with one more")
        moved = self.moved_only("added", two, three, newcomer.name)
        self.findings.expect(moved, f"added: no adapter moved to {newcomer.name}")
        self.findings.expect(len(set(three.values())) == len(others) + 1, "added: one stays idle")
        self.until_tried(self.kill, three)
        back = self.stable("back")
        for one in sorted(set(three) & set(back)):
            text = f"back: {one} was {three[one]}'s and is {back[one]}'s"
            self.findings.expect(three[one] == back[one], text)
        self.until_tried(self.drain, three | back)
        newcomer.stop()  # for the next round, which begins without it
        self.fleet.wait_for(others)


def add_fleet(parser):
    """The flags of every script that starts a fleet."""
    root = pathlib.Path(__file__).resolve().parent.parent
    servers.add_polyad(parser)
    model = root / "models/smollm2-135m-instruct-q4_1.gguf"
    parser.add_argument("--model", type=pathlib.Path, default=model)
    parser.add_argument("--loras", type=pathlib.Path, default=root / "demo/adapters")
    parser.add_argument("--num-adapters", type=int, default=12, help="names, sharing directories")
    parser.add_argument("--threads", type=int, default=1, help="of a replica")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="file for the whole result")


def name_adapters(args):
    folders = sorted(one.parent for one in args.loras.glob("*/adapter_config.json"))
    if not folders:
        sys.exit(f"{args.loras}: has no adapters")
    names = (f"lora-{i:02d}" for i in range(args.num_adapters))
    args.adapters = {name: folders[i % len(folders)] for i, name in enumerate(names)}


def enter_hub_or_skip(model):
    try:
        if not model.exists():
            raise namespaces.Unavailable(f"no {model} here (tools/fetch_demo_model {model})")
        if not (shutil.which("haproxy") or pathlib.Path("/usr/sbin/haproxy").exists()):
            raise namespaces.Unavailable("no haproxy here (package haproxy)")
        namespaces.enter_hub()
    except namespaces.Unavailable as error:
        print(f"skipped: {error}")
        sys.exit(SKIPPED)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_fleet(parser)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3, help="of arrivals in each phase")
    parser.add_argument("--rate", type=float, default=8, help="requests per second")
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--gen-tokens", type=int, default=48)
    args = parser.parse_args()
    if not (2 <= args.replicas <= 16 and 2 <= args.num_adapters <= 32):
        parser.error("expected 2 to 16 replicas and 2 to 32 adapters (which have their own series)")
    name_adapters(args)
    return args


def main():
    args = parse_args()
    enter_hub_or_skip(args.model)
    with fleet_module.Fleet(args, args.replicas, args.replicas - 1) as fleet:
        campaign = Campaign(args, fleet)
        for _ in range(args.rounds):
            campaign.round()
    if args.json:
        result = {"phases": campaign.report, "machine": machine.describe()}
        result["does_not_hold"] = campaign.findings.found
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if campaign.findings.found:
        sys.exit(f"{len(campaign.findings.found)} things do not hold")


if __name__ == "__main__":
    main()
