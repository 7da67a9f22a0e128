"""One server on the demo model for every test of this folder, and clients of it."""
import os
import pathlib

import openai
import pytest

from server import Server

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODEL = os.environ["POLYAD_DEMO_MODEL"]
TIMEOUT = 600  # a busy machine


@pytest.fixture(scope="session")
def server():
    flags = ["--model", MODEL, "--model-name=smollm2", "--kv-mib=256", "--log-level=info",
             "--adapter-root", str(ROOT / "demo/adapters"), "--adapter", f"pirate={ROOT / 'demo/adapters/pirate'}"]
    with Server(flags) as running:
        yield running
        assert running.alive(), running.log()


def client_of(address, key="none"):
    return openai.OpenAI(base_url=f"http://{address}/v1", api_key=key, timeout=TIMEOUT, max_retries=0)


@pytest.fixture(scope="session")
def client(server):
    return client_of(server.http)


@pytest.fixture()
def asynchronous(server):
    return openai.AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="none", timeout=TIMEOUT, max_retries=0)
