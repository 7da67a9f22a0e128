#!/usr/bin/env python3
"""Turns the result of compare.py into Markdown: ratios against floors, then every figure.

  report.py compare.json      prints the report again
"""
import json
import pathlib
import re
import sys


def ratio_rows(result):
    """-> [(title, polyad, rival's name, rival, floor)] for each setting that polyad ran in."""
    rows = []
    for setting in result["settings"]:
        figures = {r["server"]: r["gen_tok_s"] for r in result["rows"] if r["setting"] == setting["key"]}
        polyad = figures.pop("polyad", None)
        own_base = figures.pop("polyad base", None)
        if polyad is None:
            continue
        if figures:
            best = max(figures, key=figures.get)
            rows.append((setting["title"], polyad, best, figures[best], setting["floor"]))
        if own_base is not None:
            title = setting["title"] + ", against its own base"
            rows.append((title, polyad, "polyad base", own_base, result["own_base_floor"]))
    return rows


def ratio_table(result):
    lines = ["| setting | polyad tok/s | best rival | its tok/s | ratio | floor | holds |", "|---|---|---|---|---|---|---|"]
    for title, polyad, name, rival, floor in ratio_rows(result):
        ratio = polyad / rival
        verdict = "yes" if ratio >= floor else "NO"
        lines.append(f"| {title} | {polyad:.1f} | {name} | {rival:.1f} | {ratio:.2f} | {floor:.2f} | {verdict} |")
    return lines


def figure_table(result):
    titles = {s["key"]: s["title"] for s in result["settings"]}
    lines = [
        "| setting | server | tok/s median (min..max) | TTFT p50/p99 ms | ITL p50/p99 ms | failed |",
        "|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        lines.append(
            f"| {titles[r['setting']]} | {r['server']} "
            f"| {r['gen_tok_s']:.1f} ({r['gen_tok_s_min']:.1f}..{r['gen_tok_s_max']:.1f}) "
            f"| {r['ttft_p50_ms']:.0f}/{r['ttft_p99_ms']:.0f} | {r['itl_p50_ms']:.1f}/{r['itl_p99_ms']:.1f} "
            f"| {r['errors']} |"
        )
    return lines


def command_list(result):
    """One line per different command; paths are cut to their last part, long lists of adapters short."""
    seen = {}
    for row in result["rows"]:
        words = [pathlib.PurePath(word).name if "/" in word and ":" not in word else word for word in row["command"].split()]
        text = re.sub(r"--port \d+", "--port PORT", " ".join(words))
        seen.setdefault(text if len(text) < 300 else text[:300] + " ...", row["setting"])
    return [f"- {setting}: `{text}`" for text, setting in seen.items()]


def markdown(result):
    m = result["machine"]
    head = (
        f"Machine: {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {' '.join(m['flags'])}, Linux {m['kernel']}; "
        f"load average {m['load_average']:.1f} at the start, {m['steal_percent']}% stolen. Prompt {result['prompt_tokens']}, "
        f"output {result['gen_tokens']} tokens, greedy, streamed, different random prompts; generated tokens per second of the "
        f"whole closed loop; medians of {result['rounds']} interleaved rounds; the client runs on the same cores."
    )
    parts = [[head], ratio_table(result), figure_table(result), ["Commands:", ""] + command_list(result)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


if __name__ == "__main__":
    print(markdown(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))))
