"""What deploy/ ships beside Kubernetes, read by the programs that would read it: no warning of any."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROGRAM = os.environ["POLYAD_PROGRAM"]
BIN = pathlib.Path(sys.executable).parent
MOST_EXPOSED = 2.0  # of 10, as systemd-analyze counts


def output_of(*command, environment=None, cwd=None):
    """-> what it printed, both streams; it has to succeed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=os.environ | (environment or {}), cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def drain_seconds():
    found = re.search(r'"drain_ms":\s*(\d+)', output_of(PROGRAM, "check-config", "--model", "/"))
    return int(found.group(1)) / 1000


def test_dockerfiles():
    files = sorted(DEPLOY.glob("docker/Dockerfile*"))
    assert len(files) == 3
    assert output_of(BIN / "hadolint", *files) == ""


def test_yaml():
    assert output_of(BIN / "yamllint", "--strict", "-c", DEPLOY / ".yamllint", ".", cwd=DEPLOY) == ""


def test_shell():
    scripts = [path for path in sorted([*DEPLOY.rglob("*"), *(ROOT / "tools").iterdir()])
               if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")]
    assert {"prebuilt", "make_root", "make_secrets"} <= {path.name for path in scripts}
    own = [path for path in scripts if DEPLOY in path.parents or path.name == "dependencies"]
    assert output_of("shellcheck", *own) == ""


def test_a_spoiled_file_is_noticed(tmp_path):
    """The three above can fail."""
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN apt-get install curl\n")
    (tmp_path / "a.yaml").write_text("a: 1\na: 2\n")
    (tmp_path / "a.sh").write_text("#!/usr/bin/env bash\nrm $1\n")
    for command in ([BIN / "hadolint", "Dockerfile"], [BIN / "yamllint", "--strict", "-c", DEPLOY / ".yamllint", "a.yaml"],
                    ["shellcheck", "a.sh"]):
        assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False).returncode != 0


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    """The unit with a program that is there."""
    path = tmp_path_factory.mktemp("systemd") / "polyad.service"
    path.write_text((DEPLOY / "systemd/polyad.service").read_text().replace("/usr/bin/polyad", PROGRAM))
    return path


def test_unit_is_valid(unit):
    assert output_of("systemd-analyze", "verify", "--man=no", unit) == ""


def test_unit_is_sealed(unit):
    text = output_of("systemd-analyze", "security", "--offline=yes", "--no-pager", unit)
    exposure = float(re.search(r"Overall exposure level for polyad\.service: ([\d.]+)", text).group(1))
    print(f"exposure {exposure}")
    assert exposure <= MOST_EXPOSED


def test_unit_waits_for_the_drain():
    found = re.search(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "systemd/polyad.service").read_text(), re.M)
    assert int(found.group(1)) > drain_seconds()


@pytest.fixture(scope="module")
def compose():
    text = output_of(BIN / "docker-compose", "-f", DEPLOY / "compose/compose.yaml", "config", "--format", "json",
                     environment={"POLYAD_MODEL": "model.gguf"})
    return json.loads(text)


def test_compose_is_sealed(compose):
    assert set(compose["services"]) == {"pod", "polyad", "proxy", "prometheus", "grafana"}
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for name in ("polyad", "proxy", "prometheus"):
        assert compose["services"][name]["network_mode"] == "service:pod"
    published = {int(port["target"]) for port in compose["services"]["pod"]["ports"]}
    assert published == {50443, 8443}  # the proxy's alone
    assert compose["services"]["grafana"]["ports"][0]["host_ip"] == "127.0.0.1"


def test_compose_waits_for_the_drain(compose):
    for name in ("polyad", "proxy"):
        minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", compose["services"][name]["stop_grace_period"]).groups("0")
        assert int(minutes) * 60 + int(seconds) > drain_seconds(), name


def test_compose_mounts_what_is_there(compose):
    for name, service in compose["services"].items():
        for mount in service.get("volumes", []):
            source = pathlib.Path(mount["source"])
            if mount["type"] == "bind" and source.is_relative_to(DEPLOY) and "secrets" not in source.parts:
                assert source.name in ("prometheus", "grafana"), (name, source)
    for config in compose["configs"].values():
        assert yaml.safe_load(pathlib.Path(config["file"]).read_text())


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_prometheus_takes_its_configuration(compose, tmp_path):
    """As its container has it: rules beside it, the token too."""
    mounts = {mount["target"]: mount["source"] for mount in compose["services"]["prometheus"]["volumes"] if mount["type"] == "bind"}
    shutil.copy(compose["configs"]["prometheus"]["file"], tmp_path / "prometheus.yml")
    (tmp_path / "metrics.token").write_text("token")
    (tmp_path / "rules").symlink_to(mounts["/etc/prometheus/rules"])
    assert "SUCCESS" in output_of("promtool", "check", "config", tmp_path / "prometheus.yml")


def test_secrets_are_what_the_containers_read(compose, tmp_path):
    folder = tmp_path / "secrets"
    printed = output_of(DEPLOY / "compose/make_secrets", folder, "polyad.example")
    assert re.search(r"tenant first, key [0-9a-f]{48}\n", printed)
    again = subprocess.run([DEPLOY / "compose/make_secrets", folder], stderr=subprocess.DEVNULL, check=False)
    assert again.returncode == 1  # nothing is overwritten
    # polyad takes its environment as compose gives it, with the secrets in their place.
    environment = {key: value.replace("/etc/polyad", str(folder / "polyad"))
                   for key, value in compose["services"]["polyad"]["environment"].items()}
    assert environment["POLYAD_TENANTS_FILE"] == str(folder / "polyad/tenants.json")
    output_of(PROGRAM, "check-config", environment=environment)
    # So does the proxy.
    shutil.copy(DEPLOY / "nginx.conf", folder / "proxy/nginx.conf")
    (tmp_path / "run").mkdir()
    output_of("nginx", "-t", "-p", tmp_path / "run", "-c", folder / "proxy/nginx.conf")


def test_haproxy_takes_its_configuration_without_a_warning(tmp_path):
    output_of("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
              "-subj", "/CN=polyad", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem")
    names = ("cert.pem", "key.pem")
    (tmp_path / "proxy.pem").write_text("".join((tmp_path / name).read_text() for name in names))
    text = (DEPLOY / "haproxy.cfg").read_text().replace("/etc/polyad/proxy.pem", str(tmp_path / "proxy.pem"))
    (tmp_path / "haproxy.cfg").write_text(text)
    # -dW: a warning is an error.
    assert "valid" in output_of("haproxy", "-c", "-dW", "-f", tmp_path / "haproxy.cfg")
