"""load_tests/plot.py and plot_study.py draw what a result says, and a PNG comes of it."""
import json
import pathlib
import struct
import subprocess
import sys

import pytest

LOAD_TESTS = pathlib.Path(__file__).resolve().parents[2] / "load_tests"
sys.path.insert(0, str(LOAD_TESTS))

import plot  # noqa: E402
import plot_study  # noqa: E402


def row(at_s, ttft_ms, end="completed", model="a"):
    return {"at_s": at_s, "tenant": "t", "model": model, "end": end, "ttft_ms": ttft_ms,
            "tpot_ms": None if ttft_ms is None else 2.0, "e2el_ms": 100.0 + at_s}


def group(count, p50, p99):
    return {"num_prompts": count, "median_ttft_ms": p50, "p99_ttft_ms": p99}


@pytest.fixture(name="files")
def files_(tmp_path):
    rows = [row(0.0, 30.0), row(0.5, 10.0, model="b"), row(1.0, 20.0), row(1.5, None, end="failed")]
    result = {"slo": {"ttft_ms": 25}, "tenants": {"t": group(4, 20, 30)},
              "models": {"a": group(3, 25, 30), "b": group(1, 10, 10)}}
    (tmp_path / "r.json").write_text(json.dumps(result))
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return f"{tmp_path}/r.json,{tmp_path}/l.jsonl"


def test_panels_show_the_run(files):
    run = plot.read_run(f"polyad={files}")
    first, pace, arrivals, groups = plot.figure_of([run]).axes
    curve, target = first.get_lines()
    assert list(curve.get_xdata()) == [10, 20, 30]
    assert list(curve.get_ydata()) == pytest.approx([100 / 3, 200 / 3, 100])
    assert set(target.get_xdata()) == {25}
    assert list(pace.get_lines()[0].get_xdata()) == [2, 2, 2]
    dots, crosses = arrivals.collections
    assert dots.get_offsets().tolist() == [[0, 30], [0.5, 10], [1, 20]]
    assert crosses.get_offsets().tolist() == [[1.5, 101.5]]
    p99, p50 = groups.containers
    assert [bar.get_height() for bar in p99] == [30, 10]  # the busiest first
    assert [bar.get_height() for bar in p50] == [25, 10]
    assert [label.get_text() for label in groups.get_xticklabels()] == ["a", "b"]


def test_two_runs_stand_beside_each_other(files):
    runs = [plot.read_run(f"{label}={files}") for label in ("polyad", "other")]
    groups = plot.figure_of(runs, "tenants").axes[3]
    spans = [(bars[0].get_x(), bars[0].get_x() + bars[0].get_width()) for bars in groups.containers[::2]]
    assert spans[0][1] <= spans[1][0] + 1e-9


def test_the_program_writes_a_png(files, tmp_path):
    out = tmp_path / "report.png"
    program = [sys.executable, LOAD_TESTS / "plot.py"]
    subprocess.run([*program, "--run", f"polyad={files}", out], check=True)
    head = out.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    wide, high = struct.unpack(">II", head[16:24])
    assert (wide, high) == tuple(round(side * plot.DOTS_PER_INCH) for side in plot.SIZE_INCHES)


@pytest.mark.parametrize("run", ["polyad", "polyad=none.json", "polyad=none.json,none.jsonl"])
def test_a_wrong_run_is_refused(run, tmp_path):
    done = subprocess.run([sys.executable, LOAD_TESTS / "plot.py", "--run", run, tmp_path / "out.png"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "plot: " in done.stderr and "Traceback" not in done.stderr


STUDY = [{"replicas": count, "slots": 8, "host_slots": 9, "routing": routing, "ttft_p99_ms": 1000 / count, "hit_rate": share,
          "cost_per_million_tokens": 2.0 * count} for routing, share in (("affine", 0.9), ("robin", 0.5)) for count in (4, 8)]


def test_a_study_has_a_line_for_each_routing():
    waits, hits, costs = plot_study.figure_of(STUDY).axes
    assert [line.get_label() for line in waits.get_lines()] == ["affine", "robin"]
    assert [list(line.get_ydata()) for line in hits.get_lines()] == [[90, 90], [50, 50]]
    assert list(costs.get_lines()[1].get_xdata()) == [8, 16]
    assert list(costs.get_lines()[1].get_ydata()) == [250, 125]


def test_the_study_is_drawn_or_refused(tmp_path):
    study, out = tmp_path / "study.json", tmp_path / "study.png"
    for rows, code in ((STUDY, 0), ([*STUDY, STUDY[0] | {"slots": 7}], 1), ([], 1)):
        study.write_text(json.dumps(rows))
        done = subprocess.run([sys.executable, LOAD_TESTS / "plot_study.py", study, out], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
