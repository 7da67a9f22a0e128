"""deploy/haproxy.cfg sends a stream's first token on when it comes, not when the next ones do."""
import http.client
import http.server
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

CONFIGURATION = pathlib.Path(__file__).resolve().parents[2] / "deploy/haproxy.cfg"
PROGRAM = shutil.which("haproxy") or "/usr/sbin/haproxy"
PATIENCE = 600  # seconds; a busy machine
STREAMS = 20
HELD_BACK = 0.2  # seconds: as long as Linux keeps what is sent with MSG_MORE


class Slow(http.server.BaseHTTPRequestHandler):
    """One token at once, the other when the client has the first."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.has_first.clear()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.server.sent = time.monotonic()
        self.wfile.write(b"8\r\nfirst.\n\n\r\n")
        self.server.has_first.wait(PATIENCE)
        self.wfile.write(b"8\r\nother.\n\n\r\n0\r\n\r\n")

    def log_message(self, *_):
        pass


@pytest.fixture(name="upstream")
def upstream_():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.has_first, server.sent = threading.Event(), 0.0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.has_first.set()
    server.shutdown()
    thread.join()
    server.server_close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configure(text, folder, upstream, port):
    """The HTTP side of the file as shipped, in clear text, before one server."""
    text = text.replace("/run/haproxy/polyad.sock", str(folder / "haproxy.sock"))
    text = re.sub(r"frontend grpc\n(  .*\n)+|backend polyad_grpc\n(  .*\n)+", "", text)
    text = re.sub(r"bind :8443 .*", f"bind 127.0.0.1:{port}", text)
    text = re.sub(r"  server polyad-[2-9].*\n", "", text)
    path = folder / "haproxy.cfg"
    path.write_text(re.sub(r"(server polyad-1) \S+", rf"\1 127.0.0.1:{upstream.server_port}", text))
    return path


def least_delay(upstream, port):
    """Of the first tokens of some streams, from when they were sent; in seconds."""
    delays = []
    until = time.monotonic() + PATIENCE
    while len(delays) < STREAMS:
        assert time.monotonic() < until
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            line.request("POST", "/v1/completions", b'{"model": "a"}')
            answer = line.getresponse()
        except OSError:
            continue  # it is not up yet
        if answer.status != 200:
            continue  # nor is the server to it
        assert answer.read(8) == b"first.\n\n"
        delays.append(time.monotonic() - upstream.sent)
        upstream.has_first.set()
        assert answer.read() == b"other.\n\n"
        line.close()
    return min(delays)


@pytest.mark.skipif(os.geteuid() != 0 or not pathlib.Path(PROGRAM).exists(), reason="needs root, for haproxy's own user, and haproxy")
def test_no_token_is_held_back(upstream, tmp_path):
    port = free_port()
    path = configure(CONFIGURATION.read_text(), tmp_path, upstream, port)
    proxy = subprocess.Popen([PROGRAM, "-db", "-f", path], stderr=subprocess.DEVNULL)
    try:
        delay = least_delay(upstream, port)
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE)
    assert delay < HELD_BACK / 2, "the first token came late in each of the streams"
