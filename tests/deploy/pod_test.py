"""polyad and the proxy in one network namespace, as compose.yaml has them: its images, environment, mounts and commands, without Docker.

What compose.yaml has beside them (Prometheus, Grafana) comes as images that are not to be had here.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import pytest

import image

DEPLOY = image.ROOT / "deploy"
MODEL = pathlib.Path(os.environ["POLYAD_DEMO_MODEL"])
PATIENCE = 600  # seconds; a busy machine
# A namespace of its own has only a loopback interface, which is down.
_HOLD = """
import fcntl, signal, socket, struct
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14s", b"lo", 0x49, b""))
print("up", flush=True)
signal.pause()
"""
# OpenAI's own client, at the address of the first argument. Prints what it got as JSON.
_ASK = """
import json, ssl, sys
import openai
address, authority, key, model = sys.argv[1:]
line = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=authority), trust_env=False)
def client_with(key):
    return openai.OpenAI(base_url=address, api_key=key, max_retries=0, http_client=line)
client = client_with(key)
request = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}
whole = client.chat.completions.create(**request).choices[0].message.content
parts = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(stream=True, **request) if chunk.choices]
try:
    client_with("another").models.list()
    refused = False
except openai.AuthenticationError:
    refused = True
print(json.dumps({"models": [one.id for one in client.models.list()], "whole": whole, "parts": parts, "refused": refused}))
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("buildah"), reason="needs root and buildah")


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    secrets = tmp_path_factory.mktemp("pod") / "secrets"
    printed = subprocess.run([DEPLOY / "compose/make_secrets", secrets], check=True, stdout=subprocess.PIPE, text=True).stdout
    environment = {"POLYAD_MODEL": MODEL.name, "POLYAD_MODEL_FOLDER": str(MODEL.parent), "POLYAD_SECRETS": str(secrets),
                   "POLYAD_MEMORY_MIB": "512"}
    text = subprocess.run([pathlib.Path(sys.executable).parent / "docker-compose", "-f", DEPLOY / "compose/compose.yaml",
                           "config", "--format", "json"], check=True, stdout=subprocess.PIPE, text=True,
                          env=os.environ | environment).stdout
    return {"services": json.loads(text)["services"], "secrets": secrets, "key": printed.split()[3]}


@pytest.fixture(scope="module")
def roots(store, polyad_image):
    """-> {service: folder of its image's files}"""
    proxy = "localhost/proxy-test"
    store.build(DEPLOY / "docker/Dockerfile.proxy", DEPLOY, proxy, DEBIAN=image.BASE)
    opened = {service: store.open(name) for service, name in (("polyad", polyad_image), ("proxy", proxy))}
    yield {service: root for service, (_, root) in opened.items()}
    for container, _ in opened.values():
        store.close(container)
    store.run("rmi", "-f", proxy)


def start(compose, roots, name, command, network, state):
    service = compose["services"][name]
    assert service["network_mode"] == "service:pod" and service["user"] == "65532:65532" and service["read_only"]
    mounts = []
    for mount in service.get("volumes", []):
        if mount["type"] == "bind":
            assert mount["read_only"]
            mounts.append((mount["target"], mount["source"], "ro"))
        else:
            mounts.append((mount["target"], state, "rw"))
    for mount in service.get("tmpfs", []):
        target, _, options = mount.partition(":")
        if target != "/tmp":
            mounts.append((target, options, "tmpfs"))
    process = image.start(roots[name], command, mounts, service.get("environment"), network, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    process.lines = []
    threading.Thread(target=lambda: process.lines.extend(process.stderr), daemon=True).start()
    return process


@pytest.fixture(scope="module")
def pod(compose, roots, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    os.chown(state, image.USER, image.USER)
    network = subprocess.Popen(["unshare", "--net", sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True)
    assert network.stdout.readline() == "up\n"
    polyad = start(compose, roots, "polyad", ["/usr/bin/polyad", "serve"], network, state)
    assert polyad.stdout.readline() == "polyad ready grpc=127.0.0.1:50051 admin=127.0.0.1:50052 http=127.0.0.1:8080\n", polyad.lines
    health = start(compose, roots, "polyad", ["/usr/bin/polyad", "probe"], network, state)
    assert health.wait(PATIENCE) == 0, health.lines  # what the proxy waits for
    proxy = start(compose, roots, "proxy", ["/usr/sbin/nginx", "-p", "/var/lib/polyad-proxy", "-c", "/etc/polyad/nginx.conf",
                                            "-g", "daemon off;"], network, state)
    yield network, polyad, proxy
    for process in (proxy, polyad, network):
        process.kill()
        process.wait(PATIENCE)


def curl(network, *arguments):
    """-> (status, body)"""
    done = subprocess.run(["nsenter", f"--net=/proc/{network.pid}/ns/net", "curl", "-sS", "-w", "\n%{http_code}", *map(str, arguments)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    body, _, status = done.stdout.rpartition("\n")
    return (int(status) if done.returncode == 0 else 0), body or done.stderr


def test_tenants_through_the_proxy(pod, compose):
    network, _, proxy = pod
    authority = ["--cacert", compose["secrets"] / "proxy/cert.pem"]
    deadline = time.monotonic() + PATIENCE
    while (answer := curl(network, *authority, "https://localhost:8443/ready"))[0] != 200:
        assert proxy.poll() is None and time.monotonic() < deadline, (answer, proxy.lines)
        time.sleep(0.1)
    body = json.dumps({"model": MODEL.stem, "prompt": "The sea is", "max_tokens": 4, "temperature": 0})
    asked = [*authority, "https://localhost:8443/v1/completions", "-H", "content-type: application/json", "-d", body]
    assert curl(network, *asked)[0] == 401
    status, text = curl(network, *asked, "-H", f"authorization: Bearer {compose['key']}")
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] == 4
    for path in ("/metrics", "/v1/load_lora_adapter"):
        assert curl(network, *authority, f"https://localhost:8443{path}")[0] == 404


def test_the_openai_client_through_the_proxy(pod, compose):
    network, _, proxy = pod
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{network.pid}/ns/net", sys.executable, "-c", _ASK, "https://localhost:8443/v1",
         compose["secrets"] / "proxy/cert.pem", compose["key"], MODEL.stem],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, (done.stderr, proxy.lines)
    got = json.loads(done.stdout)
    assert got["models"] == [MODEL.stem] and got["refused"]
    assert len(got["parts"]) > 4 and "".join(got["parts"]) == got["whole"] != ""


def test_the_scraper_needs_its_token(pod, compose):
    network, _, _ = pod
    token = (compose["secrets"] / "polyad/metrics.token").read_text().strip()
    assert curl(network, "http://127.0.0.1:8080/metrics")[0] == 401
    status, text = curl(network, "http://127.0.0.1:8080/metrics", "-H", f"authorization: Bearer {token}")
    assert status == 200 and "vllm:num_requests_waiting" in text


def test_both_end_when_asked(pod):
    _, polyad, proxy = pod
    polyad.terminate()
    assert polyad.wait(PATIENCE) == 0, polyad.lines
    proxy.send_signal(3)  # SIGQUIT, the image's stop signal
    assert proxy.wait(PATIENCE) == 0, proxy.lines
