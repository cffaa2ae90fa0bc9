"""The rules of the interfaces: every first-party component keeps to them, and each is broken by what breaks it."""

import json
import os
import re
import subprocess
import sys

import conformance_examples as examples
import numpy as np
import pytest

from ufe_core.components import ComponentSpec
from ufe_core.conformance import examined, props, rules_of
from ufe_core.conformance.examine import Candidate, _found
from ufe_core.conformance.options import options_of, refusal
from ufe_core.errors import ConfigError
from ufe_core.head import load_head
from ufe_core.names import KINDS
from ufe_core.plugins import Catalogue, catalogue
from ufe_core.scaffold import new_plugin

#: What cannot be made from nothing: it is given a folder, or weights, that a checkout does not have.
NEED_FILES = ("ufe/ava256", "ufe/imagenet")
#: Why a rule is for other components of the kind.
FOR_OTHERS = ("it takes no steps", "it is trained")


def spec_of(kind, factory, config=None):
    options = config or (examples.Steps if kind == "pretraining" else examples.Options)
    target = f"conformance_examples:{factory.__name__}"
    return ComponentSpec(1, kind, "acme/example", target, options, "An example")


def finding(kind, factory, name, config=None):
    (rule,) = [rule for rule in rules_of(kind) if rule.name == name]
    return _found(Candidate(spec_of(kind, factory, config), catalogue()), rule)


@pytest.mark.parametrize("spec", catalogue().all(), ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_every_first_party_component_keeps_to_every_rule(spec):
    findings = list(examined([spec]))
    broken = [f"{one.rule}: {one.line}" for one in findings if one.outcome == "broken"]
    assert not broken, "\n".join(broken)
    untried = [f"{one.rule}: {one.line}" for one in findings if one.outcome == "not tried"
               and not one.line.startswith(FOR_OTHERS)]  # fmt: skip
    assert spec.id in NEED_FILES or not untried, "\n".join(untried)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_component_keeps_to_every_rule(kind):
    findings = list(examined([spec_of(kind, examples.GOOD[kind])]))
    assert not [f"{one.rule}: {one.line}" for one in findings if one.outcome == "broken"]
    assert sum(one.outcome == "kept" for one in findings) >= 5


@pytest.mark.parametrize(("kind", "rule"), examples.BROKEN, ids=lambda value: value)
def test_what_breaks_a_rule_is_told_what_to_mend(kind, rule):
    factory, words = examples.BROKEN[kind, rule]
    found = finding(kind, factory, rule)
    assert found.outcome == "broken" and words in found.line and "\n" not in found.line, found


def test_no_rule_is_without_an_example():
    rules = {(kind, rule.name) for kind in KINDS for rule in rules_of(kind) if rule.kind == kind}
    assert rules == set(examples.BROKEN)


@pytest.mark.parametrize(
    ("rule", "kind", "factory", "config", "words"),
    [
        ("options_explained", "encoder", "GoodEncoder", "Silent", "option width has no description"),
        ("options_explained", "encoder", "GoodEncoder", "Loose", "a typing error goes unnoticed"),
        ("of_its_kind", "metric", "GoodEncoder", "Options", "no subclass of Metric"),
        ("its_code_is_known", "encoder", "NamesNoModule", "Options", "no_such_module"),
    ],
)
def test_rules_of_all_kinds(monkeypatch, rule, kind, factory, config, words):
    lost = type("NamesNoModule", (examples.GoodEncoder,), {"code_modules": ("no_such_module",)})
    monkeypatch.setattr(examples, "NamesNoModule", lost, raising=False)
    found = finding(kind, getattr(examples, factory), rule, getattr(examples, config))
    assert found.outcome == "broken" and words in found.line, found


def test_metrics_are_tried_on_the_regions_of_the_head():
    topology, head = props.topology(), load_head().topology
    assert tuple(topology.regions) == tuple(head.regions)
    assert all(len(np.unique(rows)) == len(rows) > 0 for rows in topology.regions.values())
    for inner in head.regions:  # nested as there
        for outer in head.regions:
            if set(head.regions[inner]) <= set(head.regions[outer]):
                assert set(topology.regions[inner]) <= set(topology.regions[outer]), (inner, outer)
    outcomes = {finding("metric", examples.LooksAtLids, rule.name).outcome for rule in rules_of("metric")[4:]}
    assert outcomes == {"kept"}
    found = finding("metric", examples.LooksAtEyes, "truth_is_best")
    assert found.outcome == "broken" and "no region 'eyes'" in found.line


def test_an_encoder_for_any_cameras_is_shown_images_of_its_own():
    findings = list(examined([spec_of("encoder", examples.LooksAtEachCamera)]))
    assert not [f"{one.rule}: {one.line}" for one in findings if one.outcome == "broken"]


@pytest.mark.parametrize(
    ("kind", "factory", "rule", "says"),
    [
        ("encoder", examples.NeedsFiveCameras, "other_headsets_are_refused", "It needs five cameras."),
        ("pretraining", examples.NeedsFiveViews, "says_what_it_is", "It needs five views."),
    ],
)
def test_what_is_for_another_headset_is_not_tried(kind, factory, rule, says):
    findings = {one.rule.name: one for one in examined([spec_of(kind, factory)]) if one.rule.kind == kind}
    assert findings.pop(rule).outcome == "kept", "it needs no headset that it can use"
    for one in findings.values():
        assert one.outcome == "not tried", one
        assert one.line.startswith(FOR_OTHERS) or (
            one.line.startswith("it refuses the headset that rules are tried on (left_eye, ") and says in one.line
        ), one


@pytest.mark.parametrize(
    ("factory", "words"),
    [(examples.CountsCamerasBadly, "ValueError: not enough values"), (examples.RefusesTooLate, "needs five cameras")],
)
def test_only_a_clear_refusal_as_it_is_made_leaves_rules_untried(factory, words):
    found = finding("encoder", factory, "gives_codes")
    assert found.outcome == "broken" and words in found.line, found


def test_options_go_to_the_components_that_have_them():
    plain, rooted = (
        spec_of("source", examples.GoodSource),
        spec_of("source", examples.GoodSource, examples.NeedsAFolder),
    )
    given = {"source": {"root": "/data", "typo": 1}, "metric": {"width": 2}}
    assert options_of(plain, [plain, rooted], given) == {"typo": 1}
    assert options_of(rooted, [plain, rooted], given) == {"root": "/data", "typo": 1}
    (line,) = {one.line for one in examined([rooted]) if one.outcome == "not tried" and one.rule.kind == "source"}
    assert line == "Option 'root' of 'acme/example' has no default and must be set: text."
    assert not [
        one for one in examined([plain, rooted], options={"source": {"root": "/data"}}) if one.rule.kind == "source"
        and one.outcome != "kept"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_broken_for_lack_of_an_option(kind):
    findings = list(examined([spec_of(kind, examples.GOOD[kind], examples.NeedsAFolder)]))
    assert not [f"{one.rule}: {one.line}" for one in findings if one.outcome == "broken"]
    assert [one for one in findings if one.outcome == "not tried" and one.line.startswith("Option 'root'")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "has no default and must be set: text. Give --set source.root=VALUE."),
        ({"root": [1]}, "Option 'root' of 'acme/example' is [1]; expected text."),
        ({"root": "/data", "rot": 1}, "Option 'rot' is not known to 'acme/example' (options: root)."),
    ],
)
def test_options_that_do_not_do_are_named(options, words):
    candidate = Candidate(spec_of("source", examples.GoodSource, examples.NeedsAFolder), catalogue(), options)
    line = refusal(candidate, "--set")
    assert line.startswith("source acme/example could not be tried: ") and words in line
    assert ("Give --set" in line) == ("root" not in options)


def test_the_command_fails_where_an_option_is_lacking(ufe):
    code, out, told = ufe("plugins", "check", "ava256")
    assert code == 1 and out.endswith("kept, 0 broken, 8 not tried\n")
    assert "source ufe/ava256 could not be tried: Option 'root'" in told and "Give --set source.root=VALUE." in told
    code, out, told = ufe("plugins", "check", "ava256", "--json", "--set", "source.rot=/data")
    assert code == 1 and "Did you mean 'root'?" in told
    assert [one["outcome"] for one in json.loads(out)].count("not tried") == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words", "counts"),
    [
        ((), "Give --ufe-set source.root=VALUE.", "1 failed, 4 passed, 8 skipped"),
        (("--ufe-set", "source.root=/nonesuch"), "There is no folder '/nonesuch'", "8 failed, 4 passed"),
    ],
)
def test_pytest_gives_options_and_fails_where_one_is_lacking(tmp_path, options, words, counts):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ufe-plugin", "ufe-ava256", *options],
        cwd=tmp_path, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and words in done.stdout and counts in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ufe-set", "source.root=/data"], "--ufe-set sets options of the components of --ufe-plugin"),
        (["--ufe-plugin", "ufe-ava256", "--ufe-set", "sorce.root=/data"], "--ufe-set: 'sorce.root=/data' sets"),
    ],
)
def test_pytest_refuses_options_of_nothing(tmp_path, arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=tmp_path, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and f"ERROR: {words}" in done.stderr, done.stderr


def test_the_command_prints_what_was_found(ufe):
    code, out, _ = ufe("plugins", "check", "none", "--kind", "calibrator")
    assert code == 0 and out.startswith("calibrator ufe/none\n  kept ")
    assert re.search(r"\n\d+ kept, 0 broken\n$", out)
    code, out, told = ufe("plugins", "check", "nonesuch")
    assert code == 1 and "No component 'nonesuch'" in told and not out


@pytest.mark.slow
def test_new_plugins_of_every_kind_work_from_the_first_minute(tmp_path):
    """They keep to every rule, and their own tests pass, once installed; here their folders are put on the path."""
    folders = []
    for kind in KINDS:
        made = new_plugin(f"acme-{kind}-example", kind, tmp_path)
        package = f"acme_{kind}_example"
        info = made.folder / f"{package}-0.1.0.dist-info"  # as installing it would
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{kind}-example\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[ufe.plugins]\nacme-{kind}-example = {package}.plugin\n")
        assert all((made.folder / file).read_text().strip() for file in made.files)
        folders.append(str(made.folder))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rp", "-p", "no:cacheprovider", "--import-mode=importlib",
         "--ufe-plugin", "acme-metric-example", *folders],
        cwd=tmp_path, timeout=300, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path[1:]])},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "acme/metric-example metric-batches_add_up" in done.stdout, "the option's own tests"
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 6 * len(KINDS), "a package tests each rule by itself"


def test_a_new_plugin_takes_no_installed_packages_place(tmp_path):
    for name in ("torch", "json"):
        with pytest.raises(ConfigError, match=f"A Python package '{name}' is installed already"):
            new_plugin(name, "metric", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plugin_that_is_heavy_to_announce_is_told(tmp_path, monkeypatch):
    made = new_plugin("acme-heavy", "metric", tmp_path)
    file = made.folder / "acme_heavy" / "plugin.py"
    file.write_text(file.read_text().replace("from pydantic", "import torch\nfrom pydantic"))
    info = made.folder / "acme_heavy-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-heavy\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[ufe.plugins]\nacme-heavy = acme_heavy.plugin\n")
    monkeypatch.syspath_prepend(str(made.folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(made.folder), *sys.path]))
    found = Catalogue()
    spec = found.get("metric", "acme/heavy")
    (rule,) = [rule for rule in rules_of("metric") if rule.name == "announced_lightly"]
    finding = _found(Candidate(spec, found), rule)
    assert finding.outcome == "broken" and "'acme_heavy.plugin' imports torch" in finding.line, finding


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("acme-3d", "metric", "its class would be called '3d'"),
        ("acme-true", "metric", "its class would be called 'True'"),
        ("acme-capture", "source", "its class would be called 'Capture'"),
        ("acme-univ", "encoder", "Encoder 'ufe/univ' is there already: 'univ' alone would not mean yours"),
        ("Acme", "encoder", "write lower-case words joined by '-'"),
        ("ufe-mine", "encoder", "looks like a part of ufe itself"),
        ("acme-x", "encodr", "is no kind of component"),
        ("class", "encoder", "will not do as a name"),
    ],
)
def test_a_name_that_will_not_do_is_refused(tmp_path, name, kind, words):
    from ufe_core.errors import ConfigError

    with pytest.raises(ConfigError, match=re.escape(words)):
        new_plugin(name, kind, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_written_over(tmp_path):
    from ufe_core.errors import ConfigError

    new_plugin("acme-x", "metric", tmp_path)
    with pytest.raises(ConfigError, match="is there already"):
        new_plugin("acme-x", "metric", tmp_path)
