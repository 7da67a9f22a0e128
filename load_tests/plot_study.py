#!/usr/bin/env python3
"""Draws what simulate.py found as one PNG: needs matplotlib (pip install matplotlib).

Three panels over the number of replicas, a line for each routing: p99 of the first token, the share
of requests whose adapter was in memory, and what a million tokens cost against that p99.

  simulate.py ... --json study.json && plot_study.py study.json study.png
"""

import argparse
import json
import pathlib
import sys

DOTS_PER_INCH = 90
SIZE_INCHES = (12, 3.6)


def figure_of(rows):
    import matplotlib  # pylint: disable=import-outside-toplevel

    matplotlib.use("Agg")
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel

    figure, (waits, hits, costs) = pyplot.subplots(1, 3, figsize=SIZE_INCHES, layout="constrained")
    for routing in dict.fromkeys(row["routing"] for row in rows):
        mine = [row for row in rows if row["routing"] == routing]
        column = lambda key: [row[key] for row in mine]
        waits.plot(column("replicas"), column("ttft_p99_ms"), marker="o", label=routing)
        hits.plot(column("replicas"), [100 * share for share in column("hit_rate")], marker="o")
        costs.plot(column("cost_per_million_tokens"), column("ttft_p99_ms"), marker="o")
    waits.set(title="First token, p99", xlabel="replicas", ylabel="ms", xscale="log", yscale="log")
    hits.set(title="Adapter in memory", xlabel="replicas", ylabel="% of requests", xscale="log")
    costs.set(title="First token, p99", xlabel="cost of 1M tokens", ylabel="ms", yscale="log")
    counts = sorted({row["replicas"] for row in rows})
    for panel in (waits, hits):
        panel.set_xticks(counts, counts)
        panel.minorticks_off()
    for panel in (waits, hits, costs):
        panel.grid(alpha=0.3)
    waits.legend(fontsize=8)
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=pathlib.Path, help="of simulate.py --json, one size of memory")
    parser.add_argument("png", type=pathlib.Path)
    args = parser.parse_args()
    try:
        rows = json.loads(args.study.read_text(encoding="utf-8"))
        if len({(row["slots"], row["host_slots"]) for row in rows}) != 1:
            sys.exit("plot_study: expected one size of memory")
        figure = figure_of(rows)
    except ImportError:
        sys.exit("plot_study: needs matplotlib: pip install matplotlib")
    except (OSError, ValueError) as error:
        sys.exit(f"plot_study: {error}")
    figure.savefig(args.png, dpi=DOTS_PER_INCH)


if __name__ == "__main__":
    main()
