"""demo/python_client.py as a user runs it, against the tiny golden model and an adapter of it."""
import pathlib
import re
import subprocess
import sys

from server import Server

ROOT = pathlib.Path(__file__).resolve().parents[3]
CLIENT = ROOT / "demo/python_client.py"


def ask(server, *arguments):
    run = subprocess.run([sys.executable, CLIENT, "--grpc", server.grpc, *arguments], capture_output=True, text=True,
                         timeout=550)
    return run.returncode, run.stdout + run.stderr


def main():
    golden = ROOT / "tests/golden"
    plain = golden / "adapters/llama/plain"
    flags = ["--model", str(golden / "models/llama"), "--dtype=f32", "--kv-mib=8", "--log-level=warning",
             "--adapter-root", str(plain.parent), "--adapter", f"plain={plain}"]
    with Server(flags) as server:
        code, text = ask(server, "hello there")
        assert code == 0, text
        assert "models: llama, plain" in text and "again as text: 'hello there'" in text, text
        assert re.search(r"llama version 0, \d+ prompt tokens:", text), text
        assert "similarity to itself: 1.000" in text, text
        code, text = ask(server, "--model", "plain", "--max-tokens", "4", "hello there")
        assert code == 0 and "plain version 1" in text and re.search(r"[1-4] tokens, ended by (LENGTH|STOP)", text), text
        code, text = ask(server, "--model", "nobody", "hello there")
        assert code != 0 and "NOT_FOUND" in text, text


if __name__ == "__main__":
    main()
