import pytest

from ufe_core import ComponentConfig, ComponentSpec
from ufe_core.errors import ConfigError, PluginError, UnknownComponentError
from ufe_core.plugins import Catalogue, Provenance, catalogue


def only_report(found, name):
    (report,) = [report for report in found.reports if report.name == name]
    return report


@pytest.mark.parametrize(
    ("module", "status", "words"),
    [
        (
            "import_error",
            "broken",
            ["Plugin 'acme-import_error' 0.2.0 failed to load: ModuleNotFoundError:", "a_module_that_nobody"],
        ),
        ("exits", "broken", ["SystemExit: no licence found"]),
        ("misspelt_hook", "broken", ["unknown hook 'register_component'"]),
        ("extra_argument", "broken", ["device"]),
        ("no_hook", "broken", ["'no_hook' has no function register_components marked with @hookimpl"]),
        (
            "wrong_interface",
            "incompatible",
            [
                "Plugin 'acme-wrong_interface' 0.2.0 is written for interface 2, this ufe has 1. "
                "Install a release of 'acme-ufe' for interface 1, or a newer ufe."
            ],
        ),
        ("registers_twice", "broken", ["it registers encoder 'acme/twin' twice"]),
        ("raising_hook", "broken", ["RuntimeError: the second half is missing"]),
        ("bad_spec", "broken", ["Component 'acme/typo': kind is 'encodr'; expected one of source, detector"]),
        ("not_a_spec", "broken", ["register() was given dict; expected a ComponentSpec"]),
    ],
)
def test_broken_plugin_is_reported_and_touches_no_other(make_catalogue, module, status, words):
    found = make_catalogue(module, "good")
    report = only_report(found, f"acme-{module}")
    assert report.status == status
    assert report.components == ()
    assert "\n" not in report.reason
    for word in words:
        assert word in report.reason
    assert bool(report.traceback) == (status == "broken")
    assert only_report(found, "acme-good").status == "ok"
    assert [spec.id for spec in found.all("encoder")] == ["acme/fovea"]


def test_clash_disables_the_id_in_both_and_nothing_else(make_catalogue):
    found = make_catalogue("good@first-dist", "duplicate_id@second-dist")
    assert [spec.id for spec in found.all("encoder")] == ["rival/retina"]
    assert [spec.id for spec in found.all("calibrator")] == ["acme/linear"]
    for report in found.reports:
        assert report.status == "broken"
        assert "first-dist" in report.reason
        assert "second-dist" in report.reason
    for name in ("acme/fovea", "fovea"):
        for ask in (lambda name=name: found.get("encoder", name), lambda name=name: found.find(name)):
            with pytest.raises(PluginError, match="Encoder 'acme/fovea' is claimed by .*so neither can be used"):
                ask()


def test_get_by_short_name_and_full_id(make_catalogue):
    found = make_catalogue("good")
    assert found.get("encoder", "fovea") is found.get("encoder", "acme/fovea")
    assert found.find("fovea").kind == "encoder"
    assert found.provenance(found.find("fovea")) == Provenance("acme-ufe", "0.2.0")
    assert [spec.kind for spec in found.all()] == ["source", "encoder", "calibrator", "metric"]


def test_ambiguous_short_names_ask_for_more(make_catalogue):
    found = make_catalogue("good")
    with pytest.raises(UnknownComponentError, match="calibrator 'acme/linear', metric 'acme/linear'.*add --kind"):
        found.find("linear")
    assert found.find("linear", "metric").kind == "metric"


class OneEye:
    """A plugin of some owner with an encoder called `eye`."""

    value, dist = "somewhere", None

    def __init__(self, owner):
        self.name = owner

    def load(self):
        from ufe_core import hookimpl

        owner = self.name

        class Module:
            @hookimpl
            def register_components(self, register):
                register(ComponentSpec(1, "encoder", f"{owner}/eye", "m:E", ComponentConfig, "An eye"))

        return Module()


def test_a_short_name_stays_ufes_whoever_else_takes_it():
    found = Catalogue([OneEye("acme"), OneEye("ufe"), OneEye("zeta")])
    assert found.get("encoder", "eye").id == found.find("eye").id == "ufe/eye"
    assert found.get("encoder", "acme/eye").id == found.find("acme/eye").id == "acme/eye"


def test_two_owners_of_one_short_name_ask_for_the_full_id():
    found = Catalogue([OneEye("one"), OneEye("two")])
    assert [report.status for report in found.reports] == ["ok", "ok"]
    with pytest.raises(UnknownComponentError, match="More than one encoder is called 'eye': one/eye, two/eye"):
        found.get("encoder", "eye")
    assert found.get("encoder", "two/eye").id == "two/eye"
    assert found.provenance(found.get("encoder", "one/eye")) == Provenance("unknown", "0")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("foeva", "No encoder 'foeva'. Did you mean 'fovea'? Known encoders: acme/fovea."),
        ("acme/foeva", "No encoder 'acme/foeva'. Did you mean 'acme/fovea'?"),
        ("linear", "No encoder 'linear'. 'acme/linear' is a calibrator."),
        ("zzz", "No encoder 'zzz'. Known encoders: acme/fovea. 'ufe plugins --kind encoder' shows all 1."),
    ],
)
def test_unknown_name_suggests(make_catalogue, name, expected):
    with pytest.raises(UnknownComponentError) as caught:
        make_catalogue("good").get("encoder", name)
    assert expected in str(caught.value)


def test_unknown_kind_suggests(make_catalogue):
    with pytest.raises(UnknownComponentError, match="'encodr' is not a kind of component .*Did you mean 'encoder'"):
        make_catalogue("good").get("encodr", "fovea")


def test_a_needed_broken_plugin_is_named(make_catalogue):
    found = make_catalogue("good", "raising_hook", "import_error@kestrel")
    with pytest.raises(
        UnknownComponentError, match="the second half is missing. 'ufe plugins --why acme-raising_hook'"
    ):
        found.get("encoder", "half")
    with pytest.raises(UnknownComponentError, match="Plugin 'kestrel-import_error' 0.2.0 failed to load"):
        found.get("encoder", "kestrel/eye")
    with pytest.raises(UnknownComponentError, match="Not loaded: acme-raising_hook, kestrel-import_error"):
        found.get("encoder", "zzz")


def test_create_builds_config_and_passes_context(make_catalogue):
    found = make_catalogue("good")
    encoder = found.create("encoder", "fovea", {"cells": 4}, device="cpu")
    assert (encoder.config.cells, encoder.device) == (4, "cpu")
    assert found.create("encoder", "fovea", device="cpu").config.cells == 16
    with pytest.raises(ConfigError, match="Option 'cels' is not known to 'acme/fovea'"):
        found.create("encoder", "fovea", {"cels": 4}, device="cpu")


def test_a_target_that_cannot_be_imported_is_named(make_catalogue):
    found = make_catalogue("good")
    with pytest.raises(PluginError, match="Calibrator 'acme/linear' cannot be loaded: module 'good' has no 'Missing'"):
        found.create("calibrator", "linear")
    with pytest.raises(PluginError, match="Metric 'acme/linear' cannot be loaded from 'gone.away:Linear': ModuleNot"):
        found.create("metric", "linear")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interface": True}, "interface is True; expected a whole number >= 1"),
        ({"interface": 0}, "interface is 0"),
        ({"id": "fovea"}, "'fovea' is not of the form 'owner/name'"),
        ({"id": "Acme/Fovea"}, "not of the form 'owner/name'"),
        ({"target": "acme.fovea"}, "target is 'acme.fovea'; expected 'module:attribute'"),
        ({"config": dict}, "expected a ComponentConfig class"),
        ({"summary": " "}, "expected one line of text"),
    ],
)
def test_spec_validates_itself(change, message):
    facts = {
        "interface": 1,
        "kind": "encoder",
        "id": "acme/fovea",
        "target": "acme.fovea:Fovea",
        "config": ComponentConfig,
        "summary": "Fine",
    }
    assert ComponentSpec(**facts).name == "fovea"
    with pytest.raises(PluginError) as caught:
        ComponentSpec(**{**facts, **change})
    assert message in str(caught.value)


def test_the_installed_catalogue_is_made_once():
    assert catalogue() is catalogue()
