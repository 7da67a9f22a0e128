#!/usr/bin/env python3
"""Behaves like `polyad serve` towards the load tests: same ready line, routes, metrics; no model.

The answer to a prompt is a function of the prompt. FAKE_POLYAD_FAULT=leak_block keeps one K/V
block for every client that leaves, =leak_descriptor opens a file for it, =unstable changes answers
over time. With FAKE_POLYAD_MISS_SECONDS set, prompts may hold any id, a MiB of --max-adapter-mib
holds one adapter, and a request for one that it does not hold waits as long.
"""

import asyncio
import json
import os
import sys

FAULT = os.environ.get("FAKE_POLYAD_FAULT", "")
MISS_SECONDS = os.environ.get("FAKE_POLYAD_MISS_SECONDS")
VOCABULARY = 320 if MISS_SECONDS is None else 1 << 20
LIMIT = "--max-adapter-mib"
NUM_RESIDENT = int(sys.argv[sys.argv.index(LIMIT) + 1]) if LIMIT in sys.argv else 1 << 20


class State:
    def __init__(self):
        self.adapters = {}
        self.resident = []  # names, used longest ago first
        self.read_back = 0
        self.blocks = 0
        self.answers = 0
        self.files = []


STATE = State()


def metrics():
    values = {
        "vllm:num_requests_running": 0,
        "vllm:num_requests_waiting": 0,
        "polyad_kv_blocks_used": STATE.blocks,
        'polyad_adapters{tier="device",family="lora"}': len(STATE.adapters),
        "polyad_adapter_bytes": 100 * len(STATE.adapters),
        "polyad_adapters_read_back_total": STATE.read_back,
    }
    return 200, "".join(f"{name} {value}\n" for name, value in values.items())


def change_adapters(path, body):
    if path == "/v1/load_lora_adapter":
        if body["lora_name"] in STATE.adapters:
            return 400, "{}"
        STATE.adapters[body["lora_name"]] = body["lora_path"]
    elif STATE.adapters.pop(body["lora_name"], None) is None:
        return 404, "{}"
    return 200, "{}"


def check(body):
    """The status that a completion's body deserves."""
    prompt = body["prompt"]
    if not isinstance(prompt, list) or not all(0 <= token < VOCABULARY for token in prompt):
        return 400
    if body.get("temperature", 1) < 0 or body["max_tokens"] < 0:
        return 400
    model = body.get("model", "")
    return 200 if model in STATE.adapters or not model else 404


def lose_client():
    if FAULT == "leak_block":
        STATE.blocks += 1
    elif FAULT == "leak_descriptor":
        STATE.files.append(open(os.devnull, encoding="utf-8"))


async def bring_in(model):
    if model in STATE.resident:
        STATE.resident.remove(model)
    else:
        STATE.read_back += 1
        await asyncio.sleep(float(MISS_SECONDS))
    STATE.resident = [*STATE.resident, model][-NUM_RESIDENT:]


async def complete(body, writer):
    if MISS_SECONDS is not None and body.get("model"):
        await bring_in(body["model"])
    tokens = body["max_tokens"]
    STATE.answers += 1
    shift = STATE.answers if FAULT == "unstable" else 0
    words = [f"{(sum(body['prompt']) + i + shift) % 97} " for i in range(tokens)]
    usage = {"completion_tokens": tokens}
    if not body.get("stream"):
        writer.write(
            answer(200, json.dumps({"choices": [{"text": "".join(words)}], "usage": usage}))
        )
        return
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for word in words:
        event = {"choices": [{"text": word, "finish_reason": None}]}
        writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await writer.drain()
        await asyncio.sleep(0)
    end = json.dumps({"choices": [], "usage": usage})
    writer.write(b"data: " + end.encode() + b"\n\ndata: [DONE]\n\n")


def answer(status, text):
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return (head + text).encode()


async def serve(reader, writer):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        length = [int(x.split(":")[1]) for x in head.split("\r\n") if "content-length" in x.lower()]
        body = json.loads(await reader.readexactly(length[0])) if length else {}
        if path == "/v1/completions":
            status = check(body)
            if status == 200:
                await complete(body, writer)
            else:
                writer.write(answer(status, "{}"))
        elif path == "/metrics":
            writer.write(answer(*metrics()))
        else:
            writer.write(answer(*change_adapters(path, body)))
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        lose_client()
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    print(f"polyad ready grpc={address} admin={address} http={address}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] != ["serve"]:
        sys.exit("usage: fake_polyad.py serve ...")
    asyncio.run(main())
