#!/usr/bin/env python3
"""polyad beside its peers: one table of throughput, ratios and floors, all measured in one run.

For each setting every contender's server is started; then they take turns on the same seeded loads,
in rotated order, while the others are paused. Figures are medians over the rounds. Where a program
or a model is kept is told by flags or by the environment variables named in --help; a peer that is
not given is left out and the report says so.

  compare.py --polyad build/release/bin/polyad --model HF_DIR --adapters DIR --out DIR [peers...]
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys

import load
import machine
import report
import servers

NUM_ADAPTERS = 32


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of the table. `floor` is polyad's required multiple of the best peer."""

    key: str
    title: str
    weights: str
    concurrency: int
    requests: int
    adapters: str
    floor: float


SETTINGS = (
    Setting("bf16-1", "bf16, base, 1 client", "bf16", 1, 4, "none", 1.2),
    Setting("bf16-8", "bf16, base, 8 clients", "bf16", 8, 16, "none", 1.2),
    Setting("bf16-32", "bf16, base, 32 clients", "bf16", 32, 32, "none", 1.15),
    Setting("q4_0-1", "Q4_0, base, 1 client", "q4_0", 1, 4, "none", 1.3),
    Setting("q4_0-16", "Q4_0, base, 16 clients", "q4_0", 16, 32, "none", 1.5),
    Setting("q8_0-1", "Q8_0, base, 1 client", "q8_0", 1, 4, "none", 1.0),
    Setting("q8_0-16", "Q8_0, base, 16 clients", "q8_0", 16, 32, "none", 1.5),
    Setting("q4_k-1", "Q4_K_M, base, 1 client", "q4_k", 1, 4, "none", 1.0),
    Setting("q4_k-16", "Q4_K_M, base, 16 clients", "q4_k", 16, 32, "none", 1.5),
    Setting(
        "adapters-32", "bf16, 32 clients, 32 LoRAs of rank 16", "bf16", 32, 32, "distinct", 5.0
    ),
)
# polyad with 32 adapters against polyad without any, in the last setting.
OWN_BASE_FLOOR = 0.70


def llama_flags(args, setting):
    """-fa on and weights read into memory were the fastest of what was tried; a slot per client."""
    threads = os.cpu_count()
    tokens = (args.prompt_tokens + args.gen_tokens + 64) * setting.concurrency
    return f"-t {threads} -np {setting.concurrency} -c {tokens} --cache-ram 0 {args.llama_flags}"


def quantised_gguf(args, setting):
    """The file that every server reads in this setting, or None: each has its own of one model."""
    return {"q4_0": args.q4_gguf, "q8_0": args.q8_gguf, "q4_k": args.q4k_gguf}.get(setting.weights)


def make_contenders(args, setting):
    """-> [(server, the adapters of its load)], polyad first."""
    log = lambda name: str(args.out / f"{setting.key}-{name}.log")
    with_adapters = setting.adapters != "none"
    contenders = []
    if args.polyad:
        model, flags = quantised_gguf(args, setting) or args.model, args.polyad_flags
        adapters = {path.name: path for path in adapter_paths(args)} if with_adapters else {}
        polyad = servers.Polyad(args.polyad, model, log("polyad"), adapters, flags)
        contenders.append((polyad, setting.adapters))
        if with_adapters:
            base = servers.Polyad(args.polyad, model, log("polyad-base"), {}, flags, "polyad base")
            contenders.append((base, "none"))
    if args.llama_server:
        model = quantised_gguf(args, setting) or args.bf16_gguf
        files = sorted(args.adapter_ggufs.glob("*.gguf"))[:NUM_ADAPTERS] if with_adapters else []
        flags = llama_flags(args, setting)
        peer = servers.LlamaServer(args.llama_server, model, log("llama"), files, flags)
        contenders.append((peer, setting.adapters))
    if args.openvino_python and not with_adapters:
        model = quantised_gguf(args, setting) or args.f16_gguf
        peer = servers.OpenVino(args.openvino_python, model, log("openvino"))
        contenders.append((peer, "none"))
    return contenders


def has_model(args, setting):
    if setting.weights == "bf16" or quantised_gguf(args, setting):
        return True
    print(f"  {setting.key} left out: its GGUF file is not given", flush=True)
    return False


def adapter_paths(args):
    paths = sorted(path for path in args.adapters.iterdir() if path.is_dir())[:NUM_ADAPTERS]
    if len(paths) < NUM_ADAPTERS:
        sys.exit(
            f"--adapters {args.adapters}: expected {NUM_ADAPTERS} directories, got {len(paths)}"
        )
    return paths


def make_load(args, setting, adapters, seed):
    names = tuple(path.name for path in adapter_paths(args)) if adapters != "none" else ()
    return load.Load(
        url="",
        concurrency=setting.concurrency,
        requests=setting.requests,
        prompt_tokens=args.prompt_tokens,
        gen_tokens=args.gen_tokens,
        adapters=adapters,
        adapter_names=names,
        seed=seed,
    )


def measure(args, setting):
    """Starts the contenders of a setting and lets them take turns; -> [(name, summary)]."""
    contenders = make_contenders(args, setting)
    runs = {server.name: [] for server, _ in contenders}
    try:
        for server, adapters in contenders:
            server.start()
            warm = make_load(args, setting, adapters, seed=10**6)
            server.run(dataclasses.replace(warm, requests=min(4, warm.requests), gen_tokens=8))
            server.pause()
        for turn in range(args.rounds):
            shift = turn % len(contenders)
            for server, adapters in contenders[shift:] + contenders[:shift]:
                server.resume()
                result = server.run(make_load(args, setting, adapters, seed=1 + turn))
                server.pause()
                runs[server.name].append(result)
                print(
                    f"  {setting.key} round {turn + 1}: {server.name} {result['gen_tok_s']:.1f}",
                    flush=True,
                )
    finally:
        for server, _ in contenders:
            server.stop()
    return [
        (server.name, " ".join(server.command), load.summarise(runs[server.name]))
        for server, _ in contenders
    ]


def path_argument(parser, flag, variable, text):
    value = os.environ.get(variable)
    parser.add_argument(
        flag, type=pathlib.Path, default=value and pathlib.Path(value), help=f"{text} [{variable}]"
    )


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    program = pathlib.Path(__file__).resolve().parent.parent / "build/release/bin/polyad"
    path_argument(parser, "--model", "POLYAD_LOAD_MODEL", "bf16 Hugging Face directory")
    path_argument(
        parser, "--bf16-gguf", "POLYAD_LOAD_BF16_GGUF", "the same weights as bf16 GGUF (llama.cpp)"
    )
    path_argument(
        parser, "--f16-gguf", "POLYAD_LOAD_F16_GGUF", "the same weights as f16 GGUF (OpenVINO)"
    )
    path_argument(parser, "--q4-gguf", "POLYAD_LOAD_Q4_GGUF", "the same weights as Q4_0 GGUF")
    path_argument(parser, "--q8-gguf", "POLYAD_LOAD_Q8_GGUF", "the same weights as Q8_0 GGUF")
    path_argument(parser, "--q4k-gguf", "POLYAD_LOAD_Q4K_GGUF", "the same weights as Q4_K_M GGUF")
    path_argument(parser, "--adapters", "POLYAD_LOAD_ADAPTERS", "directory of 32 PEFT directories")
    path_argument(
        parser,
        "--adapter-ggufs",
        "POLYAD_LOAD_ADAPTER_GGUFS",
        "the same adapters as GGUF (llama.cpp)",
    )
    parser.add_argument(
        "--polyad", default=os.environ.get("POLYAD_PROGRAM", str(program)), help="empty: peers only"
    )
    parser.add_argument("--polyad-flags", default="", help="more flags for polyad serve")
    parser.add_argument(
        "--llama-server", default=os.environ.get("LLAMA_SERVER"), help="program [LLAMA_SERVER]"
    )
    parser.add_argument(
        "--llama-flags", default="-fa on -lm none", help="more flags for llama-server"
    )
    parser.add_argument(
        "--openvino-python", default=os.environ.get("OPENVINO_PYTHON"), help="[OPENVINO_PYTHON]"
    )
    parser.add_argument(
        "--settings", default=",".join(s.key for s in SETTINGS), help="comma-separated keys"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--gen-tokens", type=int, default=64)
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, help="directory for the report and logs"
    )
    args = parser.parse_args()
    unknown = set(args.settings.split(",")) - {s.key for s in SETTINGS}
    if unknown:
        parser.error(f"--settings: unknown {sorted(unknown)}")
    return args


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    described = machine.describe()
    stolen, ticks = machine.steal_ticks()
    rows = []
    for setting in SETTINGS:
        if setting.key in args.settings.split(",") and has_model(args, setting):
            for name, command, summary in measure(args, setting):
                rows.append({"setting": setting.key, "server": name, "command": command, **summary})
    stolen_now, ticks_now = machine.steal_ticks()
    described["steal_percent"] = round(100 * (stolen_now - stolen) / max(1, ticks_now - ticks), 2)
    result = {
        "machine": described,
        "prompt_tokens": args.prompt_tokens,
        "gen_tokens": args.gen_tokens,
        "rounds": args.rounds,
        "settings": [dataclasses.asdict(s) for s in SETTINGS],
        "own_base_floor": OWN_BASE_FLOOR,
        "rows": rows,
    }
    (args.out / "compare.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = report.markdown(result)
    (args.out / "compare.md").write_text(text, encoding="utf-8")
    print(text)
    if any(row["errors"] for row in rows):
        sys.exit("some requests failed; see first_error in compare.json")


if __name__ == "__main__":
    main()
