"""What a maintainer would object to, on a published result that is changed in one place; and a result made again."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ufe_bench.evaluate import PROTOCOL, Evaluation
from ufe_bench.harness import Again, Description, Harness
from ufe_bench.rerun import changed_choices, request_from, rerun
from ufe_bench.resolve import floor_request
from ufe_bench.schema import MissingFrames, RunKey, Trial, load_result, make_result
from ufe_bench.study_rows import request_of
from ufe_bench.submission import objections
from ufe_bench.suite import load_suite
from ufe_core.errors import DataError, MethodError
from ufe_core.plugins import catalogue
from ufe_core.recipe import subjects_digest
from ufe_core.registry import load_registry
from ufe_core.store import Store

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / load_suite("main").id
(PUBLISHED,) = (load_result(path) for path in RESULTS.glob("ufe__univ__late_fusion/*.json"))
(TRAINED,) = (load_result(path) for path in RESULTS.glob("ufe__univ__none/*.json"))
(FLOOR,) = (load_result(path) for path in RESULTS.glob("ufe__neutral/*.json"))


@dataclass
class Here:
    """A harness that has the published captures, and measures what `subjects` says."""

    data: dict = field(default_factory=dict)
    subjects: tuple = PUBLISHED.subjects
    missing: tuple = ()
    key: RunKey = PUBLISHED.key
    parameters: int = PUBLISHED.cost.parameters
    unlabelled: tuple | None = None
    learns: str | None = None
    catalogue = catalogue()

    def described(self, request):
        """What the published one says of itself, as the real harness says of what is asked for."""
        (like,) = (one for one in (PUBLISHED, TRAINED, FLOOR) if one.command == request.command())
        return Description(
            split=like.key.split,
            people=load_registry().splits["synthetic"],
            unlabelled=self.unlabelled,
            seed=like.key.seed,
            components=like.key.components,
            data=like.key.data.model_copy(update=self.data),
            metrics=like.metrics,
            learns=self.learns or ("nothing" if like is FLOOR else "weights"),
            hypothetical=False,
            released=SimpleNamespace(sha256=PUBLISHED.key.weights.sha256) if like is PUBLISHED else None,
            apart=dict(like.key.budget.overrides),
        )

    def again(self, request, people=None, *, weights_file=None):
        chosen = [subject for subject in self.subjects if people is None or subject.id in people]
        evaluation = Evaluation(chosen, list(self.missing), dict(PUBLISHED.segments))
        return Again(self.key, evaluation, self.parameters)


def changed(result, *, subjects=None, **fields):
    """A result with other parts that does not contradict itself."""
    parts = {name: fields.pop(name, getattr(result, name)) for name in ("key", "training", "trials", "missing")}
    same = ("metrics", "cost", "environment", "created", "seconds", "command", "segments", "hypothetical")
    kept = {name: getattr(result, name) for name in same}
    return make_result(parts.pop("key"), result.subjects if subjects is None else subjects, **(kept | parts | fields))


def key(result, **parts):
    return result.key.model_copy(update=parts)


def told(result, harness=None, **options):
    return [(one.rule, one.line) for one in objections(result, harness or Here(), floor=FLOOR, **options)]


@pytest.mark.parametrize("result", [PUBLISHED, TRAINED, FLOOR], ids=["released", "trained", "floor"])
def test_published_results_are_sound(result):
    assert told(result) == []


def alike(result, metric):
    return [subject.model_copy(update={"metrics": {**subject.metrics, metric: 1.0}}) for subject in result.subjects]


def scaled(result, factor):
    return [
        subject.model_copy(update={"metrics": {name: factor * value for name, value in subject.metrics.items()}})
        for subject in result.subjects
    ]


CASES = {
    "another version of the suite": ("suite", "this ufe has", lambda r: changed(r, key=key(r, suite="main@1"))),
    "a suite that is not there": ("suite", "No suite 'own'", lambda r: changed(r, key=key(r, suite="own@1"))),
    "other people": (
        "key", "split.sha256 is not what its command asks for",
        lambda r: changed(r, key=key(r, split=r.key.split.model_copy(update={"sha256": "0" * 64}))),
    ),
    "three people of its own choice": (
        "people", "It has 3 of 32 people",
        lambda r: changed(r, key=key(r, split=r.key.split.model_copy(update={"subjects": 3})), subjects=r.subjects[:3]),
    ),
    "fewer frames": (
        "people", "have other than 48 frames",
        lambda r: changed(r, subjects=[r.subjects[0].model_copy(update={"frames": 4}), *r.subjects[1:]]),
    ),
    "another seed than it says": (
        "key", "seed is not what its command asks for", lambda r: changed(r, key=key(r, seed=3)),
    ),
    "another protocol": ("key", "measured by protocol 1, and", lambda r: changed(r, key=key(r, protocol=1))),
    "an option that it does not tell": (
        "key", "components.encoder.config.stride",
        lambda r: changed(r, key=key(r, components=r.key.components.model_copy(update={
            "encoder": r.key.components.encoder.model_copy(
                update={"config": {**r.key.components.encoder.config, "stride": 8}})
        }))),
    ),
    "a metric turned round": (
        "key", "metrics are not those of the suite",
        lambda r: changed(r, metrics={**r.metrics, "mesh_l2": r.metrics["mesh_l2"].model_copy(
            update={"higher_is_better": True})}),
    ),
    "a rank that it may not have": ("key", "'hypothetical' must be false", lambda r: changed(r, hypothetical=True)),
    "no budget": (
        "budget", "says that nothing was trained",
        lambda r: changed(r, training=None, key=key(r, budget=FLOOR.key.budget)),
    ),
    "weights that nobody released": (
        "budget", "not those released with this ufe",
        lambda r: changed(r, key=key(r, budget=r.key.budget.model_copy(update={"released": True}))),
    ),
    "a command that asks for nothing": (
        "command", "not made by a 'ufe bench'", lambda r: changed(r, command="ufe bench --help"),
    ),
    "a command that cannot be read": (
        "command", "not made by a 'ufe bench'", lambda r: changed(r, command="ufe bench --encoder 'univ"),
    ),
    "one person less": ("people", "31 of 32 subjects", lambda r: changed(r, subjects=r.subjects[1:])),
    "a stranger": (
        "people", "S000 are not in split",
        lambda r: changed(r, subjects=[r.subjects[0].model_copy(update={"id": "S000"}), *r.subjects[1:]]),
    ),
    "a person who failed": (
        "people", "not complete",
        lambda r: changed(r, subjects=r.subjects[1:],
                          missing=[MissingFrames(subject=r.subjects[0].id, frames=48, reason="NaN")]),
    ),
    "the same number for everybody": (
        "numbers", "gaze is 1 for everybody", lambda r: changed(r, subjects=alike(r, "gaze")),
    ),
    "too good": ("numbers", "too good for what a headset sees", lambda r: changed(r, subjects=scaled(r, 0.01))),
    "other training people": (
        "training", "on other people than the first 234",
        lambda r: changed(r, training=r.training.model_copy(update={"subjects_sha256": "0" * 64})),
    ),
    "no word of training": ("training", "does not say who", lambda r: changed(r, training=None)),
    "a longer training than its command asks for": (
        "budget", "tells of the training options steps=1500, and its command asks for steps=2000",
        lambda r: changed(r, key=key(r, budget=r.key.budget.model_copy(update={"overrides": {"steps": 1500}}))),
    ),
    "steps that are not those it was trained with": (
        "budget", "steps of its budget are not those that it was trained with",
        lambda r: changed(r, key=key(r, budget=r.key.budget.model_copy(update={"steps": 20}))),
    ),
    "a search that its suite does not make": (
        "training", "has no trial of gaze=9.0",
        lambda r: changed(r, trials=[Trial(training={"gaze": 9.0}, score=0.1, metrics={}, weights="w")]),
    ),
    "another avatar": (
        "key", "components.decoder.config.weights",
        lambda r: changed(r, key=key(r, components=r.key.components.model_copy(update={
            "decoder": r.key.components.decoder.model_copy(
                update={"config": {**r.key.components.decoder.config, "weights": "0" * 64}})
        }))),
    ),
    "an option that is called a version": (
        "key", "components.encoder.config.version",
        lambda r: changed(r, key=key(r, components=r.key.components.model_copy(update={
            "encoder": r.key.components.encoder.model_copy(
                update={"config": {**r.key.components.encoder.config, "version": 8}})
        }))),
    ),
    "a secret option": (
        "budget", "differs from budget 'cpu' in gaze",
        lambda r: changed(r, training=r.training.model_copy(update={"config": {**r.training.config, "gaze": 99.0}})),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_told(case):
    rule, words, change = CASES[case]
    found = told(change(TRAINED))
    assert any(one == rule and words in line for one, line in found), found


SET_APART = ("S1000", "S1001")


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"people": 2, "people_sha256": subjects_digest(SET_APART)}, None),
        ({"people": 2, "people_sha256": subjects_digest(("S1000", "S001"))}, "pre-trained on other people"),
        ({"people": 0, "people_sha256": subjects_digest(())}, "pre-trained on other people"),
        ({"weights": "mine"}, "does not say on whom it was pre-trained"),
    ],
)
def test_pre_training_on_others_than_those_set_aside_is_told(record, line):
    result = changed(TRAINED, training=TRAINED.training.model_copy(update={"pretraining": record}))
    said = [text for _, text in told(result, Here(unlabelled=SET_APART))]
    assert (said == []) if line is None else (len(said) == 1 and line in said[0])
    assert told(result) == [], "one that takes no steps, such as weights of others, learns from nobody here"


UNTRAINED = key(TRAINED, budget=TRAINED.key.budget.model_copy(update={"name": "none", "steps": 0, "overrides": {}}))


@pytest.mark.parametrize("learns", ["nothing", "statistics"])
def test_a_method_that_takes_no_step_is_held_against_the_resting_face_too(learns):
    perfect = changed(TRAINED, key=UNTRAINED, subjects=scaled(TRAINED, 0.0), trials=())
    said = [line for rule, line in told(perfect, Here(learns=learns)) if rule == "numbers"]
    assert any("gaze is 0 for everybody" in line for line in said) and any("too good" in line for line in said)


def test_statistics_of_other_people_than_those_of_training_are_told():
    foreign = TRAINED.training.model_copy(update={"subjects_sha256": "0" * 64})
    assert told(changed(TRAINED, key=UNTRAINED, trials=()), Here(learns="statistics")) == []
    ((rule, line),) = told(changed(TRAINED, key=UNTRAINED, training=foreign, trials=()), Here(learns="statistics"))
    assert rule == "training" and "on other people than the first 234" in line


@pytest.mark.parametrize("times", [{"p50": 0.0}, {"p50": 9.0, "p99": 8.0}])
def test_times_that_no_clock_shows_are_told(times):
    cost = TRAINED.cost.model_copy(update={"encode_ms": TRAINED.cost.encode_ms.model_copy(update=times)})
    ((rule, line),) = told(changed(TRAINED, cost=cost))
    assert rule == "numbers" and "no clock shows that" in line


@pytest.mark.parametrize("other", [{"version": 2}, {"version": None}])
def test_captures_of_another_source_are_told(other):
    here = Here({"fingerprint": "0" * 64, **other})
    assert ("data", True) in [(rule, "another version" in line) for rule, line in told(PUBLISHED, here)]


def test_other_code_that_gives_the_same_captures_is_no_objection():
    assert not list(told(PUBLISHED, Here({"fingerprint": "0" * 64})))


def nudged(result, share):
    """One person's gaze error, changed by a share of it."""
    first, *others = result.subjects
    return [
        first.model_copy(update={"metrics": {**first.metrics, "gaze": first.metrics["gaze"] * (1 + share)}}),
        *others,
    ]


def test_without_a_floor_nothing_can_be_too_good():
    assert [one.rule for one in objections(TRAINED, Here())] == ["numbers"]


def test_one_changed_number_is_caught_by_measuring_again():
    tampered = changed(PUBLISHED, subjects=nudged(PUBLISHED, -0.01))
    assert told(tampered) == [], "nothing shows it from outside"
    ((rule, line),) = told(tampered, verify=32)
    assert rule == "verify" and line.startswith(f"gaze of {PUBLISHED.subjects[0].id}")
    assert told(PUBLISHED, verify=4) == []
    drawn = {frozenset(one.line for one in objections(tampered, Here(), floor=FLOOR, verify=8)) for _ in range(40)}
    assert len(drawn) == 2, "who is measured again is not known beforehand"


def test_a_changed_number_of_the_method_is_caught():
    ((rule, line),) = told(PUBLISHED, Here(parameters=PUBLISHED.cost.parameters + 1), verify=2)
    assert rule == "verify" and line.startswith("parameters of the method is")


def test_weights_that_had_another_training_than_the_result_says_are_told():
    longer = key(PUBLISHED, budget=PUBLISHED.key.budget.model_copy(update={"steps": 9000}))
    ((rule, line),) = told(PUBLISHED, Here(key=longer), verify=2)
    assert rule == "verify" and line == "budget.steps is not what its weights were trained with."


def test_weights_trained_elsewhere_that_came_out_otherwise_ask_for_the_file():
    anew = key(PUBLISHED, weights=PUBLISHED.key.weights.model_copy(update={"sha256": "1" * 64}))
    *_, (rule, line) = told(PUBLISHED, Here(key=anew, subjects=tuple(nudged(PUBLISHED, 0.01))), verify=32)
    assert rule == "verify" and "--weights FILE" in line


def test_a_method_that_fails_when_measured_again_is_told(monkeypatch):
    def fails(self, *_, **__):
        raise MethodError("univ failed while training: RuntimeError: no")

    monkeypatch.setattr(Here, "again", fails)
    assert told(PUBLISHED, verify=2) == [
        ("verify", "It cannot be measured again: univ failed while training: RuntimeError: no")
    ]


def test_a_person_who_cannot_be_measured_again_is_told():
    gone = MissingFrames(subject="S001", frames=48, reason="RuntimeError: no")
    ((rule, line),) = told(PUBLISHED, Here(missing=(gone,)), verify=2)
    assert rule == "verify" and "S001 cannot be measured again: RuntimeError: no" in line


def test_a_person_who_could_not_be_measured_then_either_is_no_disagreement():
    gone = MissingFrames(subject="S001", frames=48, reason="RuntimeError: no")
    others = tuple(subject for subject in PUBLISHED.subjects if subject.id != "S001")
    result = changed(PUBLISHED, subjects=others, missing=(gone,), segments={})
    assert rerun(result, Here(subjects=others, missing=(gone,))).agrees
    now_there = rerun(result, Here()).disagreements
    assert {(one.subject, one.recorded) for one in now_there} == {("S001", None)}


def test_a_studys_floor_is_asked_for_again_as_its_suite_has_it():
    suite = load_suite("table4")
    floor = floor_request(request_of(suite, suite.rows[0], {}), "mean")
    assert floor.overrides == {"training": {"own_instants": True}}
    result = FLOOR.model_copy(update={"key": key(FLOOR, suite=suite.id), "command": floor.command()})
    assert request_from(result, catalogue()) == floor


def test_made_again_numbers_are_compared_one_by_one():
    whole = rerun(PUBLISHED, Here())
    assert whole.agrees and whole.largest == 0 and whole.compared > 32 * 5 and whole.changed == ()
    for share, agrees in ((1e-4, True), (0.01, False)):
        comparison = rerun(PUBLISHED, Here(subjects=tuple(nudged(PUBLISHED, share))))
        assert comparison.agrees == agrees and comparison.largest == pytest.approx(share, rel=1e-3)
    assert not rerun(PUBLISHED, Here(subjects=())).agrees, "nothing compared is no agreement"
    dropped = PUBLISHED.subjects[0].model_copy(update={"slices": {}})
    (first, *_) = rerun(PUBLISHED, Here(subjects=(dropped, *PUBLISHED.subjects[1:]))).disagreements
    assert first.subject == dropped.id and first.measured is None, (
        "a number that is not there again is none that agrees"
    )


def test_one_changed_digit_of_a_segment_is_caught():
    name, values = next(iter(PUBLISHED.segments.items()))
    segments = {**PUBLISHED.segments, name: {**values, "gaze": values["gaze"] * 1.01}}
    everybody = [subject.id for subject in PUBLISHED.subjects]
    for people in (None, everybody):
        (one,) = rerun(changed(PUBLISHED, segments=segments), Here(), people=people).disagreements
        assert (one.subject, one.metric) == ("everybody", f"gaze ({name})")
    assert rerun(changed(PUBLISHED, segments=segments), Here(), people=everybody[1:]).agrees


@pytest.mark.parametrize(
    "command", ["ufe bench --help", "ufe train", "ufe bench 'x", "ufe bench --suite table3", "ufe bench --nonsense",
                "ufe bench --suite table3 --row x", "ufe bench --suite table3 --row none --row pooling"],
)  # fmt: skip
def test_a_command_that_is_none_is_told_in_one_line(command):
    with pytest.raises(DataError, match=r"was not made by a 'ufe bench'|is of suite"):
        request_from(PUBLISHED.model_copy(update={"command": command}), catalogue())


def test_choices_that_are_others_now_are_named_by_their_place():
    other = PUBLISHED.key.model_copy(update={"seed": 7})
    assert changed_choices(PUBLISHED.key, other) == ("seed",)
    first, *rest = PUBLISHED.key.components.metrics
    newer = PUBLISHED.key.components.model_copy(
        update={"metrics": (first.model_copy(update={"code_sha256": "0" * 64}), *rest)}
    )
    assert changed_choices(PUBLISHED.key, key(PUBLISHED, components=newer)) == ("components.metrics.0.code_sha256",)


def test_weights_that_were_released_before_are_no_objection_and_others_are(tmp_path):
    """As if Table 1 had been measured with an earlier detector; a file that nobody released is told."""
    (path,) = RESULTS.parent.glob("table1@*/ufe__geometry_guided/*.json")
    measured = load_result(path)
    result = changed(measured, key=key(measured, suite=load_suite("table1").id, protocol=PROTOCOL))
    harness = Harness(catalogue(), Store(tmp_path), tmp_path, device=torch.device("cpu"))

    def told(sha256):
        detector = result.key.components.detector
        own = detector.model_copy(update={"config": {**detector.config, "weights": sha256}})
        changed_key = key(result, components=result.key.components.model_copy(update={"detector": own}))
        return [
            one.line for one in objections(changed(result, key=changed_key), harness) if "config.weights" in one.line
        ]

    released = next(one for one in load_registry().weights if one.component == "ufe/heatmap")
    assert not told(released.sha256) and not any(told(one) for one in released.superseded)
    assert "components.detector.config.weights is not what its command asks for" in told("0" * 64)[0]


def test_numbers_that_come_out_again_of_something_else_do_not_agree():
    """Newer code, and weights that were trained anew, may be; another seed, training or release may not."""
    weights, budget = TRAINED.key.weights, TRAINED.key.budget
    for now, agrees in (
        (key(TRAINED, seed=7), False),
        (key(TRAINED, budget=budget.model_copy(update={"steps": 9000})), False),
        (key(TRAINED, weights=weights.model_copy(update={"sha256": "0" * 64})), True),
        (key(TRAINED, data=TRAINED.key.data.model_copy(update={"fingerprint": "0" * 64})), True),
        (key(TRAINED, budget=budget.model_copy(update={"overrides": {**budget.overrides, "geometry": 2.0}})), False),
        (
            key(
                TRAINED,
                components=TRAINED.key.components.model_copy(update={"pretraining": TRAINED.key.components.encoder}),
            ),
            False,
        ),
    ):
        here = Here(key=now, subjects=TRAINED.subjects, parameters=TRAINED.cost.parameters)
        found = rerun(changed(TRAINED, segments={}), here)
        assert found.agrees == agrees and not found.disagreements and bool(found.foreign) != agrees
    released = PUBLISHED.key.weights.model_copy(update={"sha256": "0" * 64})
    assert rerun(PUBLISHED, Here(key=key(PUBLISHED, weights=released))).foreign == ("weights.sha256",)


#: Every file that is published, of a suite as it is now or of one as it was before.
FILES = sorted(RESULTS.parent.glob("*/*/*.json"))
NOW = [path for path in FILES if path.parts[-3] == load_suite(path.parts[-3].partition("@")[0]).id]
BEFORE = [path for path in FILES if path not in NOW]


@pytest.mark.parametrize("path", NOW, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_command_of_a_published_result_asks_for_what_it_says(path):
    result = load_result(path)
    request = request_from(result, catalogue())
    assert request.command() == result.command and request.enrolment == result.key.data.enrolment


@pytest.mark.parametrize("path", BEFORE, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_published_result_of_a_suite_as_it_was_is_whole_and_says_which_ufe_measures_it_again(path):
    result = load_result(path)
    with pytest.raises(DataError, match=rf"is of suite '{path.parts[-3]}'.* commit {result.environment.commit[:7]}\b"):
        request_from(result, catalogue())


@pytest.mark.parametrize("path", NOW[::3], ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_maintainer_has_no_objection_to_what_is_published(path, tmp_path):
    """By the harness itself, which finds out what each command asks for; every third one, as that takes its time."""
    result = load_result(path)
    floors = [load_result(one) for one in path.parents[1].glob("ufe__neutral/*.json")]
    floor = next((one for one in floors if one.key.data == result.key.data), floors[0] if floors else None)
    harness = Harness(catalogue(), Store(tmp_path), tmp_path, device=torch.device("cpu"))
    found = objections(result, harness, floor=floor)
    assert [(one.rule, one.line) for one in found] == []
