#!/usr/bin/env python3
"""Loads adapters into a running polyad over its admin RPC and asks base and adapters one question at once.

All answers stream side by side: the server computes them in one batch. Needs Debian's python3-grpcio,
protobuf-compiler and protobuf-compiler-grpc; the stubs are made from proto/ on the fly, as any client would.

  side_by_side.py --grpc HOST:PORT --admin HOST:PORT --load json=json --load pirate=pirate "What is the capital of France?"
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIN_WIDTH, GAP = 24, 2


def make_stubs():
    """Compiles the two .proto files into a temporary folder and imports them."""
    folder = tempfile.mkdtemp(prefix="polyad-stubs-")
    protos = [str(p.relative_to(ROOT / "proto")) for p in sorted((ROOT / "proto/polyad/v1").glob("*.proto"))]
    plugin = shutil.which("grpc_python_plugin")
    subprocess.run(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}", f"--plugin=protoc-gen-grpc={plugin}",
                    f"--grpc_out={folder}", *protos], check=True)
    sys.path.insert(0, folder)
    from polyad.v1 import adapter_admin_pb2, adapter_admin_pb2_grpc, inference_pb2, inference_pb2_grpc
    shutil.rmtree(folder)
    return adapter_admin_pb2, adapter_admin_pb2_grpc, inference_pb2, inference_pb2_grpc


def load_adapters(admin, messages, pairs):
    """Hot-loads NAME=URI pairs and prints each load's report."""
    for pair in pairs:
        name, _, uri = pair.partition("=")
        for update in admin.LoadAdapter(messages.LoadAdapterRequest(name=name, uri=uri, replace=True)):
            report = update.report
        where = f" on {', '.join(report.targets)}" if report.targets else ""
        rank = f" rank {','.join(map(str, report.ranks))}" if report.ranks else ""
        prompt = f" of {report.num_virtual_tokens} tokens" if report.num_virtual_tokens else ""
        print(f"  {name:9s} {report.family}{rank}{prompt}{where}: "
              f"{report.num_tensors_read} tensors, {report.resident_bytes / 1e6:.1f} MB, loaded in {report.load_ms:.0f} ms")


class Column:
    """One model's answer as it arrives."""

    def __init__(self, title):
        self.title, self.text, self.tokens, self.done = title, "", 0, False
        self.first_ms = self.total_ms = 0.0


def ask(service, messages, column, model, question, max_tokens):
    start = time.monotonic()
    request = messages.GenerateRequest(model=model)
    request.chat.messages.add(role="user", content=question)
    request.sampling.temperature = 0
    request.stopping.max_tokens = max_tokens
    for response in service.Generate(request):
        if response.HasField("delta"):
            column.first_ms = column.first_ms or (time.monotonic() - start) * 1e3
            column.text += response.delta.text
            column.tokens += len(response.delta.token_ids)
    column.total_ms, column.done = (time.monotonic() - start) * 1e3, True


def bands(columns, total_width):
    """The columns in as few rows of about equal length as leave each MIN_WIDTH characters, and their width."""
    fitting = max(1, (total_width + GAP) // (MIN_WIDTH + GAP))
    count = -(-len(columns) // fitting)
    per_band = -(-len(columns) // count)
    return ([columns[i:i + per_band] for i in range(0, len(columns), per_band)],
            max(MIN_WIDTH, (total_width + GAP) // per_band - GAP))


def draw(columns, total_width):
    """The columns as lines of text, one row of columns below the other where they do not fit in one."""
    rows, width = bands(columns, total_width)
    lines = []
    for row in rows:
        lines += draw_row(row, width) + [""]
    return lines[:-1]


def draw_row(columns, width):
    wrapped = []
    for column in columns:
        lines = [line for part in column.text.strip().split("\n") for line in (textwrap.wrap(part, width) or [""])]
        foot = f"[{column.tokens} tokens, {column.total_ms:.0f} ms]" if column.done else "..."
        wrapped.append([column.title.upper(), "-" * min(width, len(column.title))] + lines + [foot])
    height = max(map(len, wrapped))
    return [(" " * GAP).join((lines[i] if i < len(lines) else "").ljust(width)[:width] for lines in wrapped).rstrip() for i in range(height)]


def stream_side_by_side(service, messages, models, question, max_tokens):
    columns = [Column(name or "base") for name in models]
    threads = [threading.Thread(target=ask, args=(service, messages, column, name, question, max_tokens), daemon=True)
               for column, name in zip(columns, models)]
    terminal = shutil.get_terminal_size((150, 40))
    for thread in threads:
        thread.start()
    drawn = 0
    while True:
        alive = any(thread.is_alive() for thread in threads)
        if sys.stdout.isatty() or not alive:
            lines = draw(columns, terminal.columns)[: max(10, terminal.lines - 4) if alive else None]
            sys.stdout.write(f"\x1b[{drawn}A\x1b[J" if drawn and sys.stdout.isatty() else "")
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
            drawn = len(lines)
        if not alive:
            return columns
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--admin", required=True)
    parser.add_argument("--load", action="append", default=[], metavar="NAME=URI")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("questions", nargs="+")
    arguments = parser.parse_args()
    admin_messages, admin_services, messages, services = make_stubs()
    with grpc.insecure_channel(arguments.admin) as admin_channel, grpc.insecure_channel(arguments.grpc) as channel:
        print("Adapters, hot-loaded over the admin RPC:")
        load_adapters(admin_services.AdapterAdminServiceStub(admin_channel), admin_messages, arguments.load)
        models = [""] + [pair.partition("=")[0] for pair in arguments.load]
        for question in arguments.questions:
            print(f"\nQ: {question}\n")
            columns = stream_side_by_side(services.InferenceServiceStub(channel), messages, models, question, arguments.max_tokens)
            if not all(column.done and column.tokens for column in columns):
                sys.exit("an answer is missing")


if __name__ == "__main__":
    main()
