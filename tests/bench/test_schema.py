"""Result files: what is written comes back, and what was changed is caught and named."""

import hashlib
import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from ufe_bench.schema import (
    SCHEMA,
    MetricInfo,
    MissingFrames,
    Split,
    incomplete_reason,
    json_schema,
    load_result,
    make_result,
    result_path,
    run_id_of,
    write_result,
)
from ufe_core.errors import DataError


@pytest.fixture
def stored(build_result, tmp_path):
    """A result file and a way to change it: `change("a.b.0", value)` returns the path of a changed copy."""
    path = write_result(build_result(), tmp_path)

    def change(field, value):
        data = json.loads(path.read_text())
        *parents, last = [int(part) if part.isdigit() else part for part in field.split(".")]
        node = data
        for part in parents:
            node = node[part]
        if value is KeyError:
            del node[last]
        else:
            node[last] = value
        copy = tmp_path / "changed.json"
        copy.write_text(json.dumps(data))
        return copy

    return path, change


def test_what_is_written_comes_back(build_result, tmp_path):
    thirds = build_result(mesh=[1 / 3, 2 / 3, 0.1, 1e-17])
    assert load_result(write_result(thirds, tmp_path)) == thirds


def test_whoever_could_get_nothing_wrong_in_a_clip_has_no_value_and_is_not_missing(build_result, tmp_path):
    made = build_result()
    closures = {"closures": MetricInfo(label="Closures", unit="%", higher_is_better=False, temporal=True)}
    first = made.subjects[0].model_copy(update={"metrics": {**made.subjects[0].metrics, "closures": 50.0}})
    fields = {"subjects": (first, *made.subjects[1:]), "metrics": {**made.metrics, **closures}}
    assert [subject.metrics.get("closures") for subject in fields["subjects"]].count(None) == len(made.subjects) - 1
    told = made.model_copy(update=fields)
    assert incomplete_reason(told) is None
    frames = {"closures": closures["closures"].model_copy(update={"temporal": False})}
    missing = made.model_copy(update={**fields, "metrics": {**made.metrics, **frames}})
    assert "has no closures" in incomplete_reason(missing)


def test_path_names_suite_method_and_run(build_result, tmp_path):
    result = build_result()
    expected = tmp_path / "main@1" / "ufe__univ__late_fusion" / f"{result.run_id}.json"
    assert write_result(result, tmp_path) == expected == result_path(result, tmp_path)
    plain = build_result("acme/face", None)
    assert write_result(plain, tmp_path).parent.name == "acme__face"


def test_equal_runs_share_a_file_and_leave_no_other(build_result, tmp_path):
    first = write_result(build_result(created="2026-01-01T00:00:00Z"), tmp_path)
    again = write_result(build_result(created="2026-01-02T00:00:00Z"), tmp_path)
    assert first == again
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [first]
    assert load_result(first).created == "2026-01-02T00:00:00Z"


def test_run_id_is_the_hash_of_the_canonical_key(build_result):
    result = build_result()
    data = result.key.model_dump(mode="json")
    assert data["data"].pop("enrolment") == "own", "what is usual is left out"
    assert data["data"].pop("version") is None, "which the fingerprint tells"
    for late in ("detector", "pretraining", "view_detector"):
        assert data["components"].pop(late) is None
    for late in ("anchors", "render_size"):
        assert data["data"].pop(late) is None
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    assert result.run_id == run_id_of(result.key) == hashlib.sha256(canonical.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"budget": "smoke"},
        {"released": True},
        {"config": {"width": 2}},
        {"overrides": {"steps": 10}},
        {"data": "d1ff" * 16},
        {"suite": "main@2"},
        {"calibrator": "ufe/none"},
    ],
)
def test_every_choice_moves_the_run_id(build_result, change):
    assert build_result(**change).run_id != build_result().run_id


def test_machine_and_time_do_not_move_the_run_id(build_result):
    assert build_result(device="Other", created="2027-01-01T00:00:00Z").run_id == build_result().run_id


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", "ufe.result/0", "field 'schema'.*ufe.result/0.*ufe.result/2.*ufe.result/1"),
        ("schema", KeyError, "field 'schema'.*None"),
        ("subjects.1.metrics.mesh_l2", 0.7500001, "summary.mesh_l2.mean"),
        ("subjects.1.metrics.mesh_l2", math.nan, "field 'subjects.1.metrics.mesh_l2': NaN"),
        ("subjects.1.metrics.mesh_l2", None, "subjects.1.metrics.mesh_l2"),
        ("subjects.1.metrics.mesh_l2", "0.75", "subjects.1.metrics.mesh_l2"),
        ("subjects.1.id", "S000", "subjects.1.id.*'S000' appears twice"),
        ("subjects.1.failed", 25, "subjects.1.failed.*25 failed of 24"),
        ("subjects.1.metrics.extra", 1.0, "subjects.1.metrics.extra.*not described"),
        ("summary.gaze.mean", 3.9999, "summary.gaze.mean.*does not follow"),
        ("summary.gaze.ci95.0", 3.9999, "summary.gaze.ci95.*does not follow"),
        ("summary.gaze.worst_subject", "S001", "summary.gaze.worst_subject"),
        ("summary.gaze", KeyError, "summary.gaze"),
        ("key.seed", 7, "field 'run_id'.*not the hash of 'key'"),
        ("key.components.encoder.config.width", 3, "field 'run_id'"),
        ("run_id", "0123456789ab", "field 'run_id'"),
        ("trials", [{"training": {}, "score": None, "failure": "it diverged"}], "field 'trials'.*every trial failed"),
        ("trials", [{"training": {}, "score": None}], "field 'trials.0'.*has a score, or tells of its failure"),
        ("complete", False, "field 'complete'.*nothing is missing"),
        ("notes", "hello", "field 'notes'.*Extra"),
        ("cost.batch", 2, "cost.batch"),
        ("created", "yesterday", "created"),
    ],
)
def test_a_changed_field_is_caught_and_named(stored, field, value, message):
    _, change = stored
    with pytest.raises(DataError, match=message) as caught:
        load_result(change(field, value))
    assert "changed.json" in str(caught.value)


def test_a_file_of_the_version_before_is_brought_to_this_one(stored):
    path, change = stored
    old = change("environment.packages", KeyError)
    raw = json.loads(old.read_text())
    old.write_text(json.dumps({**raw, "schema": "ufe.result/1"}))
    assert load_result(old) == load_result(path)


@pytest.mark.parametrize("keep", [0, 1, 500, -3])
def test_a_truncated_file_is_named(stored, tmp_path, keep):
    path, _ = stored
    cut = tmp_path / "cut.json"
    cut.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.json' is no whole result file"):
        load_result(cut)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"ufe.result/1"', "\ufeff{}"])
def test_other_json_is_no_result(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.json"):
        load_result(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json' cannot be read"):
        load_result(tmp_path / "gone.json")


def test_holes_make_a_run_incomplete(build_result):
    assert incomplete_reason(build_result()) is None
    few = build_result(people=5)
    assert not few.complete
    assert incomplete_reason(few) == "4 of 5 subjects"
    failed = build_result(failed=3)
    assert not failed.complete
    assert incomplete_reason(failed) == "subject 'S000' failed on 3 of 24 frames"
    lost = build_result(missing=[MissingFrames(subject="S001", frames=2, reason="NaN")])
    assert not lost.complete
    assert incomplete_reason(lost) == "subject 'S001' lacks 2 frames (NaN)"


def test_a_subject_without_a_metric_makes_a_run_incomplete(build_result):
    whole = build_result()
    first = whole.subjects[0].model_copy(update={"metrics": {"mesh_l2": 0.5}})
    parts = {name: getattr(whole, name) for name in ("metrics", "cost", "environment", "created", "command")}
    result = make_result(whole.key, [*whole.subjects[1:], first], seconds=1.0, **parts)
    assert not result.complete
    assert result.summary["gaze"].subjects == 3
    assert [subject.id for subject in result.subjects] == ["S000", "S001", "S002", "S003"]
    assert incomplete_reason(result) == "subject 'S000' has no photometric_l1"


def test_numbers_that_are_none_are_refused_when_built(build_result):
    with pytest.raises((ValidationError, DataError)):
        build_result(mesh=[1.0, math.nan])


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="Extra"):
        Split(id="x", sha256="y", subjects=1, size=3)  # type: ignore[call-arg]


def test_a_changed_field_needs_another_version_of_the_schema():
    """Raise `SCHEMA`, unless more is allowed than before and no less, and write tests/golden/result-N.schema.json with
    `ufe leaderboard schema`.
    """
    number = SCHEMA.rpartition("/")[2]
    golden = Path(__file__).parents[1] / "golden" / f"result-{number}.schema.json"
    assert json.loads(golden.read_text()) == json_schema()


@pytest.mark.parametrize("page", ["docs/versions.md", "docs/site.py"])
def test_the_schema_is_published_under_its_version(page):
    assert f"result-{SCHEMA.rpartition('/')[2]}.schema.json" in (Path(__file__).parents[2] / page).read_text()
