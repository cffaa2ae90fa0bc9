"""What an encoder's call takes, by a clock that the tests turn, and that rows of a study are timed together."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ufe_bench import evaluate as evaluate_module
from ufe_bench import study_timing as timing_module
from ufe_bench.evaluate import measure_cost, time_in_turn
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.schema import Latency, load_result, write_result
from ufe_bench.study import Cell, Study
from ufe_bench.study_report import as_json, markdown
from ufe_bench.study_timing import timed_together
from ufe_bench.suite import load_suite
from ufe_core.errors import ArtifactError
from ufe_core.plugins import catalogue
from ufe_core.store import Store

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Stands still but for what a test adds to `ms`."""
    clock = SimpleNamespace(ms=0.0)
    monkeypatch.setattr(evaluate_module, "time", SimpleNamespace(perf_counter=lambda: clock.ms / 1000))
    return clock


def taking(clock, milliseconds):
    def call(*_):
        clock.ms += milliseconds

    return call


class Encoder(nn.Module):
    """Takes as long as it is told, call by call."""

    needs = SimpleNamespace(cameras=("left_eye",), anchors=("neutral", "jaw_open"), size=64)

    def __init__(self, clock, times):
        super().__init__()
        self.clock, self.times, self.weight = clock, list(times), nn.Parameter(torch.zeros(7))

    def encode(self, frames, calibration):
        self.clock.ms += self.times.pop(0)


def test_cost_is_of_the_encoder_and_of_its_detector_apart_and_the_latency_is_both(clock, monkeypatch):
    class Finder(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(config))

        def detect(self, images):
            clock.ms += 5.0

    monkeypatch.setattr(evaluate_module, "_WARM_UP", 2)
    monkeypatch.setattr(evaluate_module, "_LATENCY_RUNS", 200)
    monkeypatch.setattr(evaluate_module, "enroll", taking(clock, 30.0))
    frames = SimpleNamespace(images=None, to=lambda device: frames)
    monkeypatch.setattr(evaluate_module, "frames_of", lambda *_: frames)
    warm_up, counted = [1000.0, 1000.0], np.random.default_rng(0).permutation(np.arange(1.0, 201.0))
    detector = SimpleNamespace(spec=SimpleNamespace(load=lambda: Finder), config=3)
    cost = measure_cost(Encoder(clock, [*warm_up, *counted]), None, CPU, detector=detector)
    assert cost.encode_ms.p50 == pytest.approx(100.5) and cost.encode_ms.runs == 200
    assert cost.encode_ms.p99 == pytest.approx(198.01), "of 1 to 200 all but a hundredth are less"
    assert (cost.detect_ms.p50, cost.detect_ms.p99) == pytest.approx((5.0, 5.0))
    assert cost.latency_ms == pytest.approx(105.5) and cost.enroll_ms == pytest.approx(30.0)
    assert (cost.parameters, cost.anchors, cost.size, cost.timed_in) == (10, 2, 64, None)
    alone = measure_cost(Encoder(clock, [*warm_up, *counted]), None, CPU)
    assert alone.detect_ms is None and alone.parameters == 7 and alone.latency_ms == pytest.approx(100.5)


def test_calls_that_take_turns_share_a_machine_that_gets_slower(clock, monkeypatch):
    monkeypatch.setattr(evaluate_module, "_BLOCKS", 4)
    log = []

    def call(name, work):
        def run():
            log.append(name)
            clock.ms += work * (1 if len(log) <= 4 * 25 * 3 else 10)  # slow in the last of five rounds

        return run

    one, other, double = time_in_turn([call("a", 2.0), call("b", 2.0), call("c", 4.0)], CPU)
    assert log == (["a"] * 25 + ["b"] * 25 + ["c"] * 25) * 5
    assert one.runs == other.runs == 4 * 20
    assert (one.p50, one.p99) == pytest.approx((other.p50, other.p99))
    assert one.p50 < 20.0 < one.p99 + 1e-6, "some of its calls were slow, and some were not"
    assert double.p50 == pytest.approx(2 * one.p50) and double.p99 == pytest.approx(2 * one.p99)


@pytest.fixture
def study(build_result, tmp_path):
    """Three rows of table3, measured one after another, and one that failed; the result files are there."""
    suite = load_suite("table3")

    def cell(name, **measured):
        row = suite.row(name)
        result = build_result(calibrator=f"ufe/{row.calibrator}", suite=suite.id, **measured)
        request = Request(suite=suite, calibrator=row.calibrator, row=name)
        return Cell(row, result, write_result(result, tmp_path), request=request)

    failed = Cell(suite.row("early_fusion"), None, error="no memory")
    return Study(suite, (cell("none"), cell("pooling"), failed, cell("late_fusion", latency=(10.0, 90.0))), ())


@pytest.fixture
def harness(tmp_path, monkeypatch, clock):
    """With methods that take as many ms as their row's name has letters; `late_fusion` finds keypoints too."""
    harness = Harness(catalogue(), Store(tmp_path / "home"), tmp_path, device=CPU)
    harness.asked = []

    def ready(request):
        harness.asked.append(request.row)
        return SimpleNamespace(
            encoder=request.row, detector=None, material=SimpleNamespace(captures=[SimpleNamespace(subject="S000")])
        )

    def instant(row, *_):
        return taking(clock, float(len(row))), taking(clock, 3.0) if row == "late_fusion" else None

    monkeypatch.setattr(harness, "ready", ready)
    monkeypatch.setattr(timing_module, "instant", instant)
    monkeypatch.setattr(timing_module, "now", iter(f"2026-01-0{day}T00:00:00Z" for day in range(1, 9)).__next__)
    return harness


def latencies(study):
    return [cell.result and cell.result.cost.latency_ms for cell in study.cells]


def test_rows_are_timed_together_once_and_their_files_say_so(study, harness):
    timed = timed_together(harness, study)
    assert latencies(timed) == pytest.approx([4.0, 7.0, None, 11.0 + 3.0])
    for before, cell in zip(study.cells, timed.cells, strict=True):
        if cell.result is not None:
            assert load_result(cell.path) == cell.result and cell.result.run_id == before.result.run_id
            assert cell.result.cost.timed_in == "2026-01-01T00:00:00Z"
            assert cell.result.cost.enroll_ms == before.result.cost.enroll_ms
    assert harness.asked == ["none", "pooling", "late_fusion"]
    assert timed_together(harness, timed) is timed and len(harness.asked) == 3, "nothing is new"
    anew = (study.cells[0], *timed.cells[1:])
    again = timed_together(harness, Study(study.suite, anew, ()))
    assert len(harness.asked) == 6, "what is new is timed with all others"
    assert {cell.result.cost.timed_in for cell in again.cells if cell.result} == {"2026-01-02T00:00:00Z"}


def test_a_row_that_fails_keeps_its_latency_and_stops_no_other(study, harness, monkeypatch):
    ready, told = harness.ready, []

    def fails(request):
        if request.row == "pooling":
            raise error
        return ready(request)

    monkeypatch.setattr(harness, "ready", fails)
    monkeypatch.setattr(harness, "note", told.append)
    error = RuntimeError("no such layer")
    timed = timed_together(harness, study)
    assert latencies(timed) == pytest.approx([4.0, 4.0, None, 14.0]) and timed.cells[1].result.cost.timed_in is None
    assert told[-1] == "pooling is not timed beside the others: RuntimeError: no such layer"
    assert "measured at several times" in markdown(timed)
    error = ArtifactError("The disk is full.")
    with pytest.raises(ArtifactError):
        timed_together(harness, study)


def test_the_page_says_whether_latencies_compare(study, harness):
    page = markdown(study)
    assert "they do not compare" in page and page.count("†") == 2, "one row, and what the mark means"
    assert next(line for line in page.splitlines() if line.startswith("| Late fusion")).count("10.0 †") == 1
    timed = timed_together(harness, study)
    page = markdown(timed)
    assert "in one pass, all rows in turn" in page and "†" not in page
    assert [row.get("latency_ms") for row in as_json(timed)["rows"]] == pytest.approx([4.0, 7.0, None, 14.0])


def test_a_latency_is_steady_up_to_three_times_its_median():
    assert Latency(p50=2.0, p99=6.0, runs=9).is_steady and not Latency(p50=2.0, p99=6.1, runs=9).is_steady
