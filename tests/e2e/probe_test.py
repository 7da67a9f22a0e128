#!/usr/bin/env python3
"""`polyad probe` against a server of each kind: polyad plain, with TLS and with clients' certificates, before and while it drains; and
against what Python's http.server, or nobody, answers.

    probe_test.py build/release/bin/polyad
"""
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ["POLYAD_PROGRAM"] = str(PROGRAM)
sys.path.insert(0, str(ROOT / "tests/e2e/python"))
from server import PATIENCE, Server, run  # noqa: E402

MODEL = ["--model", str(ROOT / "tests/golden/models/llama"), "--kv-mib=8"]


def probe(*arguments, environment=None, timeout=60000):
    """-> (exit code, what it says)"""
    done = run("probe", *arguments, f"--timeout-ms={timeout}", environment=environment)
    return done.returncode, (done.stdout + done.stderr).strip()


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """Certificates in a folder: ca.pem, and NAME.pem with NAME.key signed by it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        openssl("req", "-x509", *self._key("ca"), "-days", "30", "-subj", "/CN=authority", "-out", self.folder / "ca.pem")

    def _key(self, name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.folder / f"{name}.key"]

    def sign(self, name, names):
        request = self.folder / f"{name}.csr"
        openssl("req", *self._key(name), "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.folder / "ca.pem", "-CAkey", self.folder / "ca.key", "-days", "30",
                "-copy_extensions", "copy", "-out", self.folder / f"{name}.pem")
        (self.folder / f"{name}.key").chmod(0o600)
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


class Answering(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"\x1b[31mdraining\n")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def foreign(status=200, context=None):
    """-> a server of Python's; `asked` has the paths"""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.status, server.asked = status, []
    server.address = f"127.0.0.1:{server.server_port}"
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def mute(say=b""):
    """-> the address of who takes connections, says that and waits"""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as open_ones:
        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection = open_ones.enter_context(listener.accept()[0])
                    connection.sendall(say)
        threading.Thread(target=accept, daemon=True).start()
        yield "127.0.0.1:%d" % listener.getsockname()[1]


class Others(unittest.TestCase):
    """Servers that are not polyad."""

    def test_asks_for_a_path_and_wants_200(self):
        with foreign() as server:
            self.assertEqual(probe(server.address), (0, "ready"))
            self.assertEqual(probe(server.address, "--live"), (0, "ready"))
            self.assertEqual(server.asked, ["/ready", "/health"])
        with foreign(status=503) as server:
            code, said = probe(server.address)
            self.assertEqual(code, 1)
            self.assertIn("expected 200, got '503'", said)
            self.assertNotIn("\x1b", said)  # what a stranger says is not for a terminal

    def test_nobody_and_nonsense(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % unused.getsockname()[1]
            for flag in ([], ["--grpc"], ["--tls"]):
                self.assertEqual(probe(address, *flag)[0], 1, flag)
        for said in (b"SSH-2.0-x\r\n", b"HTTP/1.1 20\r\n\r\n" + 9000 * b"x", b"HTTP/1.1 2000\r\n\r\n", 20000 * b"x"):
            with mute(said) as address:
                self.assertEqual(probe(address, timeout=3000)[0], 1, said[:20])

    def test_the_first_line_is_enough(self):
        with mute(b"HTTP/1.1 200 OK\r\n") as address:  # and never closes
            self.assertEqual(probe(address), (0, "ready"))

    def test_time_is_up(self):
        for flags in ([], ["--tls"], ["--grpc"], ["--grpc", "--tls"]):
            with mute() as address:
                begin = time.monotonic()
                code, said = probe(address, *flags, timeout=200)
                self.assertEqual(code, 1, said)
                self.assertGreaterEqual(time.monotonic() - begin, 0.2)

    def test_certificates(self):
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(folder)
            stranger = pathlib.Path(folder, "stranger")
            stranger.mkdir()
            other = Authority(stranger)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*authority.sign("server", "DNS:polyad.example,IP:127.0.0.1"))
            ca = pathlib.Path(folder, "ca.pem")
            with foreign(context=context) as server:
                self.assertEqual(probe(server.address, "--tls")[0], 0)
                self.assertEqual(probe(server.address, "--ca", ca)[0], 0)
                self.assertEqual(probe(server.address, "--ca", ca, "--server-name=polyad.example")[0], 0)
                self.assertEqual(probe(server.address.replace("127.0.0.1", "localhost"), "--ca", ca)[0], 1)
                self.assertEqual(probe(server.address, "--ca", ca, "--server-name=other.example")[0], 1)
                self.assertEqual(probe(server.address, "--ca", stranger / "ca.pem")[0], 1)
                self.assertEqual(probe(server.address)[0], 1)  # plain at a TLS port
                self.assertEqual(probe(server.address, "--ca", f"{folder}/none.pem")[0], 2)
            # One that wants the client's.
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
            certificate, key = authority.sign("client", "DNS:client.example")
            foreign_certificate, foreign_key = other.sign("client", "DNS:client.example")
            with foreign(context=context) as server:
                self.assertEqual(probe(server.address, "--ca", ca)[0], 1)
                self.assertEqual(probe(server.address, "--ca", ca, "--client-cert", certificate, "--client-key", key)[0], 0)
                self.assertEqual(probe(server.address, "--ca", ca, "--client-cert", foreign_certificate, "--client-key", foreign_key)[0], 1)
                self.assertEqual(probe(server.address, "--ca", ca, "--client-cert", certificate, "--client-key", foreign_key)[0], 2)


class Flags(unittest.TestCase):
    def test_bad_ones(self):
        for arguments, word in ((["--nonsense"], "nonsense"), (["1.2.3.4"], "HOST:PORT"), (["127.0.0.1:0"], "port"), (["--timeout-ms=0x"], "timeout-ms"),
                                (["127.0.0.1:1", "--http-listen=x:1"], "http-listen"), (["127.0.0.1:1", "--live", "--grpc"], "live"),
                                (["127.0.0.1:1", "--client-cert=x"], "client-key"), (["127.0.0.1:1", "--service=" + 200 * "x"], "service"),
                                (["--config=/nowhere.json"], "nowhere")):
            code, said = probe(*arguments)
            self.assertEqual(code, 2, (arguments, said))
            self.assertIn(word, said)

    def test_help(self):
        done = subprocess.run([PROGRAM, "probe", "--help"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for flag in ("--grpc", "--admin", "--live", "--timeout-ms", "--ca", "--client-cert"):
            self.assertIn(flag, done.stdout)


class Polyad(unittest.TestCase):
    def test_where_its_own_configuration_says(self):
        with tempfile.TemporaryDirectory() as folder, Server(MODEL) as server:
            own = {"POLYAD_HTTP_LISTEN": server.http, "POLYAD_GRPC_LISTEN": server.grpc, "POLYAD_ADMIN_LISTEN": server.admin}
            for flags in ([], ["--live"], ["--grpc"], ["--admin"], ["--service=polyad.v1.InferenceService"],
                          ["--admin", "--service=polyad.v1.AdapterAdminService"]):
                self.assertEqual(probe(*flags, environment=own), (0, "ready"), flags)
            self.assertEqual(probe("--service=nobody", environment=own)[0], 1)
            self.assertEqual(probe("--admin", "--service=polyad.v1.InferenceService", environment=own)[0], 1)
            self.assertEqual(probe("--http-listen", server.http)[0], 0)
            self.assertEqual(probe("--http-listen", "0.0.0.0:" + server.http.split(":")[1])[0], 0)  # reached on this machine
            config = pathlib.Path(folder, "polyad.json")
            config.write_text(json.dumps({"http_listen": server.http, "model": "unread"}))
            self.assertEqual(probe("--config", config), (0, "ready"))
            self.assertEqual(probe(server.grpc, "--grpc"), (0, "ready"))

    def test_draining(self):
        with Server([*MODEL, "--drain-ms=600000"]) as server:
            stream = http.client.HTTPConnection(server.http, timeout=PATIENCE)
            body = {"prompt": [5], "max_tokens": 100, "ignore_eos": True, "stream": True}
            stream.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
            answer = stream.getresponse()
            self.assertTrue(answer.readline().startswith(b"data: "))
            self.assertEqual(probe(server.http)[0], 0)
            # Nobody reads the stream, but its answer is small: it ends by itself. Drain keeps the listeners until SIGTERM.
            drain(server)
            code, said = probe(server.http)
            self.assertEqual((code, "draining" in said), (1, True), said)
            code, said = probe(server.grpc, "--grpc")
            self.assertEqual((code, "NOT_SERVING" in said), (1, True), said)
            self.assertEqual(probe(server.http, "--live")[0], 0)
            self.assertIn(b"[DONE]", answer.read())

    def test_tls_and_certificates_of_clients(self):
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(folder)
            certificate, key = authority.sign("server", "DNS:polyad.example,DNS:localhost,IP:127.0.0.1")
            own, own_key = authority.sign("client", "DNS:client.example")
            ca = pathlib.Path(folder, "ca.pem")
            flags = [*MODEL, "--tls-cert", str(certificate), "--tls-key", str(key)]
            with Server(flags) as server:
                tls = {"POLYAD_TLS_CERT": str(certificate), "POLYAD_HTTP_LISTEN": server.http, "POLYAD_GRPC_LISTEN": server.grpc}
                for question in ([], ["--grpc"]):
                    address = server.grpc if question else server.http
                    self.assertEqual(probe(*question, environment=tls), (0, "ready"))
                    self.assertEqual(probe(address, *question, "--tls"), (0, "ready"))
                    self.assertEqual(probe(address, *question, "--ca", ca), (0, "ready"))
                    self.assertEqual(probe(address, *question, "--ca", ca, "--server-name=polyad.example"), (0, "ready"))
                    self.assertEqual(probe(address, *question, "--ca", ca, "--server-name=other.example")[0], 1)
                    self.assertEqual(probe(address, *question, timeout=3000)[0], 1)
            with Server([*flags, "--tls-client-ca", str(ca), "--tls-require-client-cert"]) as server:
                required = {"POLYAD_TLS_CERT": str(certificate), "POLYAD_HTTP_LISTEN": server.http, "POLYAD_GRPC_LISTEN": server.grpc,
                            "POLYAD_TLS_CLIENT_CA": str(ca), "POLYAD_TLS_REQUIRE_CLIENT_CERT": "true"}
                for question in ([], ["--grpc"]):
                    address = server.grpc if question else server.http
                    shown = ["--client-cert", own, "--client-key", own_key]
                    self.assertEqual(probe(*question, environment=required), (0, "shows its certificate"))
                    self.assertEqual(probe(*question, *shown, environment=required), (0, "ready"))
                    self.assertEqual(probe(address, *question, "--ca", ca, *shown), (0, "ready"))
                    self.assertEqual(probe(address, *question, "--ca", ca, timeout=3000)[0], 1)
            self.assertEqual(probe(environment=required)[0], 1)  # it has ended


def drain(server):
    """By the admin port's Drain, which leaves the listeners open: wait_ms, field 1, is 0; curl speaks HTTP/2."""
    done = subprocess.run(["curl", "-sS", "-i", "--max-time", str(PATIENCE), "--http2-prior-knowledge", "--data-binary", "@-",
                           "-H", "content-type: application/grpc", "-H", "te: trailers",
                           f"http://{server.admin}/polyad.v1.AdapterAdminService/Drain"],
                          input=b"\0\0\0\0\2\x08\0", capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0 and b"grpc-status: 0" in done.stdout, done


if __name__ == "__main__":
    unittest.main(warnings="ignore")  # Server leaves its pipes to the collector
