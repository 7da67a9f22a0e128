#!/usr/bin/env python3
"""How much memory a model, its K/V cache and its LoRAs take, and how fast it goes: docs/capacity.md's formulas.

  capacity.py --model HF_DIR --adapters 200 --rank 16 --context 1024 --sequences 64        what to give a server
  capacity.py --model HF_DIR --check build/release/bin/polyad      a server's own numbers against the formulas; 1 where they differ
  capacity.py --model PATH --speed build/release/bin/polyad        step times measured with 1 and 32 sequences foretell those between

HF_DIR is a Llama-like directory; its adapters are on all linear layers of every layer. --speed takes any model, and wants a quiet machine.
"""
import argparse
import concurrent.futures
import http.client
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20
BLOCK_TOKENS = 16
CODE_GROUP = 64      # of int8, and of int4's values; int4's keys have 32
CODE_SCALE_BYTES = 4  # scale and offset of a group
# Threads' stacks, tokenizer, libraries, buffers: what --check allows beyond what is counted.
PROCESS_ALLOWANCE = 150 * MIB
ANSWER_SECONDS = 600


def shape(config):
    """-> (layers, kv heads, head size, {site: (outputs, inputs)})"""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    q, kv = heads * size, config.get("num_key_value_heads", heads) * size
    sites = {"q": (q, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, q), "gate": (inner, hidden), "up": (inner, hidden),
             "down": (hidden, inner)}
    return config["num_hidden_layers"], kv // size, size, sites


def round_up(value, step):
    return -(-value // step) * step


def head_bytes(size, kv_dtype):
    """k and v of one token and head."""
    size = round_up(size, 16)
    if kv_dtype in ("bf16", "f32"):
        return 2 * size * (2 if kv_dtype == "bf16" else 4)
    if kv_dtype == "int8":
        return 2 * (size + CODE_SCALE_BYTES * -(-size // CODE_GROUP))
    padded = round_up(size, 32)
    values = padded // 2 + CODE_SCALE_BYTES * -(-size // CODE_GROUP)
    return values + padded * 5 // 8 + CODE_SCALE_BYTES * (padded // 32)


def kv_bytes_per_token(config, kv_dtype):
    layers, kv_heads, size, _ = shape(config)
    return layers * kv_heads * head_bytes(size, kv_dtype)


def kv_blocks(config, kv_dtype, mib):
    return mib * MIB // (BLOCK_TOKENS * kv_bytes_per_token(config, kv_dtype))


def lora_bytes(config, rank, exact=False):
    """In memory, on all sites: bf16, ranks of B in pairs; in the exact mode fp32."""
    layers, _, _, sites = shape(config)
    inputs, outputs = (sum(pair[i] for pair in sites.values()) for i in (1, 0))
    if exact:
        return 4 * layers * rank * (inputs + outputs)
    return 2 * layers * (rank * inputs + round_up(rank, 2) * outputs)


def base_parameters(config):
    layers, _, _, sites = shape(config)
    tables = 1 if config.get("tie_word_embeddings") else 2
    return layers * sum(a * b for a, b in sites.values()) + tables * config["vocab_size"] * config["hidden_size"]


def plan(args, config):
    per_token = kv_bytes_per_token(config, args.kv_dtype)
    kv = args.sequences * round_up(args.context, BLOCK_TOKENS) * per_token
    adapters = args.adapters * lora_bytes(config, args.rank)
    base = 2 * base_parameters(config)
    rows = [("base, bf16", base), (f"K/V of {args.sequences} sequences of {args.context} tokens ({per_token} bytes a token)", kv),
            (f"{args.adapters} adapters of rank {args.rank} ({lora_bytes(config, args.rank)} bytes each)", adapters),
            ("the process", PROCESS_ALLOWANCE)]
    for name, size in [*rows, ("together", sum(size for _, size in rows))]:
        print(f"{size / MIB:10.1f} MiB  {name}")
    print(f"--kv-mib {-(-kv // MIB)} --max-adapter-mib {max(1, -(-adapters // MIB))}, or --memory-mib {-(-(kv + adapters) // MIB)}")


class Server:
    """polyad serve on free ports."""

    def __init__(self, program, model, flags):
        self.process = subprocess.Popen([program, "serve", "--model", str(model), "--grpc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0",
                                         "--http-listen=127.0.0.1:0", "--log-level=error", *flags], stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        found = re.match(r"polyad ready .* http=(\S+)", ready)
        if not found:
            sys.exit("polyad did not start")
        self.address = found.group(1)

    def ask(self, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_SECONDS)
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {text}")
        return text

    def metrics(self):
        """-> {series: value}"""
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in self.ask("/metrics").splitlines() if not line.startswith("#")}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=ANSWER_SECONDS)


class Comparison:
    def __init__(self):
        self.wrong = 0

    def same(self, what, foretold, told, at_most=False):
        ok = told <= foretold if at_most else told == foretold
        self.wrong += 0 if ok else 1
        print(f"{'ok  ' if ok else 'NOT '} {what}: foretold {'at most ' if at_most else ''}{foretold:.0f}, the server says {told:.0f}")


def check(args, config):
    kv_mib, comparison, ranks = 8, Comparison(), (1, 4, 8, 16, 17, 64)
    with tempfile.TemporaryDirectory() as folder:
        for rank in ranks:
            subprocess.run([sys.executable, ROOT / "tools/make_random_adapters.py", args.model, f"{folder}/{rank}", "--count", "1", "--rank",
                            str(rank)], check=True, stdout=subprocess.DEVNULL)
        paths = {rank: str(next(pathlib.Path(folder, str(rank)).iterdir())) for rank in ranks}
        for kv_dtype, flags in (("bf16", []), ("int8", ["--kv-dtype=int8"]), ("int4", ["--kv-dtype=int4"]), ("f32", ["--dtype=f32"])):
            with Server(args.check, args.model, [f"--kv-mib={kv_mib}", "--adapter-root", folder, *flags]) as server:
                info = next(name for name in server.metrics() if name.startswith("vllm:cache_config_info{"))
                label = dict(re.findall(r'(\w+)="([^"]*)"', info))
                comparison.same(f"{kv_dtype} K/V bytes a token", kv_bytes_per_token(config, kv_dtype), int(label["bytes_per_token"]))
                comparison.same(f"{kv_dtype} K/V blocks of {kv_mib} MiB", kv_blocks(config, kv_dtype, kv_mib), int(label["num_gpu_blocks"]))
                total = 0
                for rank in ranks:
                    server.ask("/v1/load_lora_adapter", {"lora_name": f"rank-{rank}", "lora_path": paths[rank]})
                    total += lora_bytes(config, rank, kv_dtype == "f32")
                    comparison.same(f"{kv_dtype} bytes of adapters up to rank {rank}", total, server.metrics()["polyad_adapter_bytes"])
                parameters = base_parameters(config) * (4 if kv_dtype == "f32" else 2)
                told = server.metrics()
                weights = sum(value for name, value in told.items() if name.startswith('polyad_weight_bytes{part="base_'))
                norms = sum(value for name, value in told.items() if name == 'polyad_weight_bytes{part="base_layers",precision="f32"}')
                comparison.same(f"{kv_dtype} bytes of the base without norms", parameters, weights - (norms if kv_dtype != "f32" else norm_bytes(config)))
                comparison.same(f"{kv_dtype} resident memory", weights + kv_mib * MIB + total + PROCESS_ALLOWANCE, told["process_resident_memory_bytes"],
                                at_most=True)
    return comparison.wrong


def norm_bytes(config):
    layers, _, size, _ = shape(config)
    of_heads = 2 * size * layers if config["model_type"] == "qwen3" else 0
    return 4 * ((2 * layers + 1) * config["hidden_size"] + of_heads)


def step_time(server, sequences, tokens, vocabulary_start=100):
    """Mean seconds of a step while that many sequences decode."""
    def one(i):
        return server.ask("/v1/completions", {"prompt": [vocabulary_start + i], "max_tokens": tokens, "temperature": 0, "ignore_eos": True})

    with concurrent.futures.ThreadPoolExecutor(sequences) as pool:
        list(pool.map(one, range(sequences)))  # once to warm up
        before = server.metrics()
        list(pool.map(one, range(sequences)))
        after = server.metrics()
    change = {name: after[name] - before[name] for name in ("polyad_step_seconds_sum", "polyad_step_seconds_count", "polyad_batch_size_sum")}
    steps = change["polyad_step_seconds_count"]
    return change["polyad_step_seconds_sum"] / steps, change["polyad_batch_size_sum"] / steps


def speed(args):
    with Server(args.speed, args.model, ["--kv-mib=256"]) as server:
        measured = {count: step_time(server, count, args.tokens) for count in (1, 4, 8, 16, 32)}
    (t_few, few), (t_many, many) = measured[1], measured[32]
    each = (t_many - t_few) / (many - few)
    fixed = t_few - each * few
    print(f"a step takes {fixed * 1e3:.2f} ms and {each * 1e3:.3f} ms a sequence")
    for count, (seconds, mean) in measured.items():
        foretold = fixed + each * mean
        print(f"{mean:5.1f} sequences: {seconds * 1e3:7.2f} ms a step, foretold {foretold * 1e3:7.2f} ({foretold / seconds - 1:+.1%}); "
              f"{mean / seconds:7.1f} tokens/s")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--kv-dtype", choices=("bf16", "int8", "int4"), default="bf16")
    for name, absent in (("adapters", 100), ("rank", 16), ("context", 1024), ("sequences", 64), ("tokens", 100)):
        parser.add_argument(f"--{name}", type=int, default=absent)
    parser.add_argument("--check", metavar="POLYAD")
    parser.add_argument("--speed", metavar="POLYAD")
    args = parser.parse_args()
    if args.speed:
        return speed(args)
    config = json.loads((args.model / "config.json").read_text())
    if args.check:
        return 1 if check(args, config) else 0
    plan(args, config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
