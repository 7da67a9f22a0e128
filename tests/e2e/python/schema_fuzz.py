#!/usr/bin/env python3
"""Schemathesis against the document that the server itself serves: no 5xx, no status, content type or body that the
document does not have. The model is the tiny golden one with a chat template.

  schema_fuzz.py --examples 400 --at-least 5000 [--seed N]    prints how many requests were made and what they got
"""
import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

from server import Server

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
TEMPLATE = ("{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
            "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")


def make_model(folder):
    """The golden model, which has no chat template, with one."""
    model = pathlib.Path(folder) / "tiny"
    shutil.copytree(ROOT / "tests/golden/models/llama", model)
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    return model


def count_statuses(path):
    """-> requests by status, of a recording of them (one JSON document with an entry for each)."""
    counts = collections.Counter()
    for entry in json.loads(path.read_text())["log"]["entries"]:
        counts[entry["response"]["status"]] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=30, help="generated requests of each operation")
    parser.add_argument("--at-least", type=int, default=500, help="requests, or the run has failed")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    adapters = ROOT / "tests/golden/adapters/llama"
    with tempfile.TemporaryDirectory(prefix="polyad-fuzz-") as folder:
        flags = ["--model", str(make_model(folder)), "--model-name=tiny", "--dtype=f32", "--kv-mib=8",
                 "--log-level=warning", "--adapter-root", str(adapters), "--adapter", f"plain={adapters / 'plain'}"]
        record = pathlib.Path(folder) / "requests.har"
        with Server(flags) as server:
            base = f"http://{server.http}"
            run = subprocess.run(
                [os.path.join(os.path.dirname(sys.executable), "st"), "run", f"{base}/openapi.json", "--checks", CHECKS,
                 "--phases", "coverage,fuzzing", "--mode", "all", "--max-examples", str(options.examples),
                 "--seed", str(options.seed), "--suppress-health-check", "all", "--request-timeout", "300",
                 "--report-har-path", str(record), "--no-color"], cwd=folder)
            if not server.alive():
                raise SystemExit(f"the server ended:\n{server.log()}")
            with urllib.request.urlopen(f"{base}/health", timeout=60) as health:
                assert health.status == 200
        counts = count_statuses(record)
    print(f"requests {sum(counts.values())}, by status {dict(sorted(counts.items()))}")
    if run.returncode != 0:
        raise SystemExit(run.returncode)
    if sum(counts.values()) < options.at_least or any(status >= 500 for status in counts):
        raise SystemExit(f"expected at least {options.at_least} requests and none that the server failed")


if __name__ == "__main__":
    main()
