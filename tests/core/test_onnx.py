"""Exported encoders in ONNX Runtime against torch, and what a broken or foreign file says."""

import importlib
import json

import numpy as np
import pytest
from click.testing import CliRunner

from ufe_core.cli.onnx import export
from ufe_core.errors import ArtifactError, ContractError, UfeError
from ufe_core.inference.onnx import OnnxEncoder, difference, export_onnx
from ufe_core.types import Calibration

from .test_inference import CALIBRATORS, encoder_of, frames

BACKBONE = "resnet10t"  # few operations: it takes seconds less to export


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_every_calibrator_is_exported_with_its_calibration_as_an_input(calibrator, tmp_path):
    encoder, calibration = encoder_of(calibrator, backbone=BACKBONE)
    path = tmp_path / "encoder.onnx"
    export_onnx(encoder, calibration, path)
    assert difference(path, encoder, calibration, frames(3)) < 1e-4
    model = OnnxEncoder(path)
    assert model.about["cameras"] == list(encoder.needs.cameras) and model.about["encoder"] == "this"
    assert model.about["anchors"] == list(encoder.needs.anchors) and model.about["code_space"]["size"] == 9
    expression, gaze = model(frames(1).numpy(), calibration)
    assert expression.shape == (1, 9) and np.linalg.norm(gaze.reshape(2, 3), axis=1) == pytest.approx(1, abs=1e-5)
    if calibrator == "late_fusion":
        other = Calibration("this", {name: value + 0.5 for name, value in calibration.tensors.items()})
        assert difference(path, encoder, other, frames(2)) < 1e-4
        theirs, _ = model(frames(1).numpy(), other)
        assert np.abs(theirs - expression).max() > 1e-3, "another wearer's calibration gives other codes"


def test_a_model_refuses_a_calibration_of_another_encoder(tmp_path):
    encoder, calibration = encoder_of("late_fusion", backbone=BACKBONE)
    export_onnx(encoder, calibration, tmp_path / "encoder.onnx")
    stranger = Calibration("that", calibration.tensors)
    with pytest.raises(ContractError, match="made by encoder that, not by this"):
        OnnxEncoder(tmp_path / "encoder.onnx")(frames(1).numpy(), stranger)


def test_larger_batches_are_compared_and_what_is_no_number_is_infinitely_wrong(tmp_path):
    encoder, calibration = encoder_of("late_fusion", backbone=BACKBONE)
    path = tmp_path / "encoder.onnx"
    export_onnx(encoder, calibration, path, batch=2)
    assert difference(path, encoder, calibration, frames(3)) < 1e-4
    broken = Calibration("this", {name: value * float("nan") for name, value in calibration.tensors.items()})
    assert difference(path, encoder, broken, frames(2)) == float("inf")


def test_files_that_are_no_such_model_are_named(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist. 'ufe export onnx' writes one"):
        OnnxEncoder(tmp_path / "no.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"bad.onnx' is no encoder that ufe exported"):
        OnnxEncoder(tmp_path / "bad.onnx")


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    encoder, calibration = encoder_of("none")
    real = importlib.import_module

    def without(name, *rest):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UfeError, match=r"Package 'onnx' is not installed: pip install onnx onnxruntime onnxscript"):
        export_onnx(encoder, calibration, tmp_path / "encoder.onnx")


@pytest.mark.parametrize(
    ("more", "line"),
    [(["--encoder", "flnet"], "needs keypoints besides images"), (["--subject", "S999"], "S999")],
    ids=["encoder", "subject"],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_trained(ufe, tmp_path, monkeypatch, more, line):
    monkeypatch.setenv("UFE_HOME", str(tmp_path))
    code, _, err = ufe("export", "onnx", "--set", "training.steps=3", "--out", tmp_path / "live", *more)
    assert code == 1 and line in err
    assert not (tmp_path / "weights").exists() and not (tmp_path / "live").exists()


@pytest.mark.slow
def test_the_command_writes_a_model_and_a_calibration_and_says_how_far_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("UFE_HOME", str(tmp_path / "home"))
    quick = {"people": 3, "frames": 4, "frames_per_user": 2, "users": 2, "steps": 2, "render_frames": 0}
    asked = ["onnx", "--decoder", "blendshape", "--budget", "smoke", "--out", str(tmp_path / "live"), "--json",
             f"--set=encoder.backbone={BACKBONE}",
             *(f"--set=training.{name}={value}" for name, value in quick.items())]  # fmt: skip
    done = CliRunner().invoke(export, asked, catch_exceptions=False)
    report = json.loads(done.stdout)
    assert done.exit_code == 0 and report["largest_difference"] < 1e-4 and report["frames"] == 16
    model = OnnxEncoder(tmp_path / "live" / "encoder.onnx")
    kept = Calibration.load(tmp_path / "live" / "calibration.safetensors")
    assert kept.encoder == model.about["encoder"] and set(report["inputs"]) == set(kept.tensors)
