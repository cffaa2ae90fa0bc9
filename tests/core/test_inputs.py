"""Keypoints that a detector found: kept, found again where they are gone, and told of where it sees too little."""

from types import SimpleNamespace

import pytest
import torch
from fake_source import FakeSource, RichCapture

from ufe_core.errors import DataError
from ufe_core.inputs import prepared
from ufe_core.interfaces.detector import KeypointDetector, KeypointNames
from ufe_core.packed import PackRequest, pack
from ufe_core.store import Store
from ufe_core.types import Detections

READS_KEYPOINTS = SimpleNamespace(inputs=("images", "keypoints"), __name__="Reads")


class Middle(KeypointDetector):
    """One keypoint a camera, in the middle of what it looks at; it counts what it is shown."""

    size, shown = 8, 0
    keypoints = tuple(KeypointNames(name, ("tip_00",), (0,), ()) for name in ("a", "b"))

    def __init__(self):
        super().__init__(None)

    def _detect(self, images):
        Middle.shown += len(images)
        return Detections(torch.full((len(images), 2, 1, 2), 4.0), torch.ones(len(images), 2, 1))


@pytest.fixture
def store(tmp_path):
    Middle.shown = 0
    return Store(tmp_path)


def found_in(store, *, size=8, cameras=("a", "b")):
    spec = SimpleNamespace(id="lab/middle", name="middle", load=lambda: lambda config: Middle())
    chosen = SimpleNamespace(spec=spec, config=None, describe=lambda: {"id": "lab/middle"})
    source = FakeSource(capture=RichCapture)
    captures = pack(source, ["A"], PackRequest(3, size, cameras, ("neutral",)), store=store)
    return prepared(captures, READS_KEYPOINTS, source, detector=chosen, store=store, device=torch.device("cpu"))


def test_keypoints_are_found_once_and_kept(store):
    first = found_in(store)
    shown = Middle.shown
    again = found_in(store)
    assert shown == 4 == Middle.shown
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.detections.points, other.detections.points)
        assert one.detections.points.unique().tolist() == [4.0]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"no weights")])
def test_what_is_gone_or_damaged_is_found_again_and_kept(store, damage):
    found_in(store)
    file = next((store.root / "detections").glob("*/keypoints.safetensors"))
    damage(file)
    found_in(store)
    assert Middle.shown == 4 + 4 and file.is_file()
    found_in(store)
    assert Middle.shown == 4 + 4


def test_a_detector_that_sees_less_than_there_is_is_told_of_once(store, caplog):
    found_in(store)
    assert not caplog.records
    found_in(store, size=16)
    (told,) = caplog.records
    assert "looks at images of 8 px, and these have 16" in told.message and "training.size=16" in told.message


def test_a_detector_of_other_cameras_is_refused(store):
    with pytest.raises(DataError, match=r"'lab/middle' looks through a, b; capture 'A/0' was packed with b, a"):
        found_in(store, cameras=("b", "a"))
