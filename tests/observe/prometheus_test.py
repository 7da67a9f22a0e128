#!/usr/bin/env python3
"""A real Prometheus with the shipped configuration scrapes a loaded polyad; every query of the dashboard and every rule returns data.

The server has tenants with quotas, more adapters than its memory holds, a state directory and spilled K/V; requests are
answered, refused, cancelled and name adapters that nobody loaded. A second one speaks TLS. An alert's comparisons become
`bool`, so that one that does not fire still has a value; `absent`, which is empty by nature, is asked of its argument.
Beside that: the dashboard is what its generator writes and keeps to the schema, and docs/metrics.md has every metric.

  prometheus_test.py BUILD_DIR      POLYAD_PROGRAM names the program. Needs prometheus (Debian's).
"""
import json
import math
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import loaded

DASHBOARD = loaded.ROOT / "deploy/grafana/polyad.json"
SHIPPED = loaded.ROOT / "deploy/prometheus"
NUM_ADAPTERS, MEMORY_MIB = 48, 4
WARM_SECONDS = 12       # of load before the first query
PATIENCE_SECONDS = 120  # until every query has data
RATE_INTERVAL = "10s"
MIN_PANELS = 25


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def configuration(folder, plain, tls):
    """The shipped one, with this test's targets and times."""
    text = (SHIPPED / "prometheus.yml").read_text()
    for old, new in ((r"scrape_interval: \S+", "scrape_interval: 500ms"), (r"evaluation_interval: \S+", "evaluation_interval: 500ms"),
                     (r'"127\.0\.0\.1:8080"', f'"{plain}"'), (r"# authorization:", "authorization:"),
                     (r"#   credentials_file: metrics\.token", f"  credentials_file: {folder}/metrics-token-file")):
        text, count = re.subn(old, new, text)
        assert count == 1, f"prometheus.yml: {old} {count} times"
    text += f"""  - job_name: polyad-tls
    scheme: https
    tls_config:
      insecure_skip_verify: true
    static_configs:
      - targets: ["{tls}"]
"""
    for rules in SHIPPED.glob("polyad.*.yml"):
        shutil.copy(rules, folder)
    path = pathlib.Path(folder, "prometheus.yml")
    path.write_text(text)
    return path


class Prometheus:
    def __init__(self, folder, config):
        self.address = f"127.0.0.1:{free_port()}"
        self.log = open(pathlib.Path(folder, "prometheus.log"), "w+")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={self.address}"],
            stdout=self.log, stderr=self.log)

    def get(self, path, **query):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            return {"error": error.read().decode()}
        except OSError as error:
            return {"error": str(error)}

    def values(self, query):
        """-> the numbers that an instant query gives, or what is wrong with it."""
        data = self.get("query", query=query)
        if "error" in data:
            return data["error"]
        if data["resultType"] == "scalar":
            return [float(data["result"][1])]
        return [float(sample["value"][1]) for sample in data["result"]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()


def with_variables(query):
    return query.replace("$__rate_interval", RATE_INTERVAL).replace("$job", ".+").replace("$instance", ".+")


def dashboard_queries():
    """-> [(panel's title, query)], the annotations' and the variables' among them."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for variable in dashboard["templating"]["list"]:
        label = re.fullmatch(r"label_values\((.+), \w+\)", variable.get("definition", ""))
        if label:
            queries.append((f"variable {variable['name']}", label.group(1)))
    for annotation in dashboard["annotations"]["list"]:
        queries.append((f"annotation {annotation['name']}", always(annotation["expr"])))
    return [(title, with_variables(query)) for title, query in queries]


def always(expression):
    """A rule's expression with a value whether it fires or not."""
    if (found := re.fullmatch(r"absent\((.*)\)", expression, flags=re.S)):
        return found.group(1)
    return re.sub(r" (==|!=|>=|<=|>|<) ", r" \1 bool ", expression)


def rule_queries(prometheus):
    rules = [rule for group in prometheus.get("rules").get("groups", []) for rule in group["rules"]]
    return [(rule["name"], always(rule["query"]) if rule["type"] == "alerting" else rule["query"]) for rule in rules]


def check_dashboard(failures):
    """As far as Grafana's schema of a dashboard is known (its kinds/dashboard, version 38)."""
    made = subprocess.run([sys.executable, loaded.ROOT / "deploy/grafana/make_dashboard.py", "--check"], capture_output=True, text=True)
    if made.returncode != 0:
        failures.append(made.stdout + made.stderr)
    dashboard = json.loads(DASHBOARD.read_text())
    for field, kind in (("uid", str), ("title", str), ("schemaVersion", int), ("panels", list), ("templating", dict), ("time", dict),
                        ("annotations", dict), ("tags", list), ("editable", bool), ("graphTooltip", int)):
        if not isinstance(dashboard.get(field), kind):
            failures.append(f"dashboard: {field} is not {kind.__name__}")
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    if len(panels) < MIN_PANELS:
        failures.append(f"dashboard: {len(panels)} panels, expected at least {MIN_PANELS}")
    numbers, titles, taken = set(), set(), set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if place["x"] + place["w"] > 24 or cells & taken:
            failures.append(f"dashboard: {panel['title']} lies on another panel or beyond the edge")
        if panel["id"] in numbers or panel["title"] in titles:
            failures.append(f"dashboard: a second {panel['id']} {panel['title']}")
        numbers.add(panel["id"])
        titles.add(panel["title"])
        taken |= cells
        if panel["type"] not in ("row", "stat", "timeseries", "heatmap", "state-timeline"):
            failures.append(f"dashboard: {panel['title']}: no panel type {panel['type']}")
        references = [target["refId"] for target in panel.get("targets", [])]
        if panel["type"] != "row" and (not references or len(set(references)) != len(references)):
            failures.append(f"dashboard: {panel['title']}: targets {references}")


def check_documented(prometheus, failures):
    """docs/metrics.md against what the targets show."""
    rows = set(re.findall(r"^\| `([\w:]+)` \|", (loaded.ROOT / "docs/metrics.md").read_text(), flags=re.M))
    shown = {entry["metric"] for entry in prometheus.get("targets/metadata")}
    failures += [f"docs/metrics.md: no server shows {name}" for name in rows - shown]
    failures += [f"docs/metrics.md: no row for {name}" for name in shown - rows]


def askers(server, names):
    """What the load asks, each in a thread of its own."""
    def complete(tenant, model, prompt, tokens=24):
        return loaded.ask(server.http, {"model": model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}, loaded.KEYS[tenant])

    def load_again(number):  # loads that succeed, and one in two that is refused
        path = str(pathlib.Path(server.adapters, names[0])) if number % 2 else "nowhere"
        status = loaded.ask(server.http, {"lora_name": f"again-{number % 4}", "lora_path": path}, "admin-token", "/v1/load_lora_adapter")
        loaded.ask(server.http, {"lora_name": f"again-{number % 4}"}, "admin-token", "/v1/unload_lora_adapter")
        time.sleep(0.2)
        return status

    def paced(ask, pause=0.05):
        def one(number):
            time.sleep(pause)
            return ask(number)
        return one

    return [lambda n: complete("acme", names[n % len(names)], f"prompt {n % 7}"),  # round and round, so that they are swapped
            lambda n: complete("acme", "", "the same beginning, whoever asks, " + "abcdefg"[n % 7] * 3),
            paced(lambda n: complete("initech", names[0], "x", 60)), paced(lambda n: complete("initech", names[1], "y", 60)),
            paced(lambda n: complete("umbrella", names[2], "z", 20)), paced(lambda n: complete("acme", "nobody", "x")), load_again]


def missing(prometheus, queries):
    """-> the queries without a number."""
    lacking = []
    for title, query in queries:
        values = prometheus.values(query)
        if isinstance(values, str) or not values or all(math.isnan(value) for value in values):
            lacking.append(f"{title}: {query}\n    {values}")
    return lacking


def run(folder, failures):
    adapters = pathlib.Path(folder, "adapters")
    adapters.mkdir()
    names = loaded.make_adapters(adapters, NUM_ADAPTERS)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                    "/CN=localhost", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"], check=True, capture_output=True)
    pathlib.Path(folder, "key.pem").chmod(0o600)
    flags = ["--model", str(loaded.MODEL), "--threads=1", "--log-level=error"]
    plain = flags + ["--adapter-root", str(adapters), f"--memory-mib={MEMORY_MIB}", "--kv-spill-mib=1", "--state-dir", f"{folder}/state",
                     *[f"--adapter={name}={adapters / name}" for name in names], *loaded.write_credentials(folder)]
    tls = flags + ["--kv-mib=1", f"--tls-cert={folder}/cert.pem", f"--tls-key={folder}/key.pem"]
    with loaded.Server(plain) as server, loaded.Server(tls) as second:
        server.adapters = adapters
        config = configuration(folder, server.http, second.http)
        load = loaded.Load(askers(server, names))
        with Prometheus(folder, config) as prometheus:
            time.sleep(WARM_SECONDS)
            deadline = time.monotonic() + PATIENCE_SECONDS
            queries = dashboard_queries()
            while True:
                rules = rule_queries(prometheus)
                lacking = missing(prometheus, queries + rules) if rules else ["Prometheus has no rules"]
                if not lacking or time.monotonic() > deadline:
                    break
            unhealthy = [target["scrapeUrl"] + " " + target["lastError"] for target in prometheus.get("targets").get("activeTargets", [])
                         if target["health"] != "up"]
            check_documented(prometheus, failures)
            firing = prometheus.get("alerts").get("alerts", [])
            swapped = prometheus.values("sum(polyad_adapters_read_back_total)")
        statuses = load.stop()
        failures += lacking + unhealthy
        for name in {alert["labels"]["alertname"] for alert in firing if "error expanding" in json.dumps(alert["annotations"])}:
            failures.append(f"{name}: its texts cannot be made")
        for status in (200, 404, 429):
            if not statuses.get(status):
                failures.append(f"the load got no {status}: {statuses}")
        if not (isinstance(swapped, list) and swapped and swapped[0] > 0):
            failures.append(f"no adapter was read back: {swapped}")
        if not server.alive() or not second.alive():
            failures.append(server.log() + second.log())
        print(f"{len(queries)} queries of panels, {len(rules)} of rules; answers {statuses}; read back {swapped}; "
              f"alerts {sorted({alert['labels']['alertname'] + ' ' + alert['state'] for alert in firing})}")


def main():
    loaded.skip_unless("prometheus", "openssl")
    failures = []
    check_dashboard(failures)
    with tempfile.TemporaryDirectory() as folder:
        run(folder, failures)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
