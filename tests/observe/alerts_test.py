#!/usr/bin/env python3
"""Every alert of deploy/prometheus fires where it should and does not where it should not, by promtool's judgement.

Each alert has here what makes it fire and what comes near and must not. Also: every alert has a summary, a severity and an
entry of docs/runbook.md with its three parts, which its runbook_url names, and the runbook has no entry of another. Needs
promtool (Debian's prometheus).
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = [ROOT / "deploy/prometheus" / name for name in ("polyad.rules.yml", "polyad.alerts.yml")]
SERVER = 'job="polyad",instance="a:8080"'
DAY = 86400


def series(name, values, **labels):
    more = "".join(f',{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{SERVER}{more}}}", "values": values}


def finished(per_minute, reason="stop"):
    return series("polyad_requests_finished_total", f"0+{per_minute}x600", reason=reason)


def rejected(per_minute, reason="RESOURCE_EXHAUSTED"):
    return series("polyad_requests_rejected_total", f"0+{per_minute}x600", reason=reason)


def tenant(name, requests, refused=0, queue_seconds=0):
    return [series("polyad_tenant_requests_total", f"0+{requests}x60", tenant=name),
            series("polyad_tenant_refused_total", f"0+{refused}x60", tenant=name),
            series("polyad_tenant_queue_seconds_total", f"0+{queue_seconds}x60", tenant=name)]


def slow(metric, edge, fast, late):
    """`fast` of a hundred events a minute are within the objective; from minute 360 on `late` of them are."""
    return [series(f"polyad_{metric}_bucket", f"0+{fast}x360 {fast * 360 + late}+{late}x120", le=edge),
            series(f"polyad_{metric}_count", "0+100x480")]


# name -> (series that make it fire, series that must not, minute of the judgement)
CASES = {
    "PolyadDown": ([series("up", "1x5 0x10")], [series("up", "0 1x20")], 10),
    "PolyadAbsent": ([], [series("up", "1x20")], 10),
    "PolyadRestarting": ([series("process_start_time_seconds", "1 1 2 2 3 3 4 4x10")],
                         [series("process_start_time_seconds", "1 1 2 2 2 3 3 3x10")], 12),
    "PolyadDrainingTooLong": ([series("polyad_draining", "0 1x20")], [series("polyad_draining", "0x5 1x3 0x10")], 10),
    "PolyadEngineStalled": ([series("polyad_engine_stalled", "0x9 1x5")], [series("polyad_engine_stalled", "0x20")], 10),
    "PolyadEngineStalls": ([series("polyad_engine_stalls_total", "0x10 1x10 3x50")],
                           [series("polyad_engine_stalls_total", "0x10 1x60")], 50),
    "PolyadQueueGrowing": ([series("vllm:num_requests_waiting", "6+2x40")],
                           [series("vllm:num_requests_waiting", "40-1x40")], 20),
    "PolyadRejecting": ([finished(90), rejected(10)], [finished(97), rejected(3), rejected(50, "INVALID_ARGUMENT")], 20),
    "PolyadFailing": ([finished(95), finished(5, "error"), rejected(0)],
                      [finished(999), finished(1, "error"), finished(99, "cancelled"), rejected(0)], 20),
    "PolyadUnknownModels": ([finished(50), rejected(50, "NOT_FOUND"),
                             series("polyad_adapter_requests_total", "0+50x60", adapter="unknown")],
                            [finished(95), rejected(5, "NOT_FOUND"),
                             series("polyad_adapter_requests_total", "0+5x60", adapter="unknown"),
                             series("polyad_adapter_requests_total", "0+95x60", adapter="support")], 30),
    "PolyadTenantRefused": (tenant("acme", 10, refused=10) + tenant("initech", 10), tenant("acme", 90, refused=10), 30),
    "PolyadTenantWaitsLong": (tenant("acme", 10, queue_seconds=100) + tenant("initech", 100, queue_seconds=1),
                              tenant("acme", 10, queue_seconds=100) + tenant("initech", 10, queue_seconds=90), 30),
    "PolyadFirstTokenBurnsFast": (slow("time_to_first_token_seconds", "2.5", 80, 80),
                                  slow("time_to_first_token_seconds", "2.5", 100, 90), 420),
    "PolyadFirstTokenBurnsSlowly": (slow("time_to_first_token_seconds", "2.5", 90, 90),
                                    slow("time_to_first_token_seconds", "2.5", 96, 96), 420),
    "PolyadTokenGapBurnsFast": (slow("inter_token_latency_seconds", "0.25", 80, 80),
                                slow("inter_token_latency_seconds", "0.25", 100, 90), 420),
    "PolyadTokenGapBurnsSlowly": (slow("inter_token_latency_seconds", "0.25", 90, 90),
                                  slow("inter_token_latency_seconds", "0.25", 96, 96), 420),
    "PolyadKvNearlyFull": ([series("vllm:kv_cache_usage_perc", "0.97x30")],
                           [series("vllm:kv_cache_usage_perc", "0.97x8 0.5 0.97x8 0.5 0.97x8")], 24),
    "PolyadPreempting": ([finished(60), rejected(0), series("polyad_preemptions_total", "0+30x60")],
                         [finished(60), rejected(0), series("polyad_preemptions_total", "0+3x60")], 30),
    "PolyadAdapterLoadsFail": ([series("polyad_adapter_load_failures_total", "0x10 5x20")],
                               [series("polyad_adapter_load_failures_total", "0x10 1x20")], 15),
    "PolyadAdapterThrash": ([finished(60), rejected(0), series("polyad_adapters_read_back_total", "0+60x60")],
                            [finished(60), rejected(0), series("polyad_adapters_read_back_total", "0+6x60")], 30),
    "PolyadRegistryNotWritten": ([series("polyad_registry_write_failures_total", "0x10 1x30")],
                                 [series("polyad_registry_write_failures_total", "1x60")], 30),
    "PolyadRegistryNotRestored": ([series("polyad_registry_restore_failures_total", "2x10")],
                                  [series("polyad_registry_restore_failures_total", "0x10")], 5),
    "PolyadAdaptersFileStale": ([series("polyad_reconcile_file_stale", "0 1x20")],
                                [series("polyad_reconcile_file_stale", "0 1x3 0x20")], 10),
    "PolyadDeclaredAdaptersFail": ([series("polyad_reconcile_adapters", "0x3 2x20", state="failing")],
                                   [series("polyad_reconcile_adapters", "0 2x5 0 2x5 0x10", state="failing"),
                                    series("polyad_reconcile_adapters", "9x30", state="declared")], 20),
    "PolyadCredentialsStale": ([series("polyad_credentials_stale", "0 1x20")],
                               [series("polyad_credentials_stale", "0 1x3 0x20")], 10),
    "PolyadTlsStale": ([series("polyad_tls_stale", "0 1x20")], [series("polyad_tls_stale", "0 1x3 0x20")], 10),
    # promtool's clock begins in 1970.
    "PolyadCertificateExpiring": ([series("polyad_tls_certificate_expiry_seconds", f"{10 * DAY}x100")],
                                  [series("polyad_tls_certificate_expiry_seconds", f"{20 * DAY}x100")], 90),
    "PolyadCertificateExpires": ([series("polyad_tls_certificate_expiry_seconds", f"{DAY // 2}x100")],
                                 [series("polyad_tls_certificate_expiry_seconds", f"{2 * DAY}x100")], 10),
}


def alerts():
    """-> {name: its text in the file}"""
    text = RULES[1].read_text()
    parts = re.split(r"^ +- alert: (\w+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def expression_test(name, minute, firing):
    return {"expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})', "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if firing else []}


def promtool(groups):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "alerts.yml")  # JSON is YAML
        path.write_text(json.dumps({"rule_files": [str(rule) for rule in RULES], "evaluation_interval": "1m", "tests": groups}))
        done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def group(name, series_list, minute, tests):
    # One that never says anything, since a group may not be empty.
    return {"name": name, "interval": "1m", "input_series": series_list or [{"series": "nothing", "values": "1x10"}], **tests}


def check_firing(failures):
    groups = []
    for name, (fires, quiet, minute) in CASES.items():
        groups.append(group(f"{name} fires", fires, minute, {"promql_expr_test": [expression_test(name, minute, True)]}))
        groups.append(group(f"{name} does not", quiet, minute, {"promql_expr_test": [expression_test(name, minute, False)]}))
    code, output = promtool(groups)
    if code != 0:
        failures.append(output)


def check_texts(failures):
    """What each says when it fires: promtool tells what it got where it expected nothing."""
    groups = [group(name, fires, minute, {"alert_rule_test": [{"alertname": name, "eval_time": f"{minute}m", "exp_alerts": []}]})
              for name, (fires, _, minute) in CASES.items()]
    _, output = promtool(groups)
    said = dict(re.findall(r"alertname: (\w+), time:(.*?)(?=alertname: |\Z)", output, flags=re.S))
    for name in CASES:
        got = said.get(name, "").split("got:", 1)[-1]
        if "summary=" not in got:
            failures.append(f"{name}: promtool does not tell what it says: {output}")
        elif "error expanding" in got or "no value" in got or "{{" in got:
            failures.append(f"{name}: its texts cannot be made: {got}")


def check_runbook(failures):
    text = (ROOT / "docs/runbook.md").read_text()
    parts = re.split(r"^### (\w+)$", text, flags=re.M)
    entries = dict(zip(parts[1::2], parts[2::2]))
    known = alerts()
    for name, rule in known.items():
        for needed in ("severity: ", "summary: ", "description: ", f"runbook_url: docs/runbook.md#{name.lower()}\n"):
            if needed not in rule:
                failures.append(f"{name}: no {needed.strip()}")
        for part in ("**Means.**", "**First look.**", "**Do.**"):
            if part not in entries.get(name, ""):
                failures.append(f"docs/runbook.md: {name} has no {part}")
    for name in entries.keys() - known.keys():
        failures.append(f"docs/runbook.md: no alert is called {name}")
    for name in known.keys() ^ CASES.keys():
        failures.append(f"{name}: a test without an alert, or an alert without a test")


def check_files(failures):
    for command in (["check", "rules", *map(str, RULES)],
                    ["check", "config", str(ROOT / "deploy/prometheus/prometheus.yml")]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True)
        if done.returncode != 0:
            failures.append(done.stdout + done.stderr)


def main():
    failures = []
    for check in (check_files, check_firing, check_texts, check_runbook):
        check(failures)
    for failure in failures:
        print(failure)
    print(f"{len(CASES)} alerts, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
