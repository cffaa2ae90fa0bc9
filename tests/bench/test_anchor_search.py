"""Algorithm 1 against a second reading of it and against all sets, and what a search leaves behind."""

import itertools
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from ufe_bench import anchor_search
from ufe_bench.anchor_search import METRIC, Measured, Search, Workers, as_json, draw, measure, search
from ufe_bench.anchors_cli import anchors as anchors_cli
from ufe_bench.validation import Candidate, validate
from ufe_core.anchor_sets import anchors_of
from ufe_core.errors import ArtifactError, ConfigError, DataError, MethodError, UfeError
from ufe_core.head import load_head
from ufe_core.recipe import DEFAULT_ANCHORS
from ufe_core.store import Store

NAMES = tuple("abcdefg")


def worth(anchors):
    """An error that anchors lower, some of them only together."""
    gain = {"a": 3.0, "b": 2.5, "c": 2.0, "d": 1.0, "e": 0.2, "f": -0.5, "g": -1.0}
    together = 2.0 if {"e", "g"} <= set(anchors) else 0.0
    return 20 - sum(gain[name] for name in anchors) - together + 0.01 * len(anchors)


def candidate_of(home, **asked):
    usual = {"names": {"encoder": "univ", "calibrator": None}, "overrides": {}, "packed": ("a", "b"), "frames": 4,
             "render_size": 16, "validation": 2, "metrics": (METRIC,), "home": str(home)}  # fmt: skip
    return Candidate(**usual | asked)


def measured_by(error, log=None):
    def errors(sets):
        if log is not None:
            log.append(list(sets))
        for anchors in reversed(sets):  # workers end in any order
            yield anchors, error(anchors)

    return errors


def by_the_book(candidates, error, beam, most):
    """P§4's pseudo-code line by line, with its corrections."""
    held, seen, results = [frozenset()], set(), []
    while not any(len(b) >= most for b in held):
        for b in held:
            for x in candidates:
                c = b | {x}
                if c not in seen and x not in b:
                    results.append((error(c), c))
                    seen.add(c)
        kept = [c for _, c in sorted(results, key=lambda r: r[0])[:beam]]
        if kept == held:
            break
        held = kept
    return held, seen


@pytest.mark.parametrize(("beam", "most"), [(1, 3), (3, 4), (3, 6), (5, 2)])
def test_the_search_measures_what_algorithm_1_measures(beam, most):
    log = []
    found = search(NAMES, measured_by(worth, log), beam=beam, most=most)
    held, seen = by_the_book(NAMES, worth, beam, most)
    sets = [frozenset(anchors) for level in log for anchors in level]
    assert len(sets) == len(set(sets)), "nothing is measured twice"
    assert set(sets) == seen | {frozenset()}
    assert [frozenset(anchors) for _, anchors in found.levels[-1].beam] == held
    assert frozenset(found.best) == held[0] and found.results[0][0] == pytest.approx(worth(found.best))


def test_with_a_wide_beam_it_is_exhaustive():
    found = search(NAMES[:5], measured_by(worth), beam=99, most=5)
    every = [c for n in range(6) for c in itertools.combinations(NAMES[:5], n)]
    assert {frozenset(a) for _, a in found.results} == {frozenset(c) for c in every}
    assert found.results[0][0] == pytest.approx(min(map(worth, every)))


def test_it_ends_where_more_anchors_do_not_help():
    found = search(NAMES, measured_by(lambda anchors: abs(len(anchors) - 2) + 0.1 * ("a" not in anchors)), most=6)
    assert len(found.best) == 2 and "a" in found.best and found.ended == "no larger set is better"
    assert max(len(anchors) for _, anchors in found.results) == 3
    full = search(NAMES, measured_by(worth), most=3)
    assert full.ended == "a set of 3 anchors is among the best"


def test_a_set_is_written_in_the_order_of_the_candidates_whichever_came_last():
    order = {"c": 5.0, "a": 3.0, "b": 1.0}
    found = search("abc", measured_by(lambda anchors: 10 - sum(order[name] for name in anchors)), beam=1, most=3)
    assert found.best == ("a", "b", "c")
    assert [(count, anchors) for count, _, anchors in found.curve()] == [
        (0, ()), (1, ("c",)), (2, ("a", "c")), (3, ("a", "b", "c"))
    ]  # fmt: skip


def test_the_best_set_has_anchors_even_where_none_would_do():
    found = search("ab", measured_by(lambda anchors: len(anchors)), beam=2, most=2)
    assert found.curve()[0][1] < found.curve()[1][1] and len(found.best) == 1


def test_nothing_to_search_is_an_error():
    with pytest.raises(ConfigError, match="needs candidates"):
        search((), measured_by(worth))


def test_the_file_is_what_anchors_takes(tmp_path):
    found = Search(((1.0, ("b", "a")), (2.0, ("b",)), (3.0, ())), (), "no larger set is better")
    measured = {frozenset("ab"): Measured(("b", "a"), {"S0": 0.9, "S1": 1.1}, "w")}
    candidate = candidate_of(tmp_path)
    file = tmp_path / "set.json"
    file.write_text(json.dumps(as_json(found, measured, candidate)))
    assert anchors_of(str(file)) == ("b", "a")
    draw(found, measured, tmp_path / "set.png")
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")


def test_a_set_that_fails_takes_no_further_part_and_its_cause_is_kept(tmp_path, monkeypatch):
    """Nothing that has `b` can be trained."""

    def measure(candidate, anchors):
        if "b" in anchors:
            raise ValueError("no layer for\nb")
        return Measured(anchors, {"S0": worth(anchors)}, "w")

    monkeypatch.setattr(anchor_search, "measure", measure)
    done = []
    workers = Workers(candidate_of(tmp_path), 1, done.append)
    with ThreadPoolExecutor(1) as workers._pool:
        found = search("abc", workers.errors, beam=2, most=2)
        with pytest.raises(MethodError, match="the method failed with each of the 1 anchors"):
            search("b", workers.errors)
    assert found.best == ("a", "c") and len(done) == (4 + 3) + 2
    assert [anchors for error, anchors in found.results if math.isinf(error)] == [("b",), ("a", "b"), ("b", "c")]
    assert all("b" not in anchors for level in found.levels for _, anchors in level.beam)
    assert all("b" not in anchors for _, _, anchors in found.curve())
    told = json.loads(json.dumps(as_json(found, workers.measured, workers.candidate, workers.failed), allow_nan=False))
    assert {tuple(one["anchors"]): one["failure"] for one in told["sets"] if "failure" in one} == {
        ("b",): "ValueError: no layer for b", ("a", "b"): "ValueError: no layer for b",
        ("b", "c"): "ValueError: no layer for b",
    }  # fmt: skip
    draw(found, workers.measured, tmp_path / "set.png")
    for error in (ArtifactError("The disk is full."), DataError("The capture is damaged.")):
        monkeypatch.setattr(anchor_search, "measure", Mock(side_effect=error))
        with ThreadPoolExecutor(1) as workers._pool, pytest.raises(type(error), match=str(error)):
            search("abc", workers.errors)


def test_anchor_sets_by_name(tmp_path):
    assert anchors_of(None) == anchors_of("default") == DEFAULT_ANCHORS and anchors_of("none") == ()
    assert anchors_of("neutral, jaw_open,neutral") == ("neutral", "jaw_open")
    for text, message in ((" ,", "names nothing"), (str(tmp_path / "no.json"), "cannot be read: No such file")):
        with pytest.raises(ConfigError, match=message):
            anchors_of(text)
    for content in ("{", "[]", '{"anchors": 3}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ConfigError, match="'anchors'"):
            anchors_of(str(tmp_path / "bad.json"))


QUICK = {"training": {"people": 3, "frames": 4, "frames_per_user": 2, "users": 2, "steps": 2, "render_frames": 0}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where both tests below find what the first of them packed, and the head, which takes long to cut."""
    load_head()
    home = tmp_path_factory.mktemp("home")
    (home / "head").symlink_to(Store().root / "head")
    return home


def test_a_set_is_measured_on_people_that_it_was_not_trained_on_and_once(home, monkeypatch):
    names = {"encoder": "univ", "calibrator": None, "decoder": "blendshape", "source": "synthetic", "budget": "smoke"}
    candidate = candidate_of(
        home, names=names, overrides=QUICK, packed=("neutral", "jaw_open"), frames=2, render_size=32
    )
    found = measure(candidate, ("jaw_open", "neutral"))
    from ufe_core.registry import load_registry

    assert list(found.subjects) == list(load_registry().split("synthetic", "train")[-2:])
    assert all(value > 0 for value in found.subjects.values()) and len(found.weights) == 64
    monkeypatch.setattr("ufe_core.training.loop.trained", None)
    again = measure(candidate, ("jaw_open", "neutral"))
    assert again.subjects == found.subjects
    with pytest.raises(TypeError):
        measure(candidate, ("neutral",))
    with pytest.raises(TypeError):
        validate(candidate, ("jaw_open", "neutral"), fresh=True)


def test_an_encoder_that_fails_on_a_person_is_the_methods_fault(home, monkeypatch):
    def fails(self, images, *rest):
        raise RuntimeError("no face")

    names = {"encoder": "mean", "calibrator": None, "decoder": "blendshape", "source": "synthetic", "budget": "smoke"}
    candidate = candidate_of(home, names=names, overrides=QUICK, packed=("neutral",), frames=2, render_size=32)
    monkeypatch.setattr("ufe_core.interfaces.encoder.Encoder.encode", fails)
    with pytest.raises(MethodError, match="Subject '.*' cannot be measured: RuntimeError: no face"):
        validate(candidate, ())


@pytest.mark.slow
def test_the_command_searches_shows_its_beam_and_goes_on(home, tmp_path, monkeypatch):
    monkeypatch.setenv("UFE_HOME", str(home))
    options = [f"--set=training.{name}={value}" for name, value in QUICK["training"].items()]
    asked = ["search", "--candidates", "neutral,jaw_open", "--most", "1", "--beam", "1", "--decoder", "blendshape",
             "--budget", "smoke", "--validation", "2", "--frames", "2", "--workers", "1",
             "--out", str(tmp_path / "set.json"), *options]  # fmt: skip
    first = CliRunner().invoke(anchors_cli, asked, catch_exceptions=False)
    assert first.exit_code == 0 and "round 1: 3 sets measured" in first.stderr
    content = json.loads((tmp_path / "set.json").read_text())
    assert len(content["sets"]) == 3 and len(content["anchors"]) == 1 and (tmp_path / "set.png").is_file()
    weights = sorted((home / "weights").iterdir())
    second = CliRunner().invoke(anchors_cli, asked, catch_exceptions=False)
    assert second.stdout == first.stdout and sorted((home / "weights").iterdir()) == weights


@pytest.mark.parametrize("end", [KeyboardInterrupt(), UfeError("Training diverged.")])
def test_after_ctrl_c_or_an_error_nothing_more_is_begun(end):
    said = []
    with pytest.raises(type(end)), Workers(None, 1, on_wait=said.append) as workers:
        under_way = workers._pool.submit(time.sleep, 2)
        queued = workers._pool.submit(anchor_search._measured, None, ("a",))
        while not under_way.running():
            time.sleep(0.05)
        raise end
    assert said == [end] and under_way.done()
    assert queued.cancelled() or "The search was stopped" in str(queued.exception())


def test_a_second_ctrl_c_stops_at_once():
    began = time.monotonic()

    def impatient(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Workers(None, 1, on_wait=impatient) as workers:
        workers._pool.submit(time.sleep, 600)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 100


def test_an_encoder_that_reads_certain_anchors_is_refused_before_anything_is_trained(ufe):
    code, out, err = ufe("anchors", "search", "--encoder", "flnet", "--budget", "smoke")
    assert code == 1 and not out and "can do with other anchors than its own" in err and err.count("\n") == 1


def test_the_list_names_sets_and_candidates():
    shown = CliRunner().invoke(anchors_cli, ["list"], catch_exceptions=False).stdout
    assert f"default          {', '.join(DEFAULT_ANCHORS)}" in shown and "cheek_puff" in shown.splitlines()[-1]
    assert json.loads(CliRunner().invoke(anchors_cli, ["list", "--json"]).stdout)["sets"]["none"] == []
    assert anchor_search.METRIC == "photometric_l1"
