import hashlib

import numpy as np
import pytest

from ufe_core import registry as registry_module
from ufe_core.errors import RegistryError
from ufe_core.registry import Registry, check_registry, load_registry, packaged_file, registry_path

SUBJECTS = [f"S{index:03d}" for index in range(266)]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package `acme_weights` with one file."""
    folder = tmp_path / "acme_weights"
    (folder / "files").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('looking a file up must not import')")
    (folder / "files" / "a.safetensors").write_bytes(b"tensors")
    (folder / "files" / "good.toml").write_text("a = 1\n")
    (folder / "files" / "bad.toml").write_text("a = \n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def table(**change):
    return Registry.model_validate({"schema": 1, **change})


def weights(**change):
    return {
        "id": "acme/fovea.v1",
        "component": "acme/fovea",
        "source": "acme/rig",
        "budget": "cpu",
        "file": "acme_weights/files/a.safetensors",
        "sha256": hashlib.sha256(b"tensors").hexdigest(),
        "bytes": 7,
        "license": "CC0-1.0",
        "command": "ufe train",
        **change,
    }


def test_synthetic_split_is_the_stated_draw():
    registry = load_registry()
    drawn = np.random.Generator(np.random.PCG64(2024)).choice(266, 32, replace=False)
    assert registry.split("synthetic", "test") == tuple(SUBJECTS[index] for index in sorted(drawn))
    assert len(registry.split("synthetic", "train")) == 234
    assert set(registry.split("synthetic", "train")).isdisjoint(registry.split("synthetic", "test"))
    assert list(registry.split("synthetic", "all")) == SUBJECTS
    assert registry.splits["synthetic"].source == "ufe/synthetic"


def test_the_checkout_reads_its_own_registry():
    assert registry_path() == registry_module.checkout_root() / "registry.toml"


def test_a_wheel_reads_the_packed_registry(monkeypatch):
    monkeypatch.setattr(registry_module, "checkout_root", lambda: None)
    assert registry_path().parts[-2:] == ("ufe_core", "registry.toml")


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(RegistryError, match=r"No split 'dev' of 'ufe/synthetic' \(splits: train, test, all\)"):
        load_registry().split("synthetic", "dev")
    with pytest.raises(RegistryError, match=r"No split set 'real' \(known: synthetic\)"):
        load_registry().split("real", "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 2", "is invalid at 'schema'"),
        ("schema = 1\nextra = 1", "is invalid at 'extra': Extra inputs are not permitted"),
        ("schema = ", "cannot be read"),
        (
            'schema = 1\n[splits.x]\nsource = "a/b"\ntrain = ["S1"]',
            "'train' and 'test' must both name subjects",
        ),
        ('schema = 1\n[splits.x]\nsource = "a/b"', "give either 'train' and 'test', or 'subjects'"),
        ('schema = 1\n[[suites]]\nname = "m"\nsummary = "s"\nfile = "../x"', "is invalid at 'suites.0.file'"),
    ],
)
def test_invalid_registry_names_file_and_field(tmp_path, text, message):
    file = tmp_path / "registry.toml"
    file.write_text(text)
    with pytest.raises(RegistryError) as caught:
        load_registry(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_missing_registry(tmp_path):
    with pytest.raises(RegistryError, match="does not exist; the installation is incomplete"):
        load_registry(tmp_path / "registry.toml")


def test_check_finds_what_is_wrong_with_splits(make_catalogue):
    split = {
        "source": "a/b",
        "counts": {"train": 2, "test": 2},
        "train": ["S1", "S1", "S2"],
        "test": ["S2", "S3"],
    }
    assert check_registry(table(splits={"x": split}), make_catalogue()) == [
        "Split 'x': train names S1 more than once.",
        "Split 'x': train has 3 subjects, expected 2.",
        "Split 'x': S2 are in both train and test.",
    ]


def test_check_accepts_weights_that_agree(make_catalogue, package):
    assert check_registry(table(weights=[weights()]), make_catalogue("good")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "acme_weights/files/b.safetensors"}, "file 'acme_weights/files/b.safetensors' is missing"),
        ({"file": "no_such_package/b.safetensors"}, "package 'no_such_package', which is not installed"),
        ({"bytes": 8}, "has 7 bytes, expected 8"),
        ({"sha256": "0" * 64}, "expected 000000000000…"),
        ({"component": "acme/retina"}, "need encoder 'acme/retina', which no installed plugin registers"),
        ({"decoder": "acme/face"}, "need decoder 'acme/face', which no installed plugin registers"),
        ({"source": "acme/room"}, "need source 'acme/room', which no installed plugin registers"),
    ],
)
def test_check_finds_what_is_wrong_with_weights(make_catalogue, package, change, message):
    (problem,) = check_registry(table(weights=[weights(**change)]), make_catalogue("good"))
    assert problem.startswith("Weights 'acme/fovea.v1'")
    assert message in problem


def test_check_limits_what_is_released(make_catalogue, package):
    listed = [weights(id=f"acme/fovea.v{index}", bytes=13_000_000) for index in range(2)]
    assert "Released weights have 26000000 bytes together, more than 25000000." in check_registry(
        table(weights=listed), make_catalogue("good")
    )


def test_check_reads_suites(make_catalogue, package):
    suites = [{"name": n, "summary": "s", "file": f"acme_weights/files/{n}.toml"} for n in ("good", "bad", "none")]
    bad, missing = check_registry(table(suites=suites), make_catalogue())
    assert "Suite 'bad': file 'acme_weights/files/bad.toml' cannot be read" in bad
    assert missing == "Suite 'none': file 'acme_weights/files/none.toml' is missing."


def test_check_compares_listed_and_registered(make_catalogue):
    listed = [
        {"name": "x", "distribution": "ufe", "components": [{"kind": "encoder", "id": "acme/fovea"}]},
        {"name": "y", "distribution": "ufe", "components": [{"kind": "encoder", "id": "acme/lost"}]},
        {"name": "z", "distribution": "not-installed", "components": [{"kind": "encoder", "id": "far/away"}]},
    ]
    assert check_registry(table(plugins=listed), make_catalogue("good@ufe")) == [
        "Encoder 'acme/lost' is listed under 'y', but is not registered.",
        "Source 'acme/rig' is registered by 'ufe', but not listed.",
        "Calibrator 'acme/linear' is registered by 'ufe', but not listed.",
        "Metric 'acme/linear' is registered by 'ufe', but not listed.",
    ]


def test_a_component_that_is_listed_but_not_installed_is_pointed_to(make_catalogue, monkeypatch):
    known = [{"name": "far", "distribution": "far-ufe", "components": [{"kind": "encoder", "id": "far/away"}]}]
    monkeypatch.setattr(registry_module, "load_registry", lambda: table(plugins=known))
    with pytest.raises(Exception, match="Distribution 'far-ufe' has it: 'pip install far-ufe'"):
        make_catalogue("good").get("encoder", "away")


def test_packaged_file_imports_nothing(package):
    assert packaged_file("acme_weights/files/good.toml") == package / "files" / "good.toml"


def test_suites_of_the_checkout_lie_beside_the_harness():
    root = registry_module.checkout_root()
    found = packaged_file("ufe_bench/suites/main.toml")
    assert found.is_relative_to(root / "benchmarks")
