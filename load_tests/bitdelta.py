#!/usr/bin/env python3
"""Sixteen full fine-tunes in one bit a weight on one polyad, beside the base, copies, llama.cpp.

The tenants are copies of one adapter that `polyad compress` made of the base, each with some signs
turned, so that their digests differ and nothing is shared. All servers are up at once and take
turns, those that wait are paused:

  base, tenants   16 clients of the base, then 16 of as many tenants, on one polyad. A step of the
                  tenants may take 1.15 x (base step + 16 x packed bytes / bandwidth).
  copy            1 client of the bf16 model on a polyad of its own. 16 such copies on this machine
                  share its cores and bandwidth, so together they are taken to make the tokens of
                  one in the memory of 16; that is computed, not run. The tenants must make 8 times
                  as many tokens per second and GB of resident memory.
  processes       16 llama.cpp servers with one client each, all at once, once for every count of
                  threads. The tenants must make more tokens per second than the best of them.

A step is the median gap between the tokens of a stream; packed bytes are what the server says its
adapters hold; bandwidth is what gemm_bench's stream_read reads while every server is paused. Exits
1 where a limit is passed; what is not given is left out, and the report says so.

  bitdelta.py --base GGUF_OR_DIR --adapter COMPRESSED --model BF16_DIR --out DIR
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

import http_client
import load
import machine
import servers

NUM_TENANTS = 16
STEP_LIMIT = 1.15
PER_GB_FLOOR = 8.0
PROCESSES_FLOOR = 1.0
TURNED_PER_TENSOR = 64


def turn_signs(path, seed):
    """Flips some bits of every tensor of signs in a safetensors file, in place."""
    rng = random.Random(seed)
    turned = 0
    with open(path, "r+b") as file:
        header = int.from_bytes(file.read(8), "little")
        for name, tensor in json.loads(file.read(header)).items():
            if not name.endswith(".bits"):
                continue
            begin, end = tensor["data_offsets"]
            for _ in range(TURNED_PER_TENSOR):
                at = 8 + header + rng.randrange(begin, end)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ (1 << rng.randrange(8))]))
                turned += 1
    if turned == 0:
        sys.exit(f"{path}: has no tensors of signs; was it made by polyad compress?")


def make_tenants(adapter, folder):
    """-> {name: directory}; each is the adapter with other signs turned."""
    tenants = {}
    for i in range(NUM_TENANTS):
        name = f"tenant-{i:02d}"
        shutil.copytree(adapter, folder / name)
        turn_signs(folder / name / "zoo.safetensors", seed=i)
        tenants[name] = folder / name
    return tenants


class Processes:
    """Several servers of one model as one contender: a client for each, all at once."""

    def __init__(self, name, members):
        self.name = name
        self.members = members

    def start(self):
        for member in self.members:
            member.start()

    def each(self, call):
        for member in self.members:
            call(member)

    def pause(self):
        self.each(lambda member: member.pause())

    def resume(self):
        self.each(lambda member: member.resume())

    def stop(self):
        self.each(lambda member: member.stop())

    def run(self, one):
        """Every member gets the load of one client; tokens of all over the time of the slowest."""
        with concurrent.futures.ThreadPoolExecutor(len(self.members)) as pool:
            loads = [
                dataclasses.replace(one, concurrency=1, requests=1, seed=one.seed + 1000 * i)
                for i in range(len(self.members))
            ]
            results = list(pool.map(lambda pair: pair[0].run(pair[1]), zip(self.members, loads)))
        tokens = sum(result["gen_tokens"] for result in results)
        joined = dict(results[0], gen_tokens=tokens)
        joined["gen_tok_s"] = tokens / max(result["wall_s"] for result in results)
        joined["errors"] = sum(result["errors"] for result in results)
        joined["first_error"] = next((r["first_error"] for r in results if r["errors"]), "")
        return joined

    def resident_bytes(self):
        return sum(machine.resident_kib(m.process.pid) * 1024 for m in self.members)


@dataclasses.dataclass
class Contender:
    """A turn of the run: which server, and what load."""

    name: str
    server: object
    load: load.Load


def one_load(args, concurrency, names=()):
    return load.Load(
        url="",
        concurrency=concurrency,
        requests=concurrency,
        prompt_tokens=args.prompt_tokens,
        gen_tokens=args.gen_tokens,
        adapters="distinct" if names else "none",
        adapter_names=tuple(names),
    )


def make_contenders(args, tenants):
    log = lambda name: str(args.out / f"bitdelta-{name}.log")
    flags = f"--kv-mib {args.kv_mib} {args.polyad_flags}"
    polyad = servers.Polyad(args.polyad, args.base, log("polyad"), tenants, flags)
    contenders = [
        Contender("base", polyad, one_load(args, NUM_TENANTS)),
        Contender("tenants", polyad, one_load(args, NUM_TENANTS, tenants)),
    ]
    if args.model:
        copy = servers.Polyad(args.polyad, args.model, log("copy"), {}, flags, "polyad bf16")
        contenders.append(Contender("copy", copy, one_load(args, 1)))
    for threads in args.llama_threads.split(",") if args.llama_server else []:
        tokens = args.prompt_tokens + args.gen_tokens + 64
        command = f"-t {threads} -np 1 -c {tokens} --cache-ram 0 {args.llama_flags}"
        members = [
            servers.LlamaServer(
                args.llama_server, args.llama_model, log(f"llama-{threads}-{i}"), (), command
            )
            for i in range(NUM_TENANTS)
        ]
        group = Processes(f"{NUM_TENANTS} llama.cpp, {threads} threads each", members)
        contenders.append(Contender(f"processes-{threads}", group, one_load(args, 1)))
    return contenders


def read_bandwidth(program):
    """Bytes a second that gemm_bench reads, the best of three."""
    command = [program, "--benchmark_filter=^stream_read", "--benchmark_repetitions=3"]
    output = subprocess.run(
        [*command, "--benchmark_format=json"], capture_output=True, check=True, timeout=300
    ).stdout
    runs = json.loads(output)["benchmarks"]
    return max(run["bytes_per_second"] for run in runs if "bytes_per_second" in run)


def resident_bytes(server):
    if isinstance(server, Processes):
        return server.resident_bytes()
    return machine.resident_kib(server.process.pid) * 1024


def measure(args, contenders):
    """-> {"bandwidth": B/s, "packed_bytes": of a tenant, name: summary with resident bytes}."""
    running = []  # each server once
    result = {}
    runs = {contender.name: [] for contender in contenders}
    try:
        for contender in contenders:
            if contender.server in running:
                continue
            running.append(contender.server)
            contender.server.start()
            contender.server.pause()
        for turn in range(args.rounds + 1):
            shift = turn % len(contenders)
            for contender in contenders[shift:] + contenders[:shift]:
                contender.server.resume()
                run = contender.server.run(dataclasses.replace(contender.load, seed=1 + turn))
                contender.server.pause()
                if run["errors"]:
                    raise RuntimeError(f"{contender.name}: {run['first_error']}")
                if turn > 0:  # the first warms up
                    runs[contender.name].append(run)
                    print(f"  round {turn}: {contender.name} {run['gen_tok_s']:.1f}", flush=True)
        result["bandwidth"] = read_bandwidth(args.gemm_bench)
        for contender in contenders:
            result[contender.name] = load.summarise(runs[contender.name])
            result[contender.name]["resident_bytes"] = resident_bytes(contender.server)
        polyad = contenders[0].server
        polyad.resume()
        held = http_client.metrics(polyad.url)["polyad_adapter_bytes"]
        result["packed_bytes"] = held / NUM_TENANTS
        polyad.pause()
    finally:
        for server in running:
            server.stop()
    return result


def limits_of(result):
    """-> [(what, measured, limit, whether it holds, how it comes about)]."""
    rows = []
    base_ms, step_ms = result["base"]["itl_p50_ms"], result["tenants"]["itl_p50_ms"]
    reading_ms = NUM_TENANTS * result["packed_bytes"] / result["bandwidth"] * 1e3
    bound_ms = STEP_LIMIT * (base_ms + reading_ms)
    how = f"{STEP_LIMIT} x (base {base_ms:.2f} + {reading_ms:.2f} ms of reading)"
    rows.append(("step of 16 tenants, ms", step_ms, bound_ms, step_ms <= bound_ms, how))
    speed = result["tenants"]["gen_tok_s"]
    if "copy" in result:
        copy = result["copy"]
        mine = speed / (result["tenants"]["resident_bytes"] / 1e9)
        theirs = copy["gen_tok_s"] / (NUM_TENANTS * copy["resident_bytes"] / 1e9)
        copy_mb = copy["resident_bytes"] / 1e6
        how = (
            f"{mine:.1f} / {theirs:.1f} tokens/s per GB; the copies' computed from one with one "
            f"client: {copy['gen_tok_s']:.1f} tokens/s in {NUM_TENANTS} x {copy_mb:.0f} MB"
        )
        ratio = mine / theirs
        holds = ratio >= PER_GB_FLOOR
        rows.append(("tokens/s per GB, tenants / bf16 copies", ratio, PER_GB_FLOOR, holds, how))
    peers = {name: r["gen_tok_s"] for name, r in result.items() if name.startswith("processes-")}
    if peers:
        best = max(peers, key=peers.get)
        ratio = speed / peers[best]
        how = f"{speed:.1f} / {peers[best]:.1f} tokens/s, -t {best.removeprefix('processes-')}"
        what = f"tokens/s, tenants / {NUM_TENANTS} llama.cpp"
        rows.append((what, ratio, PROCESSES_FLOOR, ratio > PROCESSES_FLOOR, how))
    return rows


def print_report(result, rows):
    tenant_mb = result["packed_bytes"] / 1e6
    print(f"bandwidth {result['bandwidth'] / 1e9:.1f} GB/s, a tenant {tenant_mb:.2f} MB")
    for name, figures in result.items():
        if isinstance(figures, dict) and "gen_tok_s" in figures:
            print(
                f"{name}: {figures['gen_tok_s']:.1f} tokens/s "
                f"({figures['gen_tok_s_min']:.1f}..{figures['gen_tok_s_max']:.1f}), token gap p50 "
                f"{figures['itl_p50_ms']:.2f} ms, resident {figures['resident_bytes'] / 1e6:.0f} MB"
            )
    for name, given in (("copy", "--model"), ("processes", "--llama-server")):
        if not any(key.startswith(name) for key in result):
            print(f"{name} left out: {given} is not given")
    print("| what | measured | limit | holds | how |\n|---|---|---|---|---|")
    for what, value, limit, holds, how in rows:
        print(f"| {what} | {value:.2f} | {limit:.2f} | {'yes' if holds else 'NO'} | {how} |")


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    build = pathlib.Path(__file__).resolve().parent.parent / "build/release/bin"
    model = os.environ.get("POLYAD_LOAD_MODEL")
    parser.add_argument("--polyad", default=os.environ.get("POLYAD_PROGRAM", str(build / "polyad")))
    parser.add_argument("--gemm-bench", default=str(build / "gemm_bench"))
    parser.add_argument("--polyad-flags", default="", help="more flags for polyad serve")
    parser.add_argument("--kv-mib", type=int, default=128, help="K/V pool of each polyad")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="the adapter's base")
    parser.add_argument(
        "--adapter", type=pathlib.Path, required=True, help="what polyad compress wrote"
    )
    parser.add_argument(
        "--model", type=pathlib.Path, default=model, help="bf16 directory [POLYAD_LOAD_MODEL]"
    )
    parser.add_argument(
        "--llama-server", default=os.environ.get("LLAMA_SERVER"), help="program [LLAMA_SERVER]"
    )
    parser.add_argument(
        "--llama-model", type=pathlib.Path, help="GGUF of each process (the base where it is one)"
    )
    parser.add_argument("--llama-threads", default="1", help="of a process; each of a,b,… is measured")
    parser.add_argument(
        "--llama-flags", default="-fa on -lm none", help="more flags for llama-server"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--gen-tokens", type=int, default=128)
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, help="directory for the result and logs"
    )
    args = parser.parse_args()
    if args.llama_server and not args.llama_model:
        if args.base.suffix != ".gguf":
            parser.error("--llama-model: the base is no GGUF file")
        args.llama_model = args.base
    return args


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    described = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        tenants = make_tenants(args.adapter, pathlib.Path(folder))
        result = measure(args, make_contenders(args, tenants))
    rows = limits_of(result)
    print_report(result, rows)
    asked = {key: str(value) for key, value in vars(args).items()}
    result.update(machine=described, limits=rows, arguments=asked)
    path = args.out / "bitdelta.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(not all(holds for _, _, _, holds, _ in rows))


if __name__ == "__main__":
    main()
