#!/usr/bin/env python3
"""Writes polyad.json, the Grafana dashboard, from the table of panels below.

  make_dashboard.py            write it beside this file
  make_dashboard.py --check    1 where the file is not what would be written

A panel is a title, a query or several with their legends, and a unit. SELECT in a query becomes the labels that the
dashboard's variables choose. Needs Python alone.
"""
import json
import pathlib
import sys

TARGET = pathlib.Path(__file__).resolve().parent / "polyad.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECT = 'job=~"$job",instance=~"$instance"'
WIDTH, HEIGHT, STAT_HEIGHT = 24, 8, 4


def rate(metric, by="", **labels):
    chosen = "".join(f',{key}="{value}"' for key, value in labels.items())
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{SELECT{chosen}}}[$__rate_interval]))"


def total(metric, by=""):
    return f"sum{f' by ({by})' if by else ''} ({metric}{{SELECT}})"


def quantiles(metric):
    return [(f"histogram_quantile({q}, {rate(metric + '_bucket', 'le')})", f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]


def graph(title, queries, unit="short", kind="timeseries", **more):
    return {"title": title, "queries": queries, "unit": unit, "kind": kind, **more}


def stat(title, query, unit="short", **more):
    return graph(title, [(query, title)], unit, "stat", **more)


def mean(metric):
    return [(f"{rate(metric + '_sum')} / {rate(metric + '_count')}", "mean"), *quantiles(metric)[1:2]]


ROWS = [
    ("Overview", [
        stat("Instances up", 'sum(up{SELECT})'),
        stat("Requests a second", rate("polyad_requests_finished_total"), "reqps"),
        stat("Tokens a second", rate("polyad_generated_tokens_total")),
        stat("K/V in use", "max(vllm:kv_cache_usage_perc{SELECT})", "percentunit", limits=[(0.8, "yellow"), (0.95, "red")]),
        stat("First token, p95", quantiles("polyad_time_to_first_token_seconds")[1][0], "s"),
        stat("Longest up", "max(time() - process_start_time_seconds{SELECT})", "s"),
        graph("Requests", [(rate("polyad_requests_finished_total", "reason"), "{{reason}}")], "reqps", stacked=True),
        graph("Waiting and running", [(total("vllm:num_requests_waiting"), "waiting"), (total("vllm:num_requests_running"), "running")]),
        graph("Tokens", [(rate("polyad_prompt_tokens_total"), "prompts"), (rate("polyad_generated_tokens_total"), "generated")]),
        graph("Version", [(total("polyad_build_info", "version"), "{{version}}")], kind="timeseries"),
    ]),
    ("Latency", [
        graph("Time to first token", quantiles("polyad_time_to_first_token_seconds"), "s"),
        graph("Between two tokens", quantiles("polyad_inter_token_latency_seconds"), "s"),
        graph("Whole request", quantiles("polyad_e2e_request_latency_seconds"), "s"),
        graph("Queue", quantiles("polyad_queue_seconds"), "s"),
        graph("Adapter wait", quantiles("polyad_adapter_wait_seconds"), "s"),
        graph("Steps", quantiles("polyad_step_seconds"), "s"),
        graph("Time to first token, all", [(rate("polyad_time_to_first_token_seconds_bucket", "le"), "{{le}}")], "s", "heatmap"),
        graph("Beyond the objective", [("max(polyad:first_token_slow:ratio_rate5m{SELECT})", "first tokens"),
                                       ("max(polyad:token_gap_slow:ratio_rate5m{SELECT})", "tokens")], "percentunit"),
        graph("Sequences of a step", mean("polyad_batch_size")),
        graph("Rows of a step", mean("polyad_step_rows")),
    ]),
    ("Tenants", [
        graph("Requests by tenant", [(rate("polyad_tenant_requests_total", "tenant"), "{{tenant}}")], "reqps", stacked=True),
        graph("Tokens by tenant", [(rate("polyad_tenant_prompt_tokens_total", "tenant") + " + "
                                    + rate("polyad_tenant_generated_tokens_total", "tenant"), "{{tenant}}")], stacked=True),
        graph("Requests under way by tenant", [(total("polyad_tenant_requests", "tenant"), "{{tenant}}")], stacked=True),
        graph("Waiting by tenant", [(total("polyad_tenant_queued", "tenant"), "{{tenant}}")], stacked=True),
        graph("Mean wait by tenant", [("max by (tenant) (polyad:tenant_queue_seconds:mean5m{SELECT})", "{{tenant}}")], "s"),
        graph("Refused by tenant", [(rate("polyad_tenant_refused_total", "tenant"), "{{tenant}}")], "reqps"),
        graph("Refused by quota", [(rate("polyad_quota_refusals_total", "quota"), "{{quota}}")], "reqps"),
    ]),
    ("Adapters and tiers", [
        graph("Requests by adapter", [(rate("polyad_adapter_requests_total", "adapter"), "{{adapter}}")], "reqps", stacked=True),
        graph("Tokens by adapter", [(rate("polyad_adapter_prompt_tokens_total", "adapter") + " + "
                                     + rate("polyad_adapter_generated_tokens_total", "adapter"), "{{adapter}}")], stacked=True),
        graph("Adapters by tier", [(total("polyad_adapters", "tier, family"), "{{tier}} {{family}}")], stacked=True),
        graph("In memory", [("max by (adapter) (polyad_adapter_resident{SELECT})", "{{adapter}}")], kind="state-timeline"),
        graph("Swapped out and read back", [(rate("polyad_adapters_swapped_out_total"), "swapped out"),
                                            (rate("polyad_adapters_read_back_total"), "read back")]),
        graph("Bytes of weights", [(total("polyad_weight_bytes", "part, precision") + " > 0", "{{part}} {{precision}}")],
              "bytes", stacked=True),
        graph("Declared adapters", [(total("polyad_reconcile_adapters", "state"), "{{state}}")],
              description="With --adapters-from only."),
        graph("Adapters file", [(total("polyad_reconcile_file_stale"), "refused now"),
                                (rate("polyad_reconcile_file_reads_total", "result"), "read, {{result}}"),
                                (rate("polyad_reconcile_changes_total", "change"), "{{change}}"),
                                (rate("polyad_reconcile_failures_total"), "failed tries")]),
        graph("Loads", [(rate("polyad_adapter_load_seconds_count"), "loaded"), (rate("polyad_adapter_load_failures_total"), "refused")]),
        graph("Seconds of a load", quantiles("polyad_adapter_load_seconds"), "s"),
    ]),
    ("K/V and prefix cache", [
        graph("K/V blocks", [(total("polyad_kv_blocks"), "all"), (total("polyad_kv_blocks_used"), "in use"),
                             (total("polyad_kv_blocks_cached"), "cached"), (total("polyad_kv_blocks_shared"), "shared"),
                             (total("polyad_kv_blocks_soft_prompt"), "soft prompts")]),
        graph("Prompt tokens found in the cache", [(f"{rate('polyad_prefix_hits_total')} / {rate('polyad_prefix_queries_total')}", "found")],
              "percentunit"),
        graph("Preemptions", [(rate("polyad_preemptions_total"), "put back")]),
        graph("Evicted blocks kept", [(total("polyad_kv_blocks_spilled", "tier"), "{{tier}}")]),
        graph("Blocks saved and copied back", [(rate("polyad_kv_blocks_saved_total"), "saved"),
                                               (rate("polyad_kv_blocks_restored_total"), "copied back")]),
        graph("Memory that K/V and adapters share", [(total("polyad_memory_bytes", "kind"), "{{kind}}")], "bytes", stacked=True,
              description="With --memory-mib only."),
        graph("Tokens of soft prompts", [(rate("polyad_soft_prompt_tokens_total"), "computed or stored")]),
    ]),
    ("Errors", [
        graph("Refused by reason", [(rate("polyad_requests_rejected_total", "reason"), "{{reason}}")], "reqps"),
        graph("Ended with an error", [(rate("polyad_requests_finished_total", reason="error"), "errors"),
                                      (rate("polyad_requests_finished_total", reason="cancelled"), "cancelled")], "reqps"),
        graph("Since the last step", [("max by (instance) (polyad_last_step_age_seconds{SELECT})", "{{instance}}")], "s"),
        graph("Stalls and draining", [(total("polyad_engine_stalls_total"), "stalls"), (total("polyad_engine_stalled"), "stalled now"),
                                      (total("polyad_draining"), "draining")]),
        graph("Registry on disk", [(total("polyad_registry_durable"), "durable"),
                                   (total("polyad_registry_write_failures_total"), "not written"),
                                   (total("polyad_registry_restore_failures_total"), "not restored")]),
        graph("Credentials and TLS", [(total("polyad_credentials_stale"), "credentials refused"), (total("polyad_tls_stale"), "TLS refused"),
                                      (rate("polyad_credentials_reloads_total", "result"), "credentials {{result}}"),
                                      (rate("polyad_tls_reloads_total", "result"), "TLS {{result}}")]),
        graph("Until the certificate ends", [("min(polyad_tls_certificate_expiry_seconds{SELECT}) - time()", "left")], "s",
              description="With --tls-cert only."),
        graph("Memory of the process", [("process_resident_memory_bytes{SELECT}", "{{instance}}"),
                                        (total("polyad_request_bytes"), "prompts held")], "bytes"),
        graph("CPU", [("rate(process_cpu_seconds_total{SELECT}[$__rate_interval])", "{{instance}}")]),
        graph("Tokens that wait", [(total("polyad_queued_tokens"), "at most")]),
    ]),
]


def target(index, query, legend, kind):
    made = {"datasource": SOURCE, "editorMode": "code", "expr": query.replace("SELECT", SELECT), "legendFormat": legend,
            "range": kind != "stat", "instant": kind == "stat", "refId": chr(ord("A") + index)}
    if kind == "heatmap":
        made["format"] = "heatmap"
    return made


def options_of(panel):
    if panel["kind"] == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
                "graphMode": "area", "textMode": "value"}
    if panel["kind"] == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel["unit"]}, "color": {"scheme": "Oranges", "mode": "scheme"}}
    if panel["kind"] == "state-timeline":
        return {"mergeValues": True, "showValue": "never", "rowHeight": 0.9}
    return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}


def panel_json(number, panel, place):
    steps = [{"color": "green", "value": None}] + [{"color": color, "value": value} for value, color in panel.get("limits", [])]
    defaults = {"unit": panel["unit"], "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel["kind"] == "timeseries":
        stacking = "normal" if panel.get("stacked") else "none"
        defaults["custom"] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "stacking": {"mode": stacking, "group": "A"}}
    return {"id": number, "type": panel["kind"], "title": panel["title"], "description": panel.get("description", ""),
            "datasource": SOURCE, "gridPos": place, "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options_of(panel),
            "targets": [target(i, query, legend, panel["kind"]) for i, (query, legend) in enumerate(panel["queries"])]}


def panels():
    made, y = [], 0
    for name, row in ROWS:
        made.append({"id": len(made) + 1, "type": "row", "title": name, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y += 1
        for kind_is_stat, height in ((True, STAT_HEIGHT), (False, HEIGHT)):
            chosen = [panel for panel in row if (panel["kind"] == "stat") == kind_is_stat]
            width = 4 if kind_is_stat else 8
            for i, panel in enumerate(chosen):
                column, line = i % (WIDTH // width), i // (WIDTH // width)
                made.append(panel_json(len(made) + 1, panel,
                                       {"x": column * width, "y": y + line * height, "w": width, "h": height}))
            y += -(-len(chosen) // (WIDTH // width)) * height
    return made


def variable(name, query):
    return {"name": name, "label": name, "type": "query", "datasource": SOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            "allValue": ".+", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": [], "hide": 0}


def dashboard():
    return {
        "uid": "polyad", "title": "polyad", "description": "One base model, many tenants' adapters. docs/dashboards.md",
        "tags": ["polyad"], "schemaVersion": 38, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "fiscalYearStartMonth": 0, "links": [],
        "annotations": {"list": [{"name": "Starts", "datasource": SOURCE, "enable": True, "iconColor": "blue",
                                  "expr": f"changes(process_start_time_seconds{{{SELECT}}}[1m]) > 0", "titleFormat": "start"}]},
        "templating": {"list": [
            {"name": "datasource", "label": "source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0,
             "multi": False, "includeAll": False, "current": {}, "options": [], "regex": ""},
            variable("job", "label_values(polyad_build_info, job)"),
            variable("instance", 'label_values(polyad_build_info{job=~"$job"}, instance)')]},
        "panels": panels(),
    }


def main():
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" not in sys.argv:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() == text:
        return 0
    print(f"{TARGET}: not what make_dashboard.py writes")
    return 1


if __name__ == "__main__":
    sys.exit(main())
