"""The rules of the interfaces: every first-party component keeps to them, and each is broken by what breaks it."""

import os
import re
import subprocess
import sys

import conformance_examples as examples
import pytest

from ufe_core.components import KINDS, ComponentSpec
from ufe_core.conformance import examined, rules_of
from ufe_core.conformance.examine import Candidate, _found
from ufe_core.errors import ConfigError
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
        ("acme-univ", "encoder", "Encoder 'ufe/univ' is there already: the short name 'univ' would be ambiguous"),
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
