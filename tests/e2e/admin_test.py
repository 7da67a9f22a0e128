#!/usr/bin/env python3
"""`polyad admin` against servers that are open, that want a token and that speak TLS.

    admin_test.py build/release/bin/polyad
"""
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.request

PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ["POLYAD_PROGRAM"] = str(PROGRAM)
sys.path.insert(0, str(ROOT / "tests/e2e/python"))
from server import PATIENCE, Server, run  # noqa: E402

MODEL = ["--model", str(ROOT / "tests/golden/models/llama"), "--kv-mib=8", "--adapter-root", str(ROOT / "tests/golden/adapters/llama")]
TOKEN = "a token of the operators"
ELSEWHERE = "192.0.2.1:50052"  # RFC 5737: nobody's


def admin(*arguments, environment=None):
    """-> (exit code, [answers], what it says on standard error)"""
    done = run("admin", *arguments, environment=environment)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.strip()


def models(server):
    with urllib.request.urlopen(f"http://{server.http}/v1/models", timeout=PATIENCE) as answer:
        return {one["id"] for one in json.load(answer)["data"]}


class Calls(unittest.TestCase):
    def ask(self, server, method, request=None):
        code, answers, said = admin(server.admin, method, *([json.dumps(request)] if request is not None else []))
        self.assertEqual((code, said), (0, ""))
        return answers

    def test_an_adapter_comes_stays_and_goes(self):
        with Server(MODEL) as server:
            self.assertEqual(self.ask(server, "ListAdapters"), [{}])
            states = self.ask(server, "LoadAdapter", {"name": "legal", "uri": "all_linear", "allowed_tenants": []})
            self.assertEqual([one["state"] for one in states], ["RESOLVING", "VERIFYING", "LOWERING", "RESIDENT"])
            self.assertEqual(states[-1]["report"]["name"], "legal")
            self.assertIn("legal", models(server))
            self.assertEqual(self.ask(server, "PinAdapter", {"name": "legal", "pinned": True}), [{}])
            (listed,), = (one["adapters"] for one in self.ask(server, "ListAdapters"))
            self.assertEqual((listed["report"]["digest"], listed["pinned"]), (states[-1]["report"]["digest"], True))
            self.assertEqual(self.ask(server, "GetAdapter", {"name": "legal"}), [{"adapter": listed}])
            self.ask(server, "SetAlias", {"alias": "lawyer", "target": "legal"})
            self.assertIn("lawyer", self.ask(server, "GetAdapter", {"name": "legal"})[0]["adapter"]["aliases"])
            self.ask(server, "PinAdapter", {"name": "legal"})
            self.assertEqual(self.ask(server, "UnloadAdapter", {"name": "legal"}), [{}])
            self.assertNotIn("legal", models(server))

    def test_what_the_server_refuses_is_said_with_its_code(self):
        with Server(MODEL) as server:
            code, answers, said = admin(server.admin, "LoadAdapter", '{"name": "legal", "uri": "nowhere"}')
            self.assertEqual(code, 1)
            self.assertNotIn("RESIDENT", [one["state"] for one in answers])
            self.assertRegex(said, r"^polyad: LoadAdapter: NOT_FOUND: uri: ")
            code, answers, said = admin(server.admin, "UnloadAdapter", '{"name": "nobody"}')
            self.assertEqual((code, answers), (1, []))
            self.assertIn("NOT_FOUND", said)

    def test_a_stream_without_an_end_ends_in_time(self):
        with Server(MODEL) as server:
            code, answers, said = admin(server.admin, "WatchAdapters", "--timeout-ms", 2000)
            self.assertEqual(code, 1)
            self.assertIn(answers, ([{}], []))  # a busy machine
            self.assertIn("DEADLINE_EXCEEDED", said)

    def test_drains(self):
        with Server(MODEL) as server:
            self.assertEqual(self.ask(server, "Drain"), [{"drained": True}])
            self.assertTrue(self.ask(server, "GetLoad")[0]["draining"])


class Credentials(unittest.TestCase):
    def test_the_token_opens_it(self):
        with tempfile.TemporaryDirectory() as folder:
            token, other, empty = (pathlib.Path(folder, name) for name in ("admin.token", "other.token", "empty.token"))
            for path, text in ((token, TOKEN + "\n"), (other, "another"), (empty, "\n")):
                path.write_text(text)
                path.chmod(0o600)
            with Server([*MODEL, "--admin-token-file", str(token)]) as server:
                for given in ([], ["--token-file", other]):
                    code, answers, said = admin(server.admin, "ListAdapters", *given)
                    self.assertEqual((code, answers), (1, []))
                    self.assertIn("UNAUTHENTICATED", said)
                self.assertEqual(admin(server.admin, "ListAdapters", "--token-file", token), (0, [{}], ""))
                own = {"POLYAD_ADMIN_LISTEN": server.admin, "POLYAD_ADMIN_TOKEN_FILE": str(token)}
                self.assertEqual(admin("ListAdapters", environment=own), (0, [{}], ""))
                config = pathlib.Path(folder, "polyad.json")
                config.write_text(json.dumps({"admin_listen": server.admin, "admin_token_file": str(token), "model": "unread"}))
                self.assertEqual(admin("ListAdapters", "--config", config), (0, [{}], ""))
                code, _, said = admin(server.admin, "ListAdapters", "--token-file", empty)
                self.assertEqual((code, "a token" in said), (2, True), said)
            # A token goes to a stranger only where that is who its certificate says.
            for flags in ([], ["--tls"]):
                code, _, said = admin(ELSEWHERE, "ListAdapters", "--token-file", token, *flags)
                self.assertEqual((code, "ca: " in said), (2, True), said)

    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            key, certificate = pathlib.Path(folder, "key.pem"), pathlib.Path(folder, "cert.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                            "/CN=polyad", "-addext", "subjectAltName=DNS:polyad.example,IP:127.0.0.1", "-keyout", key, "-out", certificate],
                           check=True, capture_output=True)
            key.chmod(0o600)
            with Server([*MODEL, "--tls-cert", str(certificate), "--tls-key", str(key)]) as server:
                self.assertEqual(admin(server.admin, "ListAdapters", "--ca", certificate), (0, [{}], ""))
                self.assertEqual(admin(server.admin, "ListAdapters", "--ca", certificate, "--server-name=polyad.example"), (0, [{}], ""))
                own = {"POLYAD_ADMIN_LISTEN": server.admin, "POLYAD_TLS_CERT": str(certificate), "POLYAD_TLS_KEY": str(key)}
                self.assertEqual(admin("ListAdapters", environment=own), (0, [{}], ""))
                self.assertEqual(admin(server.admin, "ListAdapters", "--ca", certificate, "--server-name=other.example")[0], 1)


class Words(unittest.TestCase):
    def test_what_is_wrong_is_said_before_anything_is_sent(self):
        for arguments, word in (([], "METHOD"), (["ListAdapter"], "ListAdapters"), (["ListAdapters", "{"], "request"),
                                (["PinAdapter", '{"nam": "x"}'], "nam"), (["PinAdapter", '{"name": {}}'], "name"),
                                ([ELSEWHERE, "ListAdapters", "--nonsense"], "nonsense"), (["ListAdapters", "--timeout-ms=-1"], "timeout-ms"),
                                (["127.0.0.1:0", "ListAdapters"], "port"), (["ListAdapters", "--config=/nowhere.json"], "nowhere"),
                                ([ELSEWHERE, "ListAdapters", "--token-file=/nowhere"], "nowhere"), (["127.0.0.1:1", "ListAdapters", "--client-cert=x"], "client-key")):
            code, answers, said = admin(*arguments)
            self.assertEqual((code, answers), (2, []), (arguments, said))
            self.assertIn(word, said)

    def test_nobody_is_there(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            code, answers, said = admin("127.0.0.1:%d" % unused.getsockname()[1], "ListAdapters")
        self.assertEqual((code, answers), (1, []))
        self.assertIn("UNAVAILABLE", said)

    def test_help_has_every_method_of_the_service(self):
        done = subprocess.run([PROGRAM, "admin", "--help"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        service = (ROOT / "proto/polyad/v1/adapter_admin.proto").read_text().split("service AdapterAdminService {")[1].split("\n}")[0]
        methods = re.findall(r"rpc (\w+)\(", service)
        self.assertGreater(len(methods), 9)
        for method in methods:
            self.assertIn(f"\n  {method} {{", done.stdout)
        self.assertIn("\n  PinAdapter {name, pinned}\n", done.stdout)


if __name__ == "__main__":
    unittest.main(warnings="ignore")  # Server leaves its pipes to the collector
