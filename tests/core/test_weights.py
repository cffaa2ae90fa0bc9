import json

import pytest
import safetensors.torch
import torch

from ufe_core import ComponentConfig
from ufe_core.errors import ArtifactError
from ufe_core.weights import FORMAT, difference, load_weights, save_weights, sha256_file

SPEC = {"component": "acme/fovea", "config": {"cells": 16}, "cameras": ["left", "right"]}


@pytest.fixture
def tensors():
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return {
        "transposed": base.t(),
        "alias": base,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    }


@pytest.fixture
def saved(tmp_path, tensors):
    file = tmp_path / "fovea.safetensors"
    save_weights(file, tensors, SPEC)
    return file


def test_what_is_saved_is_loaded(tmp_path, tensors):
    file = tmp_path / "new" / "fovea.safetensors"
    digest = save_weights(file, tensors, SPEC)
    assert digest == sha256_file(file)
    loaded, spec = load_weights(file, digest)
    assert spec == SPEC
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor.detach())


def test_the_first_difference_of_two_specifications_is_named():
    one = {"id": "ufe/univ", "config": {"cells": 8, "width": [1, 2]}}
    assert difference("encoder", one, dict(one)) is None
    assert difference("encoder", one, {**one, "config": {"cells": 8, "width": [1, 3]}}) == (
        "encoder.config.width: [1, 2], not [1, 3]"
    )
    assert difference("encoder", one, {**one, "new": True}) == "encoder.new: None, not True"
    assert difference("encoder", one, {"id": "ufe/flnet", "config": {}}) == "encoder.id: 'ufe/univ', not 'ufe/flnet'"
    assert difference("encoder", {"a": None}, {}) == "encoder: {'a': None}, not {}", "not said is not None"
    assert difference("encoder", None, one) == f"encoder: None, not {one}"


def test_equal_weights_give_equal_bytes(tmp_path, tensors):
    backwards = dict(reversed(tensors.items()))
    first = save_weights(tmp_path / "a", tensors, SPEC)
    assert first == save_weights(tmp_path / "b", backwards, dict(reversed(SPEC.items())))
    assert first != save_weights(tmp_path / "c", tensors, {**SPEC, "seed": 1})


def test_a_config_model_may_stand_in_the_spec(tmp_path):
    class Options(ComponentConfig):
        cells: int = 3

    save_weights(tmp_path / "a", {}, {"component": "acme/fovea", "config": Options()})
    assert load_weights(tmp_path / "a") == ({}, {"component": "acme/fovea", "config": {"cells": 3}})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"config": {}}, "spec lacks 'component'"),
        ({"component": "a/b"}, "spec lacks 'config'"),
        ({"component": "a/b", "config": {"x": float("nan")}}, "it is nan"),
    ],
)
def test_incomplete_spec_is_refused(tmp_path, spec, message):
    with pytest.raises(ArtifactError, match=message):
        save_weights(tmp_path / "a", {}, spec)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 5, 8, 9, 100, -40, -1])
def test_truncated_file_is_named(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ArtifactError) as caught:
        load_weights(saved)
    text = str(caught.value)
    assert text.startswith(f"Weights '{saved}' are truncated: ")
    assert text.endswith("Delete it and run the command again to make or fetch it anew.")


def test_flipped_bit_is_found_without_an_outside_checksum(saved):
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    saved.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="are damaged: the tensors are not those that were saved"):
        load_weights(saved)


def test_other_weights_than_expected(saved):
    with pytest.raises(ArtifactError, match="are not the expected ones: sha256 .*, expected 000000000000…"):
        load_weights(saved, "0" * 64)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a pickle of some other tool", b"<html>404 not found</html>", b"\x02" + b"\0" * 7 + b"[]",
        b"hello\n",
    ],
)  # fmt: skip
def test_foreign_file_is_named(tmp_path, content):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"x\.safetensors' is not a safetensors file\. Name a file that ufe wrote; if"
    ):
        load_weights(file)


def test_tensors_of_another_tool(tmp_path):
    file = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, file)
    with pytest.raises(ArtifactError, match=r"holds tensors but no ufe specification.*\. Name a file that ufe wrote"):
        load_weights(file)


def test_another_format_version_says_what_to_do(tmp_path):
    file = tmp_path / "x.safetensors"
    safetensors.torch.save_file({}, file, metadata={FORMAT: json.dumps({"version": 9})})
    with pytest.raises(ArtifactError, match="have format version 9, this ufe reads 1. Use the ufe that made them"):
        load_weights(file)


def test_unreadable_specification(tmp_path):
    file = tmp_path / "x.safetensors"
    safetensors.torch.save_file({}, file, metadata={FORMAT: "{"})
    with pytest.raises(ArtifactError, match="their specification cannot be read"):
        load_weights(file)


def test_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match="do not exist. Train or fetch them first"):
        load_weights(tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="Cannot read '.*x.safetensors': No such file"):
        sha256_file(tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="Cannot read weights"):
        load_weights(tmp_path)
