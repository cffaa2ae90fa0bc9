"""Two processes take the steps that one takes."""

import csv
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ufe_core.errors import ConfigError
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.training.loop import trained
from ufe_core.training.processes import ALONE, Processes

from .small import SMALL_ENCODER

TRAIN = load_registry().splits["synthetic"].train
OVERRIDES = {"training": {"frames": 4, "frames_per_user": 2, "users": 4, "steps": 8, "render_frames": 3, "warmup": 2,
                          "precision": "float32"}, "encoder": SMALL_ENCODER}  # fmt: skip

CHILD = """
import sys
import torch
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.training.loop import trained

torch.set_num_threads(1)
for overrides in eval(sys.argv[2]):
    recipe = resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", overrides=overrides)
    people = load_registry().splits["synthetic"].train
    print(trained(recipe, people, store=Store(sys.argv[1]), device=torch.device("cpu")).path)
"""

# Into one file from the first process, and into another from the second.
STATISTICS = """
import sys
import timm
import torch
from torch import nn
from ufe_core.training.processes import Processes

processes = Processes.join(torch.device("cpu"))
torch.manual_seed(0)
network = timm.create_model("resnet10t", in_chans=1, num_classes=3).double().train()
processes.share_statistics(network)
images = torch.randn(8, 1, 32, 32, dtype=torch.float64)[processes.share(8)]
network(images).square().mean().backward()
processes.average_gradients(network.parameters())
if processes.first:
    torch.save({"grads": [p.grad for p in network.parameters()], "state": network.state_dict()}, sys.argv[1])

both, first, none = (nn.Parameter(torch.full((2,), 3.0)) for _ in range(3))
scale = nn.BatchNorm1d(2, affine=False)
processes.share_statistics(scale)
rows = torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0], [6.0, 7.0]])[processes.share(4)]
loss = (both * scale(rows)).square().mean() + (first.sum() if processes.first else 0.0)
loss.backward()
processes.average_gradients([both, first, none])
if not processes.first:
    torch.save({"both": both.grad, "first": first.grad, "none": none.grad, "mean": scale.running_mean}, sys.argv[2])
processes.wait()
"""


def two_processes(script, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **pipes)
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    return ended


@pytest.fixture(scope="module")
def made_by_two(tmp_path_factory):
    files = [tmp_path_factory.mktemp("made") / f"{k}.pt" for k in range(2)]
    two_processes(STATISTICS, *files)
    return [torch.load(file, weights_only=True) for file in files]


def test_shared_statistics_and_gradients_are_those_of_the_whole_batch(made_by_two):
    made = made_by_two[0]
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", in_chans=1, num_classes=3).double().train()
    network(torch.randn(8, 1, 32, 32, dtype=torch.float64)).square().mean().backward()
    for mine, theirs in zip(made["grads"], [p.grad for p in network.parameters()], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(made["state"][name], value, atol=1e-6, rtol=1e-4)


def test_what_only_one_process_uses_has_half_its_gradient_in_both(made_by_two):
    """Where anchors are missing by chance, a calibrator may be used in one process and not in the other."""
    made = made_by_two[1]
    assert made["first"].tolist() == [0.5, 0.5] and made["none"] is None
    scale, both = nn.BatchNorm1d(2, affine=False), nn.Parameter(torch.full((2,), 3.0))
    (both * scale(torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0], [6.0, 7.0]]))).square().mean().backward()
    torch.testing.assert_close(made["both"], both.grad)
    torch.testing.assert_close(made["mean"], scale.running_mean)


def rows_of(log):
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(log.open())]


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    """Of a whole encoder, of one of whose frames one process renders all, and of a linear probe."""
    changes = ({"update": "full"}, {"geometry": 0.0, "render_frames": 1}, {"update": "linear"})
    every = [{**OVERRIDES, "training": {**OVERRIDES["training"], **change}} for change in changes]
    recipes = [resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", overrides=one) for one in every]
    alone = [trained(one, TRAIN, store=Store(tmp_path / "one"), device=torch.device("cpu")).path for one in recipes]
    shutil.copytree(tmp_path / "one" / "captures", tmp_path / "two" / "captures")
    (out, _), _ = two_processes(CHILD, tmp_path / "two", repr(every))
    for path, shared in zip(alone, out.split(), strict=True):
        one, two = (rows_of(weights.with_name("log.csv")) for weights in (path, Path(shared)))
        assert len(one) == len(two) == 8
        for mine, theirs in zip(one, two, strict=True):
            assert mine.keys() == theirs.keys()
            for name, value in mine.items():
                # Adam makes much of gradients near zero, and so of their rounding: the adversarial term is one.
                assert theirs[name] == pytest.approx(value, rel=2e-3, abs=1e-3), (name, mine["step"])


def test_what_one_process_does_alone():
    values = {"total": torch.ones(())}
    assert ALONE.first and ALONE.agree(True) and not ALONE.agree(False) and ALONE.mean(values) is values
    assert ALONE.share(6) == slice(0, 6) and ALONE.in_turn(lambda: 5) == 5
    norm = nn.BatchNorm2d(3)
    ALONE.share_statistics(norm)
    assert type(norm) is nn.BatchNorm2d


def test_people_are_shared_evenly_or_not_at_all():
    assert [Processes(rank, 3).share(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ConfigError, match="5 people cannot be shared by 2 processes"):
        Processes(1, 2).share(5)
