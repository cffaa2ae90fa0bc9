"""The example plugin works as the README says, installed or not."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from ufe_core.plugins import Catalogue, catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.training.data import statistics_of
from ufe_core.types import AnchorSet, CodeSpace, FrameBatch, Labels

EXAMPLE = Path(__file__).parents[1] / "examples" / "nearest_anchor"


@pytest.fixture
def with_example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    installed = [EntryPoint(r.name, f"{r.name.replace('-', '_')}.plugin", "ufe.plugins") for r in catalogue().reports]
    yield Catalogue([*installed, EntryPoint("ufe-nearest-anchor", "ufe_nearest_anchor.plugin", "ufe.plugins")])
    for name in [name for name in sys.modules if name.startswith("ufe_nearest_anchor")]:
        del sys.modules[name]


def test_the_example_is_an_encoder_that_reads_its_anchors(with_example):
    recipe = resolve_recipe(with_example, encoder="nearest-anchor", budget="smoke")
    assert len(recipe.anchors) == 6 and recipe.calibrator is None
    cameras = ("left_eye", "right_eye", "left_mouth", "right_mouth")
    encoder = recipe.make_encoder(cameras, CodeSpace("eight", 8))
    shown = torch.randn(3, 6, 8)  # three people's codes at six anchors
    people = [(Labels(one, torch.zeros(6, 6)), Labels(one, torch.zeros(6, 6))) for one in shown]
    encoder.fit_statistics(statistics_of(people, recipe.anchors))
    anchors = torch.randint(0, 256, (1, 6, 4, 64, 64), dtype=torch.uint8)
    whole = AnchorSet.complete(anchors, recipe.anchors, cameras)
    frames = FrameBatch.single_user(anchors[0], cameras)
    torch.testing.assert_close(encoder.encode(frames, encoder.enroll(whole)).expression, shown.mean(0))
    missing = AnchorSet(anchors, recipe.anchors, cameras, torch.zeros(1, 6, dtype=torch.bool))
    assert not encoder.encode(frames, encoder.enroll(missing)).expression.any()
