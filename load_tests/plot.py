#!/usr/bin/env python3
"""Draws what `polyad bench` measured as one PNG: needs matplotlib (pip install matplotlib).

Four panels: how many requests had their first token within a time, and how many their next ones at
a pace (both cumulative, with the run's targets as dashed lines); first tokens over the time of
arrival, failures as crosses; first tokens of the models asked for most, p50 and p99, or of the
tenants with --by tenants. Several runs are drawn over each other.

  plot.py --run polyad=result.json,requests.jsonl --run other=other.json,other.jsonl report.png
"""

import argparse
import json
import pathlib
import sys

MOST_GROUPS = 16
MOST_POINTS = 20_000  # of the scatter; every k-th request of more
DOTS_PER_INCH = 110
SIZE_INCHES = (12, 8)


class Run:
    """One result and its log."""

    def __init__(self, label, result, rows):
        self.label, self.result, self.rows = label, result, rows
        self.done = [row for row in rows if row["end"] == "completed"]
        self.failed = [row for row in rows if row["end"] in ("failed", "refused")]

    def times(self, key):
        """Of requests that completed, rising, in milliseconds."""
        return sorted(row[key] for row in self.done if row[key] is not None)


def read_run(text):
    label, _, files = text.partition("=")
    result, _, log = files.partition(",")
    if not (label and result and log):
        raise ValueError(f"--run {text}: expected LABEL=RESULT.json,LOG.jsonl")
    lines = pathlib.Path(log).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return Run(label, json.loads(pathlib.Path(result).read_text(encoding="utf-8")), rows)


def draw_shares(axes, runs, key, title):
    for run in runs:
        times = run.times(key)
        shares = [100 * (i + 1) / len(times) for i in range(len(times))]
        axes.step(times, shares, where="post", label=f"{run.label} ({len(times)})")
        target = run.result["slo"].get(key)
        if target:
            axes.axvline(target, linestyle="--", linewidth=1, color="grey")
    axes.set(title=title, xlabel="ms", ylabel="% of completed", ylim=(0, 100))
    if any(run.times(key) for run in runs):
        axes.set_xscale("log")


def draw_arrivals(axes, runs):
    for run in runs:
        step = max(1, len(run.done) // MOST_POINTS)
        shown = [row for row in run.done[::step] if row["ttft_ms"] is not None]
        places = [row["at_s"] for row in shown], [row["ttft_ms"] for row in shown]
        dots = axes.scatter(*places, s=5, label=run.label)
        lost = [row["at_s"] for row in run.failed]
        if lost:
            color = dots.get_facecolor()
            times = [row["e2el_ms"] for row in run.failed]
            axes.scatter(lost, times, s=25, marker="x", color=color, label=f"{run.label}: failed")
    axes.set(title="First token by time of arrival", xlabel="s", ylabel="ms")


def busiest(runs, by):
    """Names of groups, those with most requests over all runs first."""
    counts = {}
    for run in runs:
        for name, group in run.result[by].items():
            counts[name] = counts.get(name, 0) + group["num_prompts"]
    return sorted(counts, key=lambda name: (-counts[name], name))[:MOST_GROUPS]


def draw_groups(axes, runs, by):
    names = busiest(runs, by)
    width = 0.8 / len(runs)
    for number, run in enumerate(runs):
        groups = [run.result[by].get(name, {}) for name in names]
        middle = [i + (number - (len(runs) - 1) / 2) * width for i in range(len(names))]
        p99 = [group.get("p99_ttft_ms") or 0 for group in groups]
        p50 = [group.get("median_ttft_ms") or 0 for group in groups]
        bars = axes.bar(middle, p99, width, alpha=0.5, label=f"{run.label} p99")
        axes.bar(middle, p50, width, color=bars.patches[0].get_facecolor()[:3], label="p50")
    axes.set(title=f"First token by {by}", ylabel="ms")
    axes.set_xticks(range(len(names)), [name or "base" for name in names], rotation=60, fontsize=7)


def figure_of(runs, by="models"):
    import matplotlib  # pylint: disable=import-outside-toplevel

    matplotlib.use("Agg")
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel

    figure, panels = pyplot.subplots(2, 2, figsize=SIZE_INCHES, layout="constrained")
    draw_shares(panels[0][0], runs, "ttft_ms", "First token")
    draw_shares(panels[0][1], runs, "tpot_ms", "Each next token, mean of a request")
    draw_arrivals(panels[1][0], runs)
    draw_groups(panels[1][1], runs, by)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7)
    return figure


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="append", required=True, metavar="LABEL=RESULT,LOG")
    parser.add_argument("--by", choices=("models", "tenants"), default="models")
    parser.add_argument("png", type=pathlib.Path)
    return parser.parse_args(arguments)


def main():
    args = parse_args()
    try:
        runs = [read_run(text) for text in args.run]
        figure = figure_of(runs, args.by)
    except ImportError:
        sys.exit("plot: needs matplotlib: pip install matplotlib")
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"plot: {error!r}" if isinstance(error, KeyError) else f"plot: {error}")
    figure.savefig(args.png, dpi=DOTS_PER_INCH)


if __name__ == "__main__":
    main()
