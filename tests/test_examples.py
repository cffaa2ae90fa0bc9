"""The example plugin works as the README says, installed or not."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from ufe_core.plugins import Catalogue, catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.types import AnchorSet, CodeSpace, FrameBatch

EXAMPLE = Path(__file__).parents[1] / "examples" / "nearest_anchor"


@pytest.fixture
def with_example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    installed = [EntryPoint(r.name, f"{r.name.replace('-', '_')}.plugin", "ufe.plugins") for r in catalogue().reports]
    yield Catalogue([*installed, EntryPoint("ufe-nearest-anchor", "ufe_nearest_anchor.plugin", "ufe.plugins")])
    for name in [name for name in sys.modules if name.startswith("ufe_nearest_anchor")]:
        del sys.modules[name]


def test_the_example_is_an_encoder_that_reads_its_anchors(with_example):
    from ufe_core.head import ACTIONS

    recipe = resolve_recipe(with_example, encoder="nearest-anchor", budget="smoke")
    assert len(recipe.anchors) == 6 and recipe.calibrator is None
    cameras = ("left_eye", "right_eye", "left_mouth", "right_mouth")
    encoder = recipe.make_encoder(cameras, CodeSpace("arkit-52", 52, ACTIONS))
    anchors = torch.randint(0, 256, (1, 6, 4, 64, 64), dtype=torch.uint8)
    calibration = encoder.enroll(AnchorSet.complete(anchors, recipe.anchors, cameras))
    encoding = encoder.encode(FrameBatch.single_user(anchors[0], cameras), calibration)
    jaw = encoding.expression[:, ACTIONS.index("jawOpen")]
    assert int(jaw.argmax()) == recipe.anchors.index("jaw_open") and jaw.max() > 0.9
