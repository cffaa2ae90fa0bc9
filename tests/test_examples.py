"""The example plugin works as the README says, installed or not."""

import json
import os
import site
import subprocess
import sys
import venv
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from ufe_core.plugins import Catalogue, catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.training.data import statistics_of
from ufe_core.types import AnchorSet, CodeSpace, FrameBatch, Labels

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "nearest_anchor"


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


# The main job on three of the test people, without floors; all of them would take the suite's whole time.
FEW_PEOPLE = """
import sys
from pathlib import Path
import torch
from ufe_bench import harness
from ufe_core import splits
from ufe_bench.request import Request
from ufe_bench.suite import load_suite
from ufe_core.plugins import catalogue
from ufe_core.registry import load_registry
from ufe_core.store import Store

registry = load_registry()
split = registry.splits["synthetic"]
split = split.model_copy(update={"test": split.test[:3], "counts": {}})
few = registry.model_copy(update={"splits": {"synthetic": split}})
splits.load_registry = lambda: few
suite = load_suite("main").model_copy(update={"frames": 6, "render_size": 48})
bench = harness.Harness(catalogue(), Store(), Path(sys.argv[1]), device=torch.device("cpu"))
print(bench.run(Request(suite=suite, encoder="nearest-anchor", budget="smoke"), floors=False).path)
"""


@pytest.mark.slow
def test_the_example_as_a_wheel_in_a_fresh_environment_lands_on_a_leaderboard(tmp_path):
    """Wheels of ufe and of the example, outside the checkout; what ufe depends on comes from this environment."""

    def run(*words):
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(word) for word in words], cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env=clean | {"UFE_HOME": str(tmp_path / "home")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    wheels, fresh = tmp_path / "wheels", tmp_path / "fresh"
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT, EXAMPLE)
    venv.create(fresh, symlinks=True)
    python = fresh / "bin" / "python"
    (packages,) = fresh.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", *wheels.glob("*.whl"))

    ufe = fresh / "bin" / "ufe"
    listed = json.loads(run(ufe, "plugins", "--json"))
    (plugin,) = [one for one in listed["plugins"] if one["name"] == "ufe-nearest-anchor"]
    assert plugin["status"] == "ok"
    assert run(ufe, "plugins", "check", "nearest-anchor").endswith(" 0 broken\n")
    written = Path(run(python, "-c", FEW_PEOPLE, tmp_path / "results").split()[-1])
    assert json.loads(written.read_text())["environment"]["packages"]["ufe-nearest-anchor"]
    run(ufe, "leaderboard", "build", "--results", tmp_path / "results", "--out", tmp_path / "board")
    (page,) = (tmp_path / "board" / "suites").iterdir()
    assert "nearest-anchor" in page.read_text() and str(ROOT) not in run(
        python, "-c", "import ufe_core; print(ufe_core)"
    )
