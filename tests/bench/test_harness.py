"""The main job on a few people: components, data, weights, numbers, result, and how it fails."""

import json
import mmap
import re
import shlex
import shutil
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from ufe_bench import evaluate as evaluate_module
from ufe_bench import figures as figures_module
from ufe_bench import harness as harness_module
from ufe_bench import rerun as rerun_module
from ufe_bench import resolve as resolve_module
from ufe_bench.failure import load_failure
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.rerun import rerun
from ufe_bench.schema import load_result
from ufe_bench.study import run_study
from ufe_bench.study_report import write_report
from ufe_bench.study_rows import request_of
from ufe_bench.suite import Suite, SuiteRow, load_suite
from ufe_core import hookimpl
from ufe_core import splits as splits_module
from ufe_core.components import ComponentSpec
from ufe_core.config import ComponentConfig
from ufe_core.errors import (
    ArtifactError,
    ConfigError,
    ContractError,
    DataError,
    MethodError,
    RegistryError,
    UnknownComponentError,
)
from ufe_core.plugins import Catalogue, catalogue
from ufe_core.registry import Registry, load_registry
from ufe_core.store import Store
from ufe_core.training.progress import Progress
from ufe_core.weights import load_weights, save_weights, sha256_file

PEOPLE = 3


pytestmark = pytest.mark.usefixtures("quick_timing")


@pytest.fixture
def quick_timing(monkeypatch):
    """Latency of a few runs: tests are not where it is read."""
    monkeypatch.setattr(evaluate_module, "_WARM_UP", 1)
    monkeypatch.setattr(evaluate_module, "_LATENCY_RUNS", 5)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("home"))


@pytest.fixture
def suite():
    return load_suite("main").model_copy(update={"frames": 6, "render_size": 48})


@pytest.fixture
def few_people(monkeypatch):
    """The registry with three test people; training people stay as they are."""
    registry = load_registry()
    split = registry.splits["synthetic"].model_copy(
        update={"test": registry.splits["synthetic"].test[:PEOPLE], "counts": {}}
    )
    few = registry.model_copy(update={"splits": {"synthetic": split}})
    monkeypatch.setattr(splits_module, "load_registry", lambda: few)
    return few


@pytest.fixture
def run(few_people, suite, store, tmp_path):
    """The main job, on an avatar without textures unless another is asked for: captures are made in half the time."""

    def go(floors=False, results=tmp_path, suite=suite, reuse=False, decoder="blendshape", **asked):
        request = Request(suite=suite, budget="smoke", decoder=decoder, **asked)
        harness = Harness(catalogue(), store, results, device=torch.device("cpu"))
        return harness.run(request, floors=floors, reuse=reuse)

    return go


@pytest.mark.slow
def test_the_default_method_is_measured_beside_the_floors(run, tmp_path):
    outcome = run(floors=True, decoder="upm")
    result = outcome.result
    assert result.key.components.decoder.id == "ufe/upm"
    assert result.complete and len(result.subjects) == PEOPLE
    assert set(result.summary) == {"photometric_l1", "mesh_l2", "lf_mesh_l2", "mouth_shape", "gaze"}
    assert [floor.key.components.encoder.id for floor in outcome.floors] == ["ufe/neutral", "ufe/mean"]
    assert load_result(outcome.path) == result
    assert result.key.budget.name == "smoke" and not result.key.budget.released
    assert result.cost.anchors == 6 and result.cost.encode_ms.p50 > 0
    assert result.key.components.calibrator.id == "ufe/late_fusion"
    assert len(list(tmp_path.rglob("*.json"))) == 3


def test_the_same_command_gives_the_same_numbers(run, tmp_path):
    first, second = run(results=tmp_path / "a").result, run(results=tmp_path / "b").result
    assert first.run_id == second.run_id
    assert first.subjects == second.subjects and first.summary == second.summary


def test_suites_of_other_people_metrics_and_sizes_share_nothing_that_differs(suite, store, tmp_path, monkeypatch):
    """A leaderboard may hold suites of one's own that differ in their part alone, or, edited, in what is measured."""
    registry = load_registry()
    test = registry.splits["synthetic"].test
    split = registry.splits["synthetic"].model_copy(update={"test": test[:2], "subjects": test[2:3], "counts": {}})
    two = registry.model_copy(update={"splits": {"synthetic": split}})
    monkeypatch.setattr(splits_module, "load_registry", lambda: two)
    harness = Harness(catalogue(), store, tmp_path, device=torch.device("cpu"))
    own = suite.model_copy(update={"name": "own", "frames": 2, "metrics": ("mesh_l2",)})
    ready = [
        harness.ready(Request(suite=own.model_copy(update=changes), encoder="neutral", budget="smoke"))
        for changes in ({}, {"part": "subjects"}, {"metrics": ("gaze",)}, {"render_size": 32})
    ]
    people = [[capture.subject for capture in one.material.captures] for one in ready]
    assert people == [list(test[:2]), list(test[2:3]), list(test[:2]), list(test[:2])]
    assert [list(one.stage.metrics) for one in ready] == [["mesh_l2"], ["mesh_l2"], ["gaze"], ["mesh_l2"]]
    assert [one.stage.camera.width for one in ready] == [48, 48, 48, 32]
    assert ready[1].stage is ready[0].stage and ready[2].material.captures[0] is ready[0].material.captures[0]


def test_any_source_is_measured_on_the_people_that_it_holds_out_itself(suite, store, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    plugins = [*entry_points(group="ufe.plugins"), EntryPoint("acme-lab", "lab_headset", "ufe.plugins")]
    harness = Harness(Catalogue(plugins), store, tmp_path, device=torch.device("cpu"))
    own = suite.model_copy(update={"name": "lab", "split": "acme/lab"})
    result = harness.run(
        Request(suite=own, source="acme/lab", budget="smoke", decoder="blendshape"), floors=False
    ).result
    assert [subject.id for subject in result.subjects] == ["S005", "S006"]
    assert result.key.split.id == "acme/lab.test" and result.key.budget.people == result.training.subjects <= 4
    for names in ({"calibrator": "late_fusion"}, {"encoder": "mean"}):
        released = [
            harness.described(Request(suite=one, source=source, **names)).released
            for one, source in ((suite, "synthetic"), (own, "acme/lab"))
        ]
        assert released[0] is not None and released[1] is None, "what was released learned from others"
    with pytest.raises(DataError, match=r"'synthetic' is of 'ufe/synthetic', not of 'acme/lab'.*'acme/lab'"):
        harness.run(Request(suite=suite, source="acme/lab", budget="smoke", decoder="blendshape"))


def test_a_floor_that_fails_is_recorded_and_stops_no_method(run, suite, tmp_path, monkeypatch):
    floor = Harness._floor

    def fails(self, request, name):
        if name == "mean":
            raise RuntimeError("no mean")
        return floor(self, request, name)

    with monkeypatch.context() as patch:
        patch.setattr(Harness, "_floor", fails)
        outcome = run(floors=True, calibrator="none")
    assert outcome.result.complete and outcome.failed == {"mean": "RuntimeError: no mean"}
    assert [one.key.components.encoder.id for one in outcome.floors] == ["ufe/neutral"]
    (record,) = (tmp_path / suite.id / "failures").glob("*.json")
    assert load_failure(record).method == "mean" and load_failure(record).cause == "RuntimeError: no mean"
    assert run(floors=True, calibrator="none").failed == {} and not record.exists(), "it is over"


def test_a_metric_that_fails_is_named(run, monkeypatch):
    from ufe_metrics.errors import MeshL2

    def errors(self, predicted, truth):
        raise ValueError("no such vertex")

    monkeypatch.setattr(MeshL2, "errors", errors)
    with pytest.raises(MethodError, match="metric 'mesh_l2' failed: ValueError: no such vertex"):
        run(encoder="neutral")


@pytest.mark.slow
def test_a_result_comes_out_again_from_the_file_of_its_weights(run, suite, store, tmp_path, monkeypatch):
    result = run(calibrator="none").result
    digest = result.key.weights.sha256
    file = tmp_path / "mine.safetensors"
    shutil.copy(next(path for path in store.root.rglob("*.safetensors") if sha256_file(path) == digest), file)
    monkeypatch.setattr(rerun_module, "load_suite", lambda name: suite)
    monkeypatch.setattr(harness_module, "trained", None)
    elsewhere = run(calibrator="none", train=True, weights=file, results=tmp_path / "elsewhere").result
    assert (elsewhere.run_id, elsewhere.subjects) == (result.run_id, result.subjects)
    assert elsewhere.command == "ufe bench --encoder univ --calibrator none --decoder blendshape --budget smoke --train"
    with pytest.raises(ConfigError, match=r"with other options than are asked for: give --set training.steps=12"):
        run(calibrator="none", weights=file, overrides={"training": {"steps": 9}})
    tensors, spec = load_weights(file)
    elsewhere = {**spec["training"], "source": "acme/lab"}
    for record, message in (({}, "does not say how it was trained"), (elsewhere, "was trained on 'acme/lab', not on")):
        save_weights(tmp_path / "odd.safetensors", tensors, {**spec, "training": record})
        with pytest.raises(ConfigError, match=message):
            run(calibrator="none", weights=tmp_path / "odd.safetensors")
    harness = Harness(catalogue(), store, tmp_path, device=torch.device("cpu"))
    found = rerun(result, harness, weights=file)
    assert found.agrees and found.compared >= PEOPLE * 5 and found.changed == ()
    file.write_bytes(b"another")
    with pytest.raises(ArtifactError, match=f"must begin with {digest[:12]}"):
        rerun(result, harness, weights=file)


def test_the_truth_scores_zero(run, monkeypatch):
    """Drive the avatars with the labels themselves: every error vanishes."""

    def perfect(encoder, captures, number, device, enrolment):
        capture = captures[number]
        truth = {"e": torch.from_numpy(capture.expression), "g": torch.from_numpy(capture.gaze)}
        encoder.position = 0

        def encode(frames, calibration):
            from ufe_core.types import Encoding

            rows = slice(encoder.position, encoder.position + len(frames.images))
            encoder.position = rows.stop
            return Encoding(truth["e"][rows], truth["g"][rows])

        object.__setattr__(encoder, "encode", encode)

    monkeypatch.setattr(evaluate_module, "enroll", perfect)
    monkeypatch.setattr(harness_module, "measure_cost", lambda *a, **k: run_cost)
    run_cost = _cost()
    result = run(encoder="neutral").result
    for name, summary in result.summary.items():
        assert summary.worst == pytest.approx(0, abs=1e-4), name


def test_a_person_the_encoder_fails_on_is_recorded_and_the_others_go_on(run, monkeypatch):
    """And is measured again the next time: what failed may have been the machine."""
    original = evaluate_module._measure

    def fails_once(encoder, stage, capture, *rest):
        if capture.subject == load_registry().splits["synthetic"].test[1]:
            raise ContractError("NaN in rows [3].")
        return original(encoder, stage, capture, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "_measure", fails_once)
        result = run(encoder="neutral").result
    assert not result.complete and len(result.subjects) == PEOPLE - 1
    assert result.missing[0].reason == "NaN in rows [3]."
    assert run(encoder="neutral", reuse=True).result.complete


def test_what_is_no_fault_of_the_encoders_ends_the_measuring(run, monkeypatch):
    monkeypatch.setattr(evaluate_module, "_measure", Mock(side_effect=torch.OutOfMemoryError("The GPU's is used up.")))
    with pytest.raises(torch.OutOfMemoryError):
        run(encoder="neutral")


def test_floors_are_measured_once(run, tmp_path, monkeypatch):
    run(floors=True, encoder="neutral")
    calls = []
    original = harness_module.evaluate
    monkeypatch.setattr(harness_module, "evaluate", lambda *a, **k: calls.append(1) or original(*a, **k))
    run(floors=True, encoder="mean")
    assert calls == []


def test_floors_are_measured_on_what_the_method_is_measured_on(run):
    """And a floor that is asked for under a condition is not answered with the ordinary one."""
    outcome = run(floors=True, encoder="neutral", overrides={"source": {"condition": "glasses"}})
    for result in (outcome.result, *outcome.floors):
        assert result.key.components.source.config["condition"] == "glasses", result.command
    ordinary = run(encoder="neutral").result
    assert outcome.result.run_id != ordinary.run_id and "glasses" in outcome.result.command


def test_a_floor_that_is_asked_for_otherwise_is_no_floor(run):
    outcome = run(floors=True, encoder="mean", overrides={"training": {"seed": 3}})
    assert outcome.result.key.seed == 3 and "training.seed=3" in outcome.result.command
    assert [floor.key.seed for floor in outcome.floors] == [0, 0]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("train", "training"), ("test people", "rendering test people"), ("measuring mean", "measuring mean"),
        ("labels of test people, dim", "labelling of test people, dim"), ("geometry", "decoding labels"),
    ],
)  # fmt: skip
def test_what_is_being_done_is_told_in_words(tmp_path, stage, words):
    harness = Harness(catalogue(), Store(tmp_path), tmp_path, device=torch.device("cpu"))
    harness.tell(Progress(stage, 1, 2, {}))
    assert harness.doing == words


def test_a_studys_floors_have_no_rows_options(build_result, monkeypatch, tmp_path):
    """The first row of Figure 19 learns from 8 people; the mean that all rows stand beside is of everybody, and of
    frames such as all rows learn from.
    """
    asked = []
    monkeypatch.setattr(harness_module, "resolve", lambda catalogue, request, device: request)
    monkeypatch.setattr(Harness, "_measure", lambda self, request, **_: asked.append(request) or build_result())
    fig19 = load_suite("fig19")
    harness = Harness(catalogue(), Store(tmp_path), tmp_path, device=torch.device("cpu"))
    harness.floors(request_of(fig19, fig19.row("univ_8"), {"training": {"frames": 5}}))
    assert [request.overrides for request in asked] == [{"training": {"frames": 5, "own_instants": True}}] * 2


def test_people_that_methods_are_trained_on_are_not_measured(run, suite):
    with pytest.raises(RegistryError, match=r"measures 'synthetic\.all', people that methods are trained on"):
        run(encoder="neutral", suite=suite.model_copy(update={"part": "all"}))
    with pytest.raises(RegistryError, match="No split 'syntetic'"):
        run(encoder="neutral", suite=suite.model_copy(update={"split": "syntetic"}))


def test_anchors_of_ones_own_and_the_size_of_ones_own_suite_are_in_the_key(run, suite, tmp_path):
    usual = run(encoder="neutral").result.key
    assert usual.data.anchors is None and usual.data.render_size is None
    own = suite.model_copy(update={"name": "own"})
    own._file = "own.toml"
    key = run(encoder="neutral", suite=own, anchors=("neutral", "smile")).result.key
    assert key.data.anchors == () and key.data.render_size == suite.render_size, "the floor looks at none"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_peak_memory_is_of_what_comes_after():
    cpu = torch.device("cpu")
    evaluate_module.forget_peak_memory(cpu)
    with mmap.mmap(-1, 400 << 20) as large:  # what an array leaves free may stay with the process
        large.write(bytes(400 << 20))
    before = evaluate_module.peak_memory_mb(cpu)
    evaluate_module.forget_peak_memory(cpu)
    assert evaluate_module.peak_memory_mb(cpu) < before - 300


def test_a_wrong_request_is_refused_before_any_work(run):
    with pytest.raises(UnknownComponentError, match="univ"):
        run(encoder="unvi")
    with pytest.raises(ConfigError, match="backbone"):
        run(overrides={"encoder": {"bakbone": "resnet18"}})
    with pytest.raises(ConfigError, match="leave --calibrator out"):
        run(encoder="mean", calibrator="late_fusion")
    with pytest.raises(DataError, match="jaw_opn.*jaw_open"):
        run(anchors=("neutral", "jaw_opn"))


def test_two_metrics_of_one_short_name_are_refused(suite):
    class Plugin:
        name, value, dist = "acme", "acme", None

        def load(self):
            class Module:
                @hookimpl
                def register_components(self, register):
                    register(ComponentSpec(1, "metric", "acme/gaze", "m:G", ComponentConfig, "Gaze, otherwise"))

            return Module()

    found = Catalogue([*entry_points(group="ufe.plugins"), Plugin()])
    both = suite.model_copy(update={"metrics": ("gaze", "acme/gaze")})
    with pytest.raises(RegistryError, match="'ufe/gaze' and 'acme/gaze': results tell metrics by their short names"):
        resolve_module.resolve(found, Request(suite=both, encoder="neutral"), torch.device("cpu"))


def test_why_a_method_has_no_result_is_kept_until_it_has_one(run, monkeypatch, tmp_path):
    def breaks(*args, listener, **kwargs):
        listener(Progress("train", 3, 12, {}))
        raise RuntimeError("no gradient\n  at all")

    with monkeypatch.context() as patch:
        patch.setattr(harness_module, "trained", breaks)
        with pytest.raises(MethodError, match="^neutral failed while training: RuntimeError: no gradient at all$"):
            run(encoder="neutral")
    (path,) = tmp_path.rglob("failures/*.json")
    failure = load_failure(path)
    assert (failure.suite, failure.method, failure.stage) == (load_suite("main").id, "neutral", "training")
    assert (
        failure.cause == "RuntimeError: no gradient at all"
        and failure.command == "ufe bench --encoder neutral --decoder blendshape --budget smoke"
    )
    run(encoder="neutral")
    assert not list(tmp_path.rglob("failures/*.json"))


def test_what_the_user_got_wrong_leaves_no_record(run, tmp_path):
    with pytest.raises(ConfigError):
        run(overrides={"encoder": {"bakbone": "resnet18"}})
    assert not list(tmp_path.rglob("*.json"))


def test_damaged_released_weights_are_named_and_refused(run, few_people, monkeypatch, tmp_path):
    damaged = tmp_path / "weights.safetensors"
    damaged.write_bytes(b"\x10\x00\x00")
    table = {
        "id": "ufe/univ.test", "component": "ufe/univ", "calibrator": "ufe/late_fusion", "decoder": "ufe/upm",
        "source": "ufe/synthetic", "budget": "smoke", "file": "ufe_universal/weights/x.safetensors",
        "sha256": "0" * 64, "bytes": 3, "license": "Apache-2.0", "command": "ufe train",
    }  # fmt: skip
    released = Registry.model_validate({"schema": 1, "weights": [table]}).weights
    few = few_people.model_copy(update={"weights": released})
    monkeypatch.setattr(splits_module, "load_registry", lambda: few)
    monkeypatch.setattr(resolve_module, "released_for", lambda recipe: released[0])
    monkeypatch.setattr(harness_module, "packaged_file", lambda reference: damaged)
    with pytest.raises(ArtifactError, match=r"ufe/univ\.test.*weights\.safetensors.*--train"):
        run(calibrator="late_fusion")
    assert run(calibrator="late_fusion", train=True).result.key.weights.origin == "trained"


def test_the_recorded_command_asks_for_the_same_again(suite):
    request = Request(
        suite=suite, calibrator="none", budget="smoke", anchors=("neutral", "jaw_open"), train=True,
        overrides={"training": {"steps": 5}, "encoder": {"stride": 8}},
    )  # fmt: skip
    assert request.command() == (
        "ufe bench --encoder univ --calibrator none --budget smoke --anchors neutral,jaw_open "
        "--set encoder.stride=8 --set training.steps=5 --train"
    )
    assert request.training_command().endswith("--set training.steps=5")


@pytest.mark.slow
def test_the_command_line_prints_json_and_one_line_errors(monkeypatch, capsys, few_people, suite, tmp_path):
    from ufe_bench import suite as suite_module
    from ufe_core.cli.main import main

    monkeypatch.setenv("UFE_HOME", str(tmp_path))
    monkeypatch.setattr(suite_module, "load_suite", lambda name: suite)
    with pytest.raises(SystemExit) as done:
        main(["bench", "--encoder", "neutral", "--decoder", "blendshape", "--budget", "smoke", "--no-floors", "--json"])
    assert done.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "ufe.result/2" and len(printed["subjects"]) == PEOPLE
    with pytest.raises(SystemExit) as done:
        main(["bench", "--set", "encoder.bakbone=resnet18"])
    assert done.value.code == 1
    message = capsys.readouterr().err.strip()
    assert "bakbone" in message and "backbone" in message and "\n" not in message


def test_an_unknown_suite_names_the_known_ones():
    from ufe_core.errors import RegistryError

    with pytest.raises(RegistryError, match=r"'mian'.*main"):
        load_suite("mian")
    assert isinstance(load_suite("main"), Suite)


def test_a_suite_of_ones_own_is_a_file(tmp_path):
    from ufe_core.errors import RegistryError
    from ufe_core.registry import packaged_file

    own, text = tmp_path / "own.toml", packaged_file("ufe_bench/suites/main.toml").read_text()
    own.write_text(text)
    with pytest.raises(RegistryError, match="called 'main' as one of ufe's own: rename it"):
        load_suite(str(own))
    own.write_text(text.replace('name = "main"', 'name = "lips"').replace('"gaze"', '"acme/corners"'))
    suite = load_suite(str(own))
    assert suite.id == f"lips@{load_suite('main').version}"
    assert shlex.split(Request(suite=suite).command())[-2:] == ["--suite", str(own)]
    own.write_text(own.read_text() + "steps = { cpu = 300 }\n")
    with pytest.raises(RegistryError, match="'steps' is for studies, and there are no rows"):
        load_suite(str(own))
    with pytest.raises(RegistryError, match=r"nowhere\.toml' cannot be read"):
        load_suite(str(tmp_path / "nowhere.toml"))


def _cost():
    from ufe_bench.schema import Cost

    return Cost(
        encode_ms=None,
        enroll_ms=None,
        parameters=None,
        peak_memory_mb=None,
        device="cpu",
        threads=1,
        anchors=0,
        size=64,
    )


@pytest.mark.slow
def test_people_are_also_measured_by_segment_in_clips_and_under_conditions(run, suite, monkeypatch):
    more = suite.model_copy(
        update={"clips": 2, "clip_frames": 4, "conditions": ("dim",), "condition_frames": 2, "condition_clips": 1,
                "metrics": ("mesh_l2", "jitter", "missed_closures")}
    )  # fmt: skip
    result = run(encoder="neutral", suite=more).result
    assert result.complete, "whoever shuts no lips has no closure to miss"
    assert {"mesh_l2", "jitter"} <= set(result.summary) <= {"mesh_l2", "jitter", "missed_closures"}
    for subject in result.subjects:
        assert set(subject.slices) >= {"condition:dim", "segment:expression"}
        assert set(subject.slices["segment:expression"]) == {"mesh_l2"}, "clips are of speech"
        assert subject.slices["segment:speech"]["jitter"] == subject.metrics["jitter"]
        assert {"mesh_l2", "jitter"} <= set(subject.slices["condition:dim"]) <= set(result.summary)
        assert 0 < subject.slices["condition:dim"]["jitter"] != subject.metrics["jitter"], "other clips"
        under = [name for name in subject.slices if name.partition(":")[0] in ("light", "donning")]
        assert len(under) == 2 and all(subject.slices[name] == subject.metrics for name in under)
        assert subject.metrics["jitter"] > 0, "a resting face does not move as the truth does"
    assert all(set(values) == {"mesh_l2"} for values in result.segments.values()) and len(result.segments) > 2
    assert not result.hypothetical


@pytest.mark.slow
def test_a_study_is_drawn_frames_of_every_method_and_how_it_learned(few_people, suite, store, tmp_path, monkeypatch):
    rows = (
        SuiteRow(name="univ", title="Universal", encoder="univ", calibrator="late_fusion"),
        SuiteRow(name="still", title="At rest", encoder="neutral"),
        SuiteRow(name="mean", title="Another", encoder="mean", repeats="still"),
    )
    study_suite = suite.model_copy(
        update={"rows": rows, "base": "univ", "conditions": ("dim",), "condition_frames": 2, "floors": ()}
    )
    harness = Harness(catalogue(), store, tmp_path, device=torch.device("cpu"))
    study = run_study(harness, study_suite, budget="smoke")
    drawn, searched, draw, encoded, frame = [], [], figures_module.draw, figures_module._encoded, figures_module._frame

    def found(ready, pick, base):
        searched.append((pick, set()))
        return frame(ready, pick, base)

    def fails_in_the_dark(ready, whom, rows):
        name = type(ready.encoder).__name__
        if len(rows) > 1:
            searched[-1][1].add(name)  # for the frame to show
        if whom.condition == "dim" and name.startswith("Neutral"):
            raise RuntimeError("no light")
        return encoded(ready, whom, rows)

    def remember(cameras, truth, panels):
        drawn.append((truth, panels))
        return draw(cameras, truth, panels)

    monkeypatch.setattr(figures_module, "_frame", found)
    monkeypatch.setattr(figures_module, "_encoded", fails_in_the_dark)
    monkeypatch.setattr(figures_module, "draw", remember)
    monkeypatch.setattr(figures_module, "_SIZE", 64)
    page = figures_module.write_figures(harness, study, tmp_path / "some")
    assert page == tmp_path / "some" / "index.html"
    used = {(pick.by, pick.wanted): names for pick, names in searched}
    assert used["still", "worst"] == {"NeutralEncoder"} and len(used["still", "behind"]) == 2
    assert "NeutralEncoder" not in used["univ", "median"] | used["univ", "worst"]
    text, results = page.read_text(), [cell.result for cell in study.cells]
    shown = re.findall("<figcaption><b>(.*?)</b><br>(.*?)</figcaption>", text)
    assert len(list(page.parent.glob("*.png"))) == len(drawn) == len(shown) == len({what for what, _ in shown})
    reasons = [reason for _, found in shown for reason in found.split("<br>")]
    assert sum(reason.count(";") + 1 for reason in reasons) == 8, "five, one condition, and two of the other row"
    lit = {reason: panels for (what, found), (_, panels) in zip(shown, drawn, strict=True)
           for reason in found.split("<br>") if "dim" not in what}  # fmt: skip
    (dark,) = [panels for (what, _), (_, panels) in zip(shown, drawn, strict=True) if "condition dim" in what]
    for truth, panels in drawn:
        if panels is dark:
            continue
        assert [panel.title for panel in panels] == ["Universal", "At rest"], "no row that repeats another"
        for panel in panels:
            assert panel.image.shape == truth.shape and panel.image.std() > 0.05, "a face"
            moved = 255 * abs(panel.image.astype(float) - truth).max(-1)
            assert 0 < panel.value < 40 and panel.error[moved > 40].mean() > panel.error[moved < 4].mean()

    def of(why):
        (panels,) = [panels for reason, panels in lit.items() if reason.startswith(why)]
        return [panel.value for panel in panels]

    assert of("Person of least error, median")[0] < of("Person of greatest error, median")[0]
    assert of("Person of median error, median")[0] < of("Person of median error, worst")[0]
    behind = of("Furthest behind the base row: At rest")
    assert behind[1] - behind[0] >= max(still.value - univ.value for univ, still in lit.values()) - 1e-6
    assert [panel.title for panel in dark][:2] == ["Universal", "At rest: failed"]
    assert all(panel.error is None for panel in dark[2:]), "that code on other people's avatars"
    assert results[0].run_id in text and results[2].run_id not in text and "budget smoke." in text

    report = write_report(study, tmp_path / study.suite.id)
    learned = report.read_text().partition("## How rows learned")[2]
    assert "| Universal " in learned and "| At rest " not in learned
    assert (report.parent / "learning.png").read_bytes().startswith(b"\x89PNG")
