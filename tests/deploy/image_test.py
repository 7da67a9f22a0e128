"""The real Dockerfile, built with a program that is already there, and the server run from the image as a cluster would."""
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import threading

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import image

MODEL = pathlib.Path(os.environ["POLYAD_DEMO_MODEL"])
KEY, ADMIN = "a tenant's key", "the admin's token"
MOST_BYTES = 80 << 20
PATIENCE = 600  # seconds; a busy machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("buildah"), reason="needs root and buildah")


@pytest.fixture(scope="module")
def root(store, polyad_image):
    container, folder = store.open(polyad_image)
    yield folder
    store.close(container)


def files_of(folder):
    for path in folder.rglob("*"):
        yield path, path.lstat()


def test_configuration(store, polyad_image):
    config = store.config_of(polyad_image)["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/polyad"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/polyad", "probe"]
    assert set(config["ExposedPorts"]) == {"50051/tcp", "50052/tcp", "8080/tcp"}
    labels = config["Labels"]
    assert labels["org.opencontainers.image.revision"] == "abc123"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_small_and_bare(root):
    total, writable, privileged = 0, [], []
    for path, status in files_of(root):
        total += 0 if stat.S_ISLNK(status.st_mode) else status.st_blocks * 512
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            privileged.append(path)
        owns = status.st_uid == image.USER and status.st_mode & stat.S_IWUSR
        if not stat.S_ISLNK(status.st_mode) and (owns or status.st_mode & stat.S_IWOTH):
            writable.append(str(path.relative_to(root)))
    print(f"the image's files: {total / (1 << 20):.1f} MiB")
    assert total <= MOST_BYTES
    assert not privileged
    assert sorted(writable) == ["tmp", "var/lib/polyad", "var/lib/polyad/adapters", "var/lib/polyad/model",
                                "var/lib/polyad/state"]
    assert sorted(path.name for path in (root / "usr/bin").iterdir()) == ["polyad"]


def test_licences_stay(root):
    listed = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
    assert "libgrpc29" in listed and "libc6" in listed
    for name in listed:
        assert (root / "usr/share/doc" / name).exists(), name


def test_sbom(root):
    script = image.ROOT / "deploy/docker/sbom.py"
    text = subprocess.run([script, root, "--version=0.1.0"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    document = json.loads(text)
    names = {component["name"] for component in document["components"]}
    assert {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()} < names
    program = next(c for c in document["components"] if c["name"] == "/usr/bin/polyad")
    assert program["hashes"][0]["content"] == hashlib.sha256((root / "usr/bin/polyad").read_bytes()).hexdigest()
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        piped = subprocess.run([script, "-", "--version=0.1.0"], check=True, stdin=tar.stdout,
                               stdout=subprocess.PIPE, text=True).stdout
    assert piped == text


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Container:
    def __init__(self, root, folder):
        self.root, self.port = root, free_port()
        secrets, state = folder / "secrets", folder / "state"
        secrets.mkdir()
        state.mkdir()
        os.chown(state, image.USER, image.USER)
        tenants = {"tenants": {"acme": {"keys": [hashlib.sha256(KEY.encode()).hexdigest()]}}}
        (secrets / "tenants.json").write_text(json.dumps(tenants))
        (secrets / "admin.token").write_text(ADMIN)
        self.mounts = [("/var/lib/polyad/model", MODEL.parent, "ro"), ("/etc/polyad", secrets, "ro"),
                       ("/var/lib/polyad/adapters", image.ROOT / "demo/adapters", "ro"),
                       ("/var/lib/polyad/state", state, "rw")]
        self.environment = {
            "POLYAD_MODEL": f"/var/lib/polyad/model/{MODEL.name}", "POLYAD_MODEL_NAME": "smollm2", "POLYAD_KV_MIB": "128",
            "POLYAD_ADAPTER_ROOT": "/var/lib/polyad/adapters", "POLYAD_STATE_DIR": "/var/lib/polyad/state",
            "POLYAD_TENANTS_FILE": "/etc/polyad/tenants.json", "POLYAD_ADMIN_TOKEN_FILE": "/etc/polyad/admin.token",
            "POLYAD_GRPC_LISTEN": "127.0.0.1:0", "POLYAD_ADMIN_LISTEN": "127.0.0.1:0",
            "POLYAD_HTTP_LISTEN": f"127.0.0.1:{self.port}"}
        self.lines = []
        self.process = image.start(root, ["/usr/bin/polyad", "serve"], self.mounts, self.environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def ask(self, path, body=None, key=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        return connection.getresponse()

    def probe(self):
        return image.start(self.root, ["/usr/bin/polyad", "probe"], self.mounts, self.environment).wait(PATIENCE)


@pytest.fixture(scope="module")
def container(root, tmp_path_factory):
    container = Container(root, tmp_path_factory.mktemp("container"))
    yield container
    container.process.kill()
    container.process.wait(PATIENCE)


def test_serves_sealed(container):
    assert container.probe() == 1  # nothing listens yet, or it is not ready
    ready = container.process.stdout.readline()
    assert re.match(r"polyad ready grpc=\S+ admin=\S+ http=\S+", ready), "".join(container.lines)
    assert container.probe() == 0
    assert container.ask("/health").status == 200
    assert container.ask("/ready").status == 200
    status = dict(line.split(":\t", 1) for line in
                  pathlib.Path(f"/proc/{container.process.pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["Name"] == "polyad"
    assert status["Uid"].split() == status["Gid"].split() == [str(image.USER)] * 4
    assert status["Groups"].split() == []
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    mounts = [line.split() for line in pathlib.Path(f"/proc/{container.process.pid}/mountinfo").read_text().splitlines()]
    assert next(m for m in mounts if m[4] == "/")[5].split(",")[0] == "ro"


def test_answers_tenants_alone(container):
    body = {"model": "smollm2", "prompt": "The sea is", "max_tokens": 4, "temperature": 0}
    assert container.ask("/v1/completions", body).status == 401
    answer = container.ask("/v1/completions", body, KEY)
    assert answer.status == 200
    assert json.load(answer)["usage"]["completion_tokens"] == 4


def test_keeps_adapters_in_its_volume(container):
    answer = container.ask("/v1/load_lora_adapter", {"lora_name": "pirate", "lora_path": "pirate"}, ADMIN)
    assert answer.status == 200, answer.read()
    names = [model["id"] for model in json.load(container.ask("/v1/models", key=KEY))["data"]]
    assert "pirate" in names


def test_drains(container):
    body = {"model": "pirate", "prompt": "The sea is", "max_tokens": 200, "temperature": 0, "stream": True,
            "ignore_eos": True}
    answer = container.ask("/v1/completions", body, KEY)
    assert answer.status == 200
    assert answer.readline().startswith(b"data: ")
    container.process.terminate()
    rest = answer.read().decode()
    assert rest.rstrip().endswith("data: [DONE]")
    assert '"finish_reason":"length"' in rest.replace(" ", "")
    assert container.process.wait(PATIENCE) == 0
    assert container.probe() == 1
