"""Small blocking calls on a polyad server: JSON posts, adapters, metrics. Standard library only."""

import json
import re
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 600
METRIC_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$")


def post(url, path, body):
    """-> (HTTP status, text of the answer); an error status is an answer too."""
    request = urllib.request.Request(
        url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def load_adapter(url, name, path):
    status, text = post(url, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
    if status != 200:
        raise RuntimeError(
            f"loading adapter {name} from {path}: expected 200, got {status}: {text}"
        )


def unload_adapter(url, name):
    status, text = post(url, "/v1/unload_lora_adapter", {"lora_name": name})
    if status != 200:
        raise RuntimeError(f"unloading adapter {name}: expected 200, got {status}: {text}")


def scrape(url):
    with urllib.request.urlopen(url + "/metrics", timeout=TIMEOUT_SECONDS) as answer:
        return answer.read().decode()


def metrics(url):
    """-> {metric name: sum over its series}."""
    totals = {}
    for line in scrape(url).splitlines():
        match = METRIC_LINE.match(line)
        if match:
            totals[match[1]] = totals.get(match[1], 0.0) + float(match[3])
    return totals


def by_label(url, metric, name):
    """-> {value of one label: sum over the metric's series that have it}."""
    totals = {}
    for line in scrape(url).splitlines():
        match = METRIC_LINE.match(line)
        if match and match[1] == metric:
            value = re.search(rf'[{{,]{name}="([^"]*)"', match[2] or "")
            if value:
                totals[value[1]] = totals.get(value[1], 0.0) + float(match[3])
    return totals


def label(url, metric, name):
    """The value of one label in the first series of a metric."""
    match = re.search(rf'^{re.escape(metric)}\{{.*?{name}="([^"]*)"', scrape(url), re.MULTILINE)
    if not match:
        raise RuntimeError(f"/metrics has no {metric} with a label {name}")
    return match[1]
