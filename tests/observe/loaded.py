"""A polyad on a tiny model under load, for tests of what it shows: tenants, adapters that do not all fit, refusals.

Keys are KEYS' values; the metrics token is METRICS_TOKEN.
"""
import hashlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/golden/models/llama"
sys.path.insert(0, str(ROOT / "tests/e2e/python"))
from server import Server  # noqa: E402

KEYS = {"acme": "acme-key", "initech": "initech-key", "umbrella": "umbrella-key"}
QUOTAS = {"acme": {"weight": 4}, "initech": {"max_requests": 1}, "umbrella": {"tokens_per_second": 20}}
METRICS_TOKEN = "metrics-token"
ANSWER_SECONDS = 600  # a busy machine


def make_adapters(folder, count, rank=16):
    """-> names, one folder each below `folder`."""
    subprocess.run([sys.executable, ROOT / "tools/make_random_adapters.py", MODEL, folder, "--count", str(count), "--rank", str(rank)],
                   check=True)
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def write_credentials(folder):
    """-> the flags that name the files."""
    tenants = {name: {"keys": [hashlib.sha256(key.encode()).hexdigest()], **QUOTAS[name]} for name, key in KEYS.items()}
    files = {"tenants-file": json.dumps({"tenants": tenants}), "metrics-token-file": METRICS_TOKEN, "admin-token-file": "admin-token"}
    flags = []
    for flag, text in files.items():
        path = pathlib.Path(folder, flag)
        path.write_text(text)
        path.chmod(0o600)
        flags += [f"--{flag}", str(path)]
    return flags


def ask(address, body, key="", path="/v1/completions"):
    """-> (status, body)"""
    connection = http.client.HTTPConnection(address, timeout=ANSWER_SECONDS)
    fields = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    connection.request("POST", path, json.dumps(body), fields)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


class Load:
    """Threads that ask again and again until `stop`; each is a function that is called with a number that grows."""

    def __init__(self, askers):
        self.stopped = threading.Event()
        self.statuses = {}
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(asker,), daemon=True) for asker in askers]
        for thread in self.threads:
            thread.start()

    def _run(self, asker):
        number = 0
        while not self.stopped.is_set():
            status, _ = asker(number)
            number += 1
            with self.lock:
                self.statuses[status] = self.statuses.get(status, 0) + 1

    def stop(self):
        """-> {status: how often}"""
        self.stopped.set()
        for thread in self.threads:
            thread.join(ANSWER_SECONDS)
        return self.statuses


def skip_unless(*programs):
    """Ends the test as one that could not run only where the caller asked for that by POLYAD_SKIP_MISSING."""
    for program in programs:
        if not any(os.access(os.path.join(folder, program), os.X_OK) for folder in os.environ["PATH"].split(":")):
            print(f"{program} is not installed: tools/dependencies")
            sys.exit(77 if os.environ.get("POLYAD_SKIP_MISSING") else 1)


__all__ = ["ROOT", "MODEL", "Server", "KEYS", "METRICS_TOKEN", "make_adapters", "write_credentials", "ask", "Load", "skip_unless", "ANSWER_SECONDS"]
