"""What pre-training is given: headset images, and nothing that could tell it more."""

import numpy as np
import pytest
from fake_source import FakeCapture, FakeSource, RichCapture

from ufe_core.errors import DataError
from ufe_core.headset_only import HeadsetOnly
from ufe_core.packed import EXTRAS, PackRequest, pack
from ufe_core.store import Store

SECRETS = ("labels", "neutral", "geometry", "texture", "cameras_at", "keypoints", "segmentation")


class Guarded(RichCapture):
    """One that fails where anything but its images is read."""


for secret in SECRETS:
    setattr(Guarded, secret, lambda self, *_, _name=secret, **__: pytest.fail(f"{_name} was read"))


def guarded():
    return HeadsetOnly(FakeSource(capture=Guarded))


def test_packing_reads_images_alone(tmp_path):
    (packed,) = pack(guarded(), ["A"], PackRequest(5, 8, ("a", "b"), ("neutral", "smile")), store=Store(tmp_path))
    plain = FakeSource(capture=RichCapture)
    (whole,) = pack(plain, ["A"], PackRequest(5, 8, ("a", "b"), ("neutral", "smile")), store=Store(tmp_path))
    assert np.array_equal(packed.images[:], whole.images[:]) and packed.anchor_rows == whole.anchor_rows
    assert packed.segments == whole.segments
    for name in ("expression", "gaze", "geometry", "texture", "resting_texture"):
        assert getattr(packed, name).size == 0 and (name == "resting_texture" or getattr(whole, name).size)
    assert packed.traits == {} and packed.conditions == {} and whole.traits and whole.conditions
    assert packed.path != whole.path, "what may be read decides where it is kept"


def test_a_capture_that_leaves_frames_out_itself_still_does():
    class Sieve(FakeCapture):
        def spread(self, count, *, seed):
            return list(range(0, 2 * count, 2))

        def clips(self, count, length, *, seed, kind="speech"):
            return [seed, length, count]

    (capture,) = HeadsetOnly(FakeSource(capture=Sieve)).captures(["A"])
    assert capture.spread(3, seed=0) == [0, 2, 4] and capture.clips(1, 2, seed=3) == [3, 2, 1]
    assert capture.frame_count == 40


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_can_be_packed(tmp_path, extra):
    with pytest.raises(DataError, match=f"has no {extra}"):
        pack(guarded(), ["A"], PackRequest(2, 8, ("a",), (), extras=(extra,)), store=Store(tmp_path))


def test_every_way_to_know_more_is_shut():
    (capture,) = HeadsetOnly(FakeSource(capture=RichCapture)).captures(["A"], session=1)
    assert capture.id == "A/1"
    assert capture.labels([0]) is None and capture.neutral() is None and capture.geometry([0]) is None
    assert capture.texture([0], size=4) is None and capture.cameras_at(0) is None
    assert capture.keypoints([0], cameras=["a"], size=8) is None
    assert capture.segmentation([0], cameras=["a"], size=8) is None
    assert not capture.traits and not capture.conditions
