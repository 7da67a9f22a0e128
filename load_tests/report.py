#!/usr/bin/env python3
"""Turns the result of compare.py into Markdown: ratios against floors, then every figure.

report.py compare.json      prints the report again
"""

import json
import pathlib
import re
import sys

MAX_COMMAND_CHARACTERS = 300


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def ratio_rows(result):
    """-> [(title, polyad, rival's name, rival, floor)] for each setting that polyad ran in."""
    rows = []
    for setting in result["settings"]:
        mine = [row for row in result["rows"] if row["setting"] == setting["key"]]
        figures = {row["server"]: row["gen_tok_s"] for row in mine}
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
    rows = []
    for title, polyad, name, rival, floor in ratio_rows(result):
        ratio = polyad / rival
        figures = [f"{polyad:.1f}", name, f"{rival:.1f}", f"{ratio:.2f}", f"{floor:.2f}"]
        rows.append([title, *figures, "yes" if ratio >= floor else "NO"])
    return table(
        ["setting", "polyad tok/s", "best rival", "its tok/s", "ratio", "floor", "holds"], rows
    )


def figure_table(result):
    titles = {setting["key"]: setting["title"] for setting in result["settings"]}
    rows = []
    for row in result["rows"]:
        rows.append(
            [
                titles[row["setting"]],
                row["server"],
                "{gen_tok_s:.1f} ({gen_tok_s_min:.1f}..{gen_tok_s_max:.1f})".format(**row),
                "{ttft_p50_ms:.0f}/{ttft_p99_ms:.0f}".format(**row),
                "{itl_p50_ms:.1f}/{itl_p99_ms:.1f}".format(**row),
                str(row["errors"]),
            ]
        )
    return table(
        ["setting", "server", "tok/s (min..max)", "TTFT p50/p99 ms", "ITL p50/p99 ms", "failed"],
        rows,
    )


def shorten(command):
    """Paths cut to their last part, ports left out, long lists of adapters cut off."""
    words = [word.rsplit("/", 1)[-1] if "/" in word else word for word in command.split()]
    text = re.sub(r"--port \d+", "--port PORT", " ".join(words))
    if len(text) > MAX_COMMAND_CHARACTERS:
        text = text[:MAX_COMMAND_CHARACTERS] + " ..."
    return text


def command_list(result):
    """One line for each different command, with the first setting it was used in."""
    seen = {}
    for row in result["rows"]:
        seen.setdefault(shorten(row["command"]), row["setting"])
    return [f"- {setting}: `{text}`" for text, setting in seen.items()]


def conditions(result):
    m = result["machine"]
    return [
        f"Machine: {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, Linux {m['kernel']}; "
        f"{' '.join(m['flags'])}; load average {m['load_average']:.1f} at the start, "
        f"{m['steal_percent']}% stolen.",
        f"Load: prompt {result['prompt_tokens']}, output {result['gen_tokens']} tokens, greedy, "
        "streamed, a different random prompt for every request; generated tokens per second of "
        f"the whole closed loop, medians of {result['rounds']} interleaved rounds; the client "
        "runs on the same cores.",
    ]


def markdown(result):
    commands = ["Commands:", "", *command_list(result)]
    parts = [conditions(result), ratio_table(result), figure_table(result), commands]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


if __name__ == "__main__":
    print(markdown(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))))
