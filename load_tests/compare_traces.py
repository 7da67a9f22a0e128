#!/usr/bin/env python3
"""polyad beside its peers on one trace of arrivals: an open loop, all in one run.

For each workload and rate every contender replays the same lines, while the others are paused:
polyad, llama.cpp's server and vLLM over HTTP by `polyad bench`, OpenVINO GenAI and PEFT in their
own processes (openvino_peer.py, peft_peer.py). Times count from when a request should have arrived,
so what piles up counts. Peers that are not given are left out, and the page says so.

  base    S-LoRA's lengths and Poisson arrivals for the base model
  loras   the same for 32 LoRAs, alpha 0.3; OpenVINO GenAI has no batch of several adapters

  compare_traces.py --rates 2 6 --out results --page docs/comparison.md
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import compare
import load
import machine
import report
import servers
import workloads

WORKLOADS = ("base", "loras")
LLAMA_SLOTS = 32
ALPHA = 0.3
TIMEOUT_SECONDS = 300
VLLM_FLAGS = (
    "--dtype bfloat16 --max-model-len 512 --max-num-seqs 32 --no-enable-prefix-caching"
    " --gpu-memory-utilization 0.3"
)
VLLM_LORAS = f"--enable-lora --max-loras {compare.NUM_ADAPTERS} --max-lora-rank 16"
PEERS = {  # and what sets them apart in this comparison
    "llama.cpp": "has a batch for one set of adapters at a time: requests for different ones take"
    " turns; adapters are named at its start",
    "OpenVINO GenAI": "has one set of adapters for a whole batch, so it is not in *loras*; it"
    " is a library: its figures spare it the HTTP work and the client beside it",
    "vLLM": "batches different adapters, padded to the largest rank",
    "PEFT": "is a library without continuous batching: what has arrived is one padded batch, and what"
    " arrives meanwhile waits for its end; no HTTP work and no client beside it",
}


def trace_of(args, workload, rate):
    count = compare.NUM_ADAPTERS if workload == "loras" else 1
    lines = workloads.slora(count, ALPHA, rate, 1.0, args.seconds, args.seed)
    names = [path.name for path in compare.adapter_paths(args)] if count > 1 else [""]
    for line in workloads.scaled(lines, args.scale):
        yield line | {
            "model": names[line["model"]],
            "tenant": "all",
            "at_s": round(line["at_s"], 6),
        }


def contenders_of(args, workload):
    log = lambda name: str(args.out / f"{workload}-{name}.log")
    adapters = compare.adapter_paths(args) if workload == "loras" else []
    named = {path.name: path for path in adapters}
    found = [servers.Polyad(args.polyad, args.model, log("polyad"), named, args.polyad_flags)]
    if args.llama_server:
        files = sorted(args.adapter_ggufs.glob("*.gguf"))[: len(adapters)] if adapters else []
        flags = f"-t {os.cpu_count()} -np {LLAMA_SLOTS} -c {LLAMA_SLOTS * 192} --cache-ram 0"
        flags = f"{flags} {args.llama_flags}"
        peer = servers.LlamaServer(args.llama_server, args.bf16_gguf, log("llama"), files, flags)
        found.append(peer)
    if args.openvino_python and not adapters:
        found.append(servers.OpenVino(args.openvino_python, args.f16_gguf, log("openvino")))
    if args.vllm_python:
        flags = f"{args.vllm_flags} {VLLM_LORAS}" if adapters else args.vllm_flags
        found.append(servers.Vllm(args.vllm_python, args.model, log("vllm"), named, flags))
    if args.peft_python:
        found.append(servers.Peft(args.peft_python, args.model, log("peft"), named))
    return found


def bench(args, server, trace, place):
    """`polyad bench` on a server with HTTP. -> (result, rows)"""
    path = place.with_suffix(".trace.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in trace), encoding="utf-8")
    command = [args.polyad, "bench", "--target", server.url, "--trace", path]
    command += ["--log", place.with_suffix(".jsonl"), "--json", place.with_suffix(".json")]
    command += ["--timeout-s", TIMEOUT_SECONDS, "--slo-ttft-ms", args.slo_ttft_ms]
    command += ["--slo-tpot-ms", args.slo_tpot_ms]
    names = [path.name for path in compare.adapter_paths(args)] if trace[0]["model"] else []
    if isinstance(server, servers.LlamaServer) and names:
        command += ["--llama-loras", ",".join(names)]
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"polyad bench on {server.name}: {done.stderr.decode()}")
    lines = place.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    result = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    return result["duration"], [json.loads(line) for line in lines]


def replay(args, server, trace, place):
    """-> figures of one run, of any server, from its rows alone"""
    if isinstance(server, servers.InProcess):
        answer = server.replay(trace, args.seed, TIMEOUT_SECONDS)
        duration, rows = answer["duration"], answer["rows"]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        place.with_suffix(".jsonl").write_text(text, encoding="utf-8")
    else:
        duration, rows = bench(args, server, trace, place)
    figures = summarise(args, duration, rows)
    result = {"slo": {"ttft_ms": args.slo_ttft_ms, "tpot_ms": args.slo_tpot_ms}, "tenants": {}}
    result["models"] = {name: group for name, group in groups(rows)}
    place.with_suffix(".json").write_text(json.dumps(result | figures), encoding="utf-8")
    return figures


def groups(rows):
    for name in sorted({row["model"] for row in rows}):
        mine = [row for row in rows if row["model"] == name]
        first = [row["ttft_ms"] for row in mine if row["ttft_ms"] is not None]
        p50, p99 = load.percentile(first, 50), load.percentile(first, 99)
        yield name, {"num_prompts": len(mine), "median_ttft_ms": p50, "p99_ttft_ms": p99}


def good(args, row):
    return (
        row["end"] == "completed"
        and row["ttft_ms"] <= args.slo_ttft_ms
        and (row["tpot_ms"] is None or row["tpot_ms"] <= args.slo_tpot_ms)
    )


def summarise(args, duration, rows):
    done = [row for row in rows if row["end"] == "completed"]
    times = lambda key: [row[key] for row in done if row[key] is not None]
    figures = {
        "requests": len(rows),
        "failed": len(rows) - len(done),
        "tok_s": sum(row["output_tokens"] for row in done) / duration,
        "goodput": sum(good(args, row) for row in rows) / duration,
        "attainment": sum(good(args, row) for row in rows) / len(rows),
    }
    for key in ("ttft_ms", "tpot_ms"):
        for percent in (50, 99):
            figures[f"{key}_p{percent}"] = load.percentile(times(key), percent)
    return figures


def up(args, workload, server):
    """Whether it is up and has answered; polyad has to."""
    try:
        server.start()
        replay(args, server, list(trace_of(args, workload, 2.0))[:4], args.out / "warm")
    except (RuntimeError, OSError, ValueError) as error:
        server.stop()
        if isinstance(server, servers.Polyad):
            raise
        print(f"{server.name} left out: {error}", flush=True)
        return False
    server.pause()
    return True


def measure(args, workload):
    contenders = contenders_of(args, workload)
    rows = []
    try:
        contenders = [server for server in contenders if up(args, workload, server)]
        for number, rate in enumerate(args.rates):
            trace = list(trace_of(args, workload, rate))
            shift = number % len(contenders)
            for server in contenders[shift:] + contenders[:shift]:
                server.resume()
                key = f"{workload}-{rate:g}-{server.name.replace(' ', '-').replace('.', '')}"
                figures = replay(args, server, trace, args.out / key)
                server.pause()
                place = {"workload": workload, "rate": rate, "server": server.name, "files": key}
                command = report.shorten(" ".join(server.command))
                rows.append(place | {"command": command} | figures)
                print(row_of(rows[-1]), flush=True)
    finally:
        for server in contenders:
            server.stop()
    order = [server.name for server in contenders]
    return sorted(rows, key=lambda row: (row["rate"], order.index(row["server"])))


def row_of(row):
    return (
        f"| {row['workload']} | {row['rate']:g} | {row['server']} | {row['attainment']:.0%} "
        f"| {row['goodput']:.2f} | {row['tok_s']:.0f} "
        f"| {row['ttft_ms_p50']:.0f} / {row['ttft_ms_p99']:.0f} "
        f"| {row['tpot_ms_p50']:.1f} / {row['tpot_ms_p99']:.1f} | {row['failed']} |"
    )


HEADER = (
    "| workload | requests/s | server | kept | good/s | tokens/s | TTFT p50/p99 ms "
    "| TPOT p50/p99 ms | failed |\n|---|---|---|---|---|---|---|---|---|"
)


def page(result):
    m = result["machine"]
    asked, names = result["asked"], {row["server"] for row in result["rows"]}
    absent = [name for name in PEERS if name not in names]
    commands = {}
    for row in result["rows"]:
        commands.setdefault(row["command"], f"- {row['workload']}, {row['server']}: `{{}}`")
    parts = [
        "# Comparison\n",
        "Written by `load_tests/compare_traces.py`: every server replays the same arrivals with the"
        " same weights in one run on one machine, while the others are stopped. S-LoRA's lengths"
        f" divided by {asked['scale']}, Poisson arrivals for {asked['seconds']:g} s, seed"
        f" {asked['seed']}; *base* is one model, *loras* 32 LoRAs of rank 16, the first k of which"
        f" get (k/32)^{ALPHA} of the requests. bf16 weights (OpenVINO reads f16 and computes in"
        " bf16, in its own process, without HTTP). Times count from when a request should have"
        f" arrived; *kept* is the share with a first token within {asked['slo_ttft_ms']:g} ms and"
        f" {asked['slo_tpot_ms']:g} ms for each next one (mean of a request), *good/s* their"
        " number per second. tokens/s are over the whole run with its tail.\n",
        f"Machine: {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, Linux {m['kernel']};"
        f" {' '.join(m['flags'])}; load average {m['load_average']:.1f} at the start,"
        f" {m['steal_percent']}% stolen.\n",
        HEADER,
        *[row_of(row) for row in result["rows"]],
        "",
    ]
    if names & PEERS.keys():
        parts += ["## What is compared with what", ""]
        parts += [f"- **{name}** {text}." for name, text in PEERS.items() if name in names]
        parts += [f"- {note}" for note in result["notes"]]
        parts.append("")
    if absent:
        parts.append(f"Not in this run: {', '.join(absent)}.\n")
    parts += ["## To repeat it", "The peers and files: `load_tests/README.md`.\n"]
    parts.append("<!-- not run: it wants the peers, a quiet machine and minutes -->\n")
    parts.append(f"    {result['command']}\n")
    parts.append("The servers as they ran:\n")
    parts += [line.format(command) for command, line in commands.items()]
    return "\n".join(parts) + "\n"


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers.add_polyad(parser)
    servers.add_model(parser)
    one = compare.path_argument
    one(parser, "--bf16-gguf", "POLYAD_LOAD_BF16_GGUF", "the same weights, for llama.cpp")
    one(parser, "--f16-gguf", "POLYAD_LOAD_F16_GGUF", "the same weights, for OpenVINO")
    one(parser, "--adapters", "POLYAD_LOAD_ADAPTERS", "directory of 32 PEFT directories")
    one(parser, "--adapter-ggufs", "POLYAD_LOAD_ADAPTER_GGUFS", "the same adapters as GGUF")
    parser.add_argument("--llama-server", default=os.environ.get("LLAMA_SERVER"))
    parser.add_argument("--llama-flags", default="-fa on -lm none")
    parser.add_argument("--openvino-python", default=os.environ.get("OPENVINO_PYTHON"))
    parser.add_argument("--vllm-python", default=os.environ.get("VLLM_PYTHON"))
    parser.add_argument("--vllm-flags", default=VLLM_FLAGS)
    parser.add_argument("--peft-python", default=os.environ.get("PEFT_PYTHON"))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0, 6.0])
    parser.add_argument("--seconds", type=float, default=20, help="of arrivals")
    parser.add_argument("--scale", type=int, default=8, help="S-LoRA's lengths are divided by this")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--slo-ttft-ms", type=float, default=500)
    parser.add_argument("--slo-tpot-ms", type=float, default=100)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="results, logs, traces")
    parser.add_argument("--note", nargs="*", default=[], help="lines for the page")
    parser.add_argument("--page", type=pathlib.Path, help="writes the docs' page")
    args = parser.parse_args()
    if not all(rate * args.seconds >= 1 for rate in args.rates):
        parser.error("--rates: expected at least one request in --seconds")
    if "loras" in args.workloads and not args.adapters:
        parser.error("--adapters: expected for the workload loras")
    return args


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    described = machine.describe()
    stolen, ticks = machine.steal_ticks()
    print(HEADER)
    rows = [row for workload in args.workloads for row in measure(args, workload)]
    stolen_now, ticks_now = machine.steal_ticks()
    described["steal_percent"] = round(100 * (stolen_now - stolen) / max(1, ticks_now - ticks), 2)
    asked = ("seconds", "scale", "seed", "slo_ttft_ms", "slo_tpot_ms")
    rates = " ".join(f"{rate:g}" for rate in args.rates)
    command = (
        f"load_tests/compare_traces.py --workloads {' '.join(args.workloads)} --rates {rates}"
        f" --seconds {args.seconds:g} --slo-ttft-ms {args.slo_ttft_ms:g}"
        f" --slo-tpot-ms {args.slo_tpot_ms:g} --out results --page docs/comparison.md"
    )
    result = {
        "machine": described,
        "asked": {key: getattr(args, key) for key in asked},
        "rows": rows,
        "command": command,
        "notes": args.note,
    }
    (args.out / "traces.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.page:
        args.page.write_text(page(result), encoding="utf-8")
    if any(row["failed"] for row in rows):
        sys.exit("some requests failed; see the logs beside the results")


if __name__ == "__main__":
    main()
