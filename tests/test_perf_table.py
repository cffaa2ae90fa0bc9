"""The table of speed benches: what is in it, and what a bench or a peer that is not there costs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PERF = Path(__file__).parents[1] / "benchmarks" / "perf"


@pytest.fixture
def table(monkeypatch):
    spec = importlib.util.spec_from_file_location("perf_table", PERF / "table.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "perf_table", module)
    spec.loader.exec_module(module)
    return module


def test_what_a_bench_lacks_costs_that_figure_alone(table, monkeypatch, tmp_path, capsys):
    reports = {
        "training_step": {"ratio": 1.4},
        "raymarch": {"ratios": {"torch / ours, forward": 7.0, "torch / ours, forward and backward": 4.0,
                                "4096 / 256 boxes": 1.2}},
    }  # fmt: skip

    def run(words, **how):
        name = Path(words[1]).stem
        if name not in reports:
            return SimpleNamespace(returncode=1, stdout="", stderr="first\nno such thing")
        return SimpleNamespace(returncode=0, stdout=json.dumps(reports[name]), stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    names = ["raymarch", "training_step", "harness"]
    monkeypatch.setattr(sys, "argv", ["table.py", "--only", *names, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        table.main()
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    for figure, verdict in {"T5": " met", "T6": "NOT met", "T7": "not measured", "T8": " met"}.items():
        assert next(line for line in lines if figure in line).endswith(verdict)
    assert "harness           failed: no such thing" in lines
    (file,) = tmp_path.glob("*.harness-raymarch-training_step.json")
    kept = json.loads(file.read_text())
    assert kept["failed"] == {"harness": "no such thing"} and kept["reports"] == reports
    assert [row["met"] for row in kept["figures"]] == [True, False, None, True, True]
    assert kept["machine"]["torch"] and kept["machine"]["cpu"]


def test_every_bench_is_in_the_table(table):
    assert set(table.BENCHES) == {path.stem for path in PERF.glob("*.py")} - {"table"}


@pytest.mark.slow
def test_a_bench_gives_the_figures_of_the_table(table):
    """The one that needs no data, at a small size."""
    words = ["--frames", "64", "--cameras", "2", "--size", "32", "--batch", "4", "--batches", "4", "--repeats", "2"]
    done = subprocess.run(
        [sys.executable, str(PERF / "loader.py"), *words, "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (row,) = [figure.row(json.loads(done.stdout)) for figure in table.BENCHES["loader"][1]]
    assert row["value"] > 0 and row["target"] == ">= 0.8"


def test_the_page_shows_the_latest_file(table):
    latest = max((PERF / "results").glob("????-??-??.json"))
    page = (PERF.parents[1] / "docs" / "performance.md").read_text()
    assert table.markdown(json.loads(latest.read_text())) in page and latest.name in page
