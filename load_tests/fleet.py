"""Several polyads behind the HAProxy of deploy/, each on a machine of its own (namespaces.py), and
`polyad bench` as their clients. The calling thread lives in the hub's namespace from then on.
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

import http_client
import namespaces
import servers

DEPLOY = pathlib.Path(__file__).resolve().parent.parent / "deploy"
PORTS = {"grpc": 50051, "http": 8080, "admin": 50052}
FRONT_PORTS = {"grpc": 50443, "http": 8443}
WAIT_SECONDS = 600  # for what takes moments on a machine that is not stopped meanwhile
POLL_SECONDS = 0.02
UP = "2"  # srv_op_state of `show servers state`
BALANCE = "balance hash var(txn.adapter)"
ROUTINGS = {
    "affine": BALANCE,
    "bounded": f"{BALANCE}\n  hash-balance-factor 125",
    "least": "balance leastconn",
    "random": "balance random(1)",
    "robin": "balance roundrobin",
}


def wait_until(true, what):
    """-> what `true` returns, once that is true."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        found = true()
        if found:
            return found
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{what}: not within {WAIT_SECONDS} s")


class Replica(servers.Polyad):
    """polyad on a machine of its own; it can be started again there."""

    def __init__(self, number, folder, args):
        self.machine = namespaces.Machine(number)
        self.enter = self.machine.enter
        log = folder / f"replica-{number}.log"
        flags = f"--insecure --threads {args.threads} --kv-mib 128 {args.polyad_flags}"
        self.adapters = set(args.adapters)
        super().__init__(args.polyad, args.model, log, args.adapters, flags, f"polyad-{number}")

    def listen(self, port):
        return f"{self.machine.address}:{PORTS[port]}"

    def start(self):
        """Ready, with a series of its own in /metrics for each adapter: only a name that has had
        requests gets one, and only from then on.
        """
        super().start()
        for adapter in self.adapters:
            self.ask({"model": adapter})
        wait_until(lambda: self.adapters <= self.requests_by_adapter().keys(), "adapters' series")

    def ask(self, body):
        """One token."""
        body = body | {"prompt": [1], "max_tokens": 1}
        status, text = http_client.post(self.url, "/v1/completions", body)
        if status != 200:
            raise RuntimeError(f"{self.name}: {body}: expected 200, got {status}: {text}")

    def running(self):
        """-> (sequences in its batch, tokens it has generated)"""
        found = http_client.metrics(self.url)
        return found["vllm:num_requests_running"], found["polyad_generated_tokens_total"]

    def requests_by_adapter(self):
        """-> {adapter: requests that ended}. A request is counted after its answer has been handed
        over and before any later one's is: so one of the base model goes before.
        """
        self.ask({})
        name = "polyad_adapter_requests_total"
        counts = http_client.by_label(self.url, name, "adapter")
        return {adapter: counts[adapter] for adapter in self.adapters & counts.keys()}

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.stop()

    def close(self):
        self.stop()
        self.machine.close()


class Proxy(servers.Server):
    """HAProxy with the file of deploy/, at the hub's address, in clear text."""

    enter = staticmethod(namespaces.end_with_parent)

    def __init__(self, folder, replicas, routing):
        self.socket = folder / "haproxy.sock"
        path = folder / "haproxy.cfg"
        path.write_text(self.configure(replicas, routing), encoding="utf-8")
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        super().__init__("haproxy", [program, "-db", "-f", str(path)], folder / "haproxy.log")

    def configure(self, replicas, routing):
        """The file as shipped but for addresses, certificates and, where asked, the routing; and
        patient: on a machine that is short of time a replica that is slow is no dead one.
        """
        text = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
        hub = namespaces.HUB_ADDRESS
        text = text.replace("/run/haproxy/polyad.sock", str(self.socket))
        text, binds = re.subn(r"bind :(\d+) ssl crt \S+ alpn (\S+)", rf"bind {hub}:\1 \2", text)
        text = text.replace(":50443 h2\n", ":50443 proto h2\n").replace(" h2,http/1.1\n", "\n")
        servers_of = lambda line: "".join(
            line[1].replace("polyad-1", one.name).replace("10.0.0.11", one.machine.address)
            for one in replicas
        )
        text = re.sub(r"  server polyad-[2-9].*\n", "", text)
        text, lines = re.subn(r"(  server polyad-1 .*\n)", servers_of, text)
        for short in ("timeout connect 2s", "timeout check 5s"):
            text = text.replace(short, f"{short.rsplit(' ', 1)[0]} {WAIT_SECONDS}s")
        balances = text.count(BALANCE)
        if (binds, lines, balances) != (2, 2, 2):
            raise RuntimeError(f"haproxy.cfg: expected two of each, got {binds, lines, balances}")
        return text.replace(BALANCE, ROUTINGS[routing])

    def wait_until_ready(self, deadline):
        wait_until(lambda: self.process.poll() is not None or self.answers(), "haproxy")
        if self.process.poll() is not None:
            raise RuntimeError(f"haproxy ended: {self.log_path.read_text(encoding='utf-8')}")

    def answers(self):
        try:
            return self.ask("show version")
        except OSError:
            return ""

    def ask(self, command):
        """One command of HAProxy's runtime API."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(WAIT_SECONDS)
            line.connect(str(self.socket))
            line.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: line.recv(65536), b"")).decode()

    def up(self):
        """-> names of the replicas that requests go to."""
        lines = self.ask("show servers state polyad_http").splitlines()[2:]
        fields = [line.split() for line in lines if line.strip()]
        return {field[3] for field in fields if field[5] == UP}


class Fleet:
    """`count` replicas, of which the first `started` are up, and the proxy."""

    def __init__(self, args, count, started, routing="affine"):
        self.args, self.routing = args, routing
        self.count, self.started = count, started
        self.replicas, self.proxy, self.folder = [], None, None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.folder.name)
        try:
            for number in range(1, self.count + 1):
                self.replicas.append(Replica(number, folder, self.args))
            for replica in self.replicas[: self.started]:
                replica.start()
            self.proxy = Proxy(folder, self.replicas, self.routing)
            self.proxy.start()
            self.wait_for(self.replicas[: self.started])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.proxy:
            self.proxy.stop()
        for replica in self.replicas:
            replica.close()
        self.folder.cleanup()

    def wait_for(self, replicas):
        """Until the proxy sends to these and no others."""
        expected = {replica.name for replica in replicas}
        wait_until(lambda: self.proxy.up() == expected, f"{sorted(expected)} up")

    def counts(self):
        return {one.name: one.requests_by_adapter() if one.process else {} for one in self.replicas}

    def bench(self, front, trace, replica=None):
        """On the proxy, or past it on one replica's HTTP."""
        return Bench(self, front, trace, replica)


class Bench:
    """`polyad bench`, started; finish() waits for it."""

    def __init__(self, fleet, front, trace, replica):
        self.front = front
        self.folder = tempfile.TemporaryDirectory()
        place = pathlib.Path(self.folder.name)
        lines = "".join(json.dumps(one) + "\n" for one in trace)
        (place / "trace.jsonl").write_text(lines, encoding="utf-8")
        scheme = "http://" if front == "http" else ""
        command = [fleet.args.polyad, "bench"]
        proxy = f"{scheme}{namespaces.HUB_ADDRESS}:{FRONT_PORTS[front]}"
        command += ["--target", replica.url if replica else proxy]
        command += ["--trace", "trace.jsonl", "--log", "log.jsonl", "--json", "result.json"]
        self.process = subprocess.Popen(
            command,
            cwd=place,
            env=os.environ | {"no_proxy": "*"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=namespaces.end_with_parent,
        )

    def finish(self):
        """-> (result, rows of the log with sent, first and ended in seconds since 1970)."""
        _, said = self.process.communicate()
        if self.process.returncode not in (0, 1):
            raise RuntimeError(f"polyad bench: {said.decode()}")
        place = pathlib.Path(self.folder.name)
        result = json.loads((place / "result.json").read_text(encoding="utf-8"))
        rows = []
        for line in (place / "log.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line) | {"front": self.front}
            arrival = result["started_unix_us"] / 1e6 + row["at_s"]
            first = row["ttft_ms"]
            row["sent"] = arrival + row["sent_ms"] / 1e3
            row["first"] = None if first is None else arrival + first / 1e3
            row["ended"] = arrival + row["e2el_ms"] / 1e3
            rows.append(row)
        self.folder.cleanup()
        return result, rows
