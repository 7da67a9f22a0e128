"""The servers of a comparison behind one interface: start, run a load, pause, resume, stop.

All servers of one setting are up at once and take turns (A B C, A B C, ...), so that a slow minute
of the machine hits each of them. One that is not being measured is stopped with SIGSTOP: it keeps
its memory and takes no time from the others. Every server listens on 127.0.0.1 only, on a port that
was free.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import load as load_module

START_TIMEOUT_SECONDS = 600
STOP_TIMEOUT_SECONDS = 20
VLLM_KV_GIB = 1


def add_polyad(parser):
    """The flags of every script that starts polyad: which program, and what else to tell it."""
    program = pathlib.Path(__file__).resolve().parent.parent / "build/release/bin/polyad"
    parser.add_argument(
        "--polyad",
        default=os.environ.get("POLYAD_PROGRAM", str(program)),
        help="[POLYAD_PROGRAM]",
    )
    parser.add_argument("--polyad-flags", default="", help="more flags for polyad serve")


def add_model(parser):
    """The base model, where POLYAD_LOAD_MODEL may name it."""
    model = os.environ.get("POLYAD_LOAD_MODEL")
    parser.add_argument(
        "--model", type=pathlib.Path, default=model, required=not model, help="[POLYAD_LOAD_MODEL]"
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A child process in its own process group, with its output in `log_path`."""

    enter = None  # what the child does before it becomes the program
    answers_lines = True  # on its standard output, which is read; else that is part of its log

    def __init__(self, name, command, log_path, environment=None):
        self.name = name
        self.command = command
        self.log_path = log_path
        self.environment = {**os.environ, **(environment or {})}
        self.process = None
        self.start_seconds = float("nan")

    def start(self):
        started = time.perf_counter()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.answers_lines else log,
                stderr=log,
                env=self.environment,
                process_group=0,
                preexec_fn=self.enter,
            )
        try:
            self.wait_until_ready(time.monotonic() + START_TIMEOUT_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - started

    def wait_until_ready(self, deadline):
        raise NotImplementedError

    def run(self, load):
        raise NotImplementedError

    def read_line(self, deadline):
        """One line of the child's standard output."""
        ready, _, _ = select.select(
            [self.process.stdout], [], [], max(0, deadline - time.monotonic())
        )
        line = self.process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{self.name} wrote no line; its log is {self.log_path}")
        return line.decode()

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def stop(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self.process.wait()
        self.process.stdin.close()
        if self.process.stdout:
            self.process.stdout.close()
        self.process = None


class HttpServer(Server):
    """A server with /v1/completions at `url`."""

    adapter_style = "model"
    model = ""
    url = ""

    def run(self, load):
        return load_module.run_once(
            dataclasses.replace(
                load, url=self.url, model=self.model, adapter_style=self.adapter_style
            )
        )


class Polyad(HttpServer):
    """`polyad serve`; adapters is {name: path}."""

    def __init__(self, program, model, log_path, adapters=None, flags="", name="polyad"):
        command = [program, "serve", "--model", str(model)]
        for adapter_name, path in (adapters or {}).items():
            command += ["--adapter", f"{adapter_name}={path}"]
        for port in ("http", "grpc", "admin"):
            command += [f"--{port}-listen", self.listen(port)]
        super().__init__(name, command + shlex.split(flags), log_path)
        self.addresses = {}

    def listen(self, port):
        """Where it listens for "http", "grpc" or "admin"."""
        return "127.0.0.1:0"

    def wait_until_ready(self, deadline):
        line = self.read_line(deadline)
        if not line.startswith("polyad ready "):
            raise RuntimeError(f"{self.name}: expected the ready line, got {line!r}")
        self.addresses = dict(field.split("=", 1) for field in line.split()[2:])
        self.url = "http://" + self.addresses["http"]


@contextlib.contextmanager
def running_polyad(args, flags, folder):
    """The server of a script that has add_polyad's and add_model's flags, its log in `folder`."""
    server = Polyad(
        args.polyad, args.model, pathlib.Path(folder) / "log", flags=f"{flags} {args.polyad_flags}"
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


class LlamaServer(HttpServer):
    """llama.cpp's llama-server; adapters are GGUF files in the order of their ids.

    A server that has adapters applies them to requests that name none, so base loads get a server
    without any.
    """

    adapter_style = "llamacpp"

    def __init__(self, program, model, log_path, adapters=(), flags="", name="llama.cpp"):
        self.port = free_port()
        command = [program, "-m", str(model), "--host", "127.0.0.1", "--port", str(self.port)]
        if adapters:
            command += ["--lora", ",".join(map(str, adapters)), "--lora-init-without-apply"]
        super().__init__(name, command + shlex.split(flags), log_path)
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self, deadline):
        wait_for_health(self, deadline)


def wait_for_health(server, deadline):
    """Until GET /health is answered with 200."""
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(server.url + "/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise RuntimeError(f"{server.name} did not become ready; its log is {server.log_path}")


class Vllm(HttpServer):
    """vLLM's OpenAI server; adapters is {name: path}."""

    answers_lines = False

    def __init__(self, python, model, log_path, adapters=None, flags="", name="vLLM"):
        self.port = free_port()
        command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), *shlex.split(flags)]
        if adapters:
            command += ["--lora-modules", *(f"{key}={path}" for key, path in adapters.items())]
        bounds = {
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{os.cpu_count() - 1}",
            "VLLM_CPU_KVCACHE_SPACE": str(VLLM_KV_GIB),
        }
        super().__init__(name, command, log_path, bounds)
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self, deadline):
        wait_for_health(self, deadline)


class InProcess(Server):
    """A library behind a script beside this one: no HTTP, no client beside it."""

    def __init__(self, python, script, arguments, log_path, name):
        path = pathlib.Path(__file__).with_name(script)
        super().__init__(name, [python, str(path), *map(str, arguments)], log_path)

    def wait_until_ready(self, deadline):
        line = self.read_line(deadline)
        if line.strip() != "ready":
            raise RuntimeError(f"{self.name}: expected 'ready', got {line!r}")

    def replay(self, trace, seed, timeout_seconds):
        """An open loop. -> {duration, rows as `polyad bench --log` has them}"""
        return self.ask({"trace": trace, "seed": seed}, timeout_seconds)

    def ask(self, message, timeout_seconds):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.read_line(time.monotonic() + timeout_seconds))


class OpenVino(InProcess):
    """OpenVINO GenAI's continuous batching."""

    def __init__(self, python, model, log_path, name="OpenVINO GenAI"):
        super().__init__(python, "openvino_peer.py", [model], log_path, name)

    def run(self, load):
        ask = {
            k: getattr(load, k)
            for k in ("concurrency", "requests", "prompt_tokens", "gen_tokens", "seed")
        }
        return self.ask(ask, load.timeout_seconds)


class Peft(InProcess):
    """Transformers' generate, and PEFT's mixed batches; adapters is {name: path}."""

    def __init__(self, python, model, log_path, adapters=None, name="PEFT"):
        named = [f"{key}={path}" for key, path in (adapters or {}).items()]
        super().__init__(python, "peft_peer.py", [model, *named], log_path, name)
