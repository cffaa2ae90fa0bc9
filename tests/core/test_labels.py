"""Labels of a decoder that reads faces: a tiny one whose codes tell exactly what it was given."""

import os

import numpy as np
import pytest
import torch

from ufe_core.config import ComponentConfig
from ufe_core.errors import DataError
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.source import Neutral
from ufe_core.labels import labelled
from ufe_core.packed import PackRequest, pack
from ufe_core.store import Store
from ufe_core.types import CodeSpace

from .fake_source import FakeCapture, FakeSource

TEXELS = 4


class FacesCapture(FakeCapture):
    """Headset frames whose geometry and texture tell subject and frame."""

    def geometry(self, indices):
        number = 100 * (1 + "ABCDEFGH".index(self.subject))
        return number + np.asarray(indices, np.float32)[:, None, None] + np.zeros((1, 4, 3), np.float32)

    def texture(self, indices, *, size):
        return np.stack([np.full((3, size, size), i, np.uint8) for i in indices])

    def neutral(self, *, size=None):
        geometry, size = super().neutral().geometry, size or 2 * TEXELS
        return Neutral(geometry, np.full((3, size, size), 60 + "ABCDEFGH".index(self.subject), np.uint8))


class TextureOnly(FacesCapture):
    def geometry(self, indices):
        return None


class GeometryOnly(FacesCapture):
    texture = FakeCapture.texture


class FacesSource(FakeSource):
    def __init__(self, capture=FacesCapture):
        super().__init__(capture=capture)


class Reader(Decoder[ComponentConfig]):
    """A code is the frame's texture, geometry, resting texture and resting geometry, one number of each."""

    reads_texture = TEXELS

    def __init__(self, name="reader-1"):
        super().__init__(ComponentConfig())
        self.code_space, self.reads = CodeSpace(name, 4), []

    def read(self, texture, geometry, neutral_texture, neutral_geometry):
        assert texture.shape == neutral_texture.shape == (len(texture), 3, TEXELS, TEXELS)
        assert geometry.shape == neutral_geometry.shape == (len(texture), 4, 3)
        values = (texture, geometry, neutral_texture, neutral_geometry)
        assert all(value.dtype == torch.float32 for value in values)
        self.reads.append(len(texture))
        return torch.stack([value.flatten(1).mean(1) for value in values], 1)

    identity = _decode = render = frontal_camera = face_mask = None


class Exact(Reader):
    """Takes the source's labels for its codes."""

    reads_texture = 0


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def captures_of(source, store, subjects="AC", *, texture=TEXELS, frames=36):
    return pack(source, subjects, PackRequest(frames, 8, ("a",), ("neutral", "smile"), texture=texture), store=store)


def test_labels_are_what_the_decoder_reads_off_the_exact_faces(store):
    """Frames and anchors alike, in their order, whichever calls they come in; the gaze stays the source's."""
    source, decoder, told = FacesSource(), Reader(), []
    before = captures_of(source, store)
    after = labelled(before, source, decoder, store=store, progress=told.append)
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        frames = np.array(old.frames, np.float32)
        person = (0, 2)[number]
        resting = np.full_like(frames, (60 + person) / 255)
        expected = np.stack([frames / 255, 100 * (1 + person) + frames, resting, np.full_like(frames, 7)], 1)
        np.testing.assert_allclose(new.expression, expected, rtol=1e-6)
        assert new.expression.dtype == np.float32 and new.expression.shape == (38, 4)
        np.testing.assert_array_equal(new.gaze, old.gaze)
        assert new.sha256 == old.sha256 and new.subject == old.subject
        assert old.expression.shape == (38, 3), "what is packed is not changed"
    assert sum(decoder.reads) == 2 * 38 and max(decoder.reads) < 38, "faces are read a few at a time"
    assert told == [1, 2]


def test_labels_are_kept_for_the_same_faces_and_the_same_codes(store):
    source, first, again, other = FacesSource(), Reader(), Reader(), Reader("reader-2")
    captures = captures_of(source, store)
    made = labelled(captures, source, first, store=store)
    kept = labelled(captures, source, again, store=store)
    assert again.reads == [] and all((a.expression == b.expression).all() for a, b in zip(made, kept, strict=True))
    labelled(captures, source, other, store=store)
    assert sum(other.reads) == 2 * 38, "another code space is read anew"
    labelled(captures_of(source, store, "AB"), source, again, store=store)
    assert sum(again.reads) == 38, "only the subject that is new"
    labelled(captures_of(source, store, "A", frames=8), source, again, store=store)
    assert sum(again.reads) == 38 + 10, "other frames are other labels"


def test_a_decoder_of_other_weights_reads_anew_whatever_it_calls_its_codes(store):
    source, one, other = FacesSource(), Reader(), Reader()
    for decoder, value in ((one, 1.0), (other, 2.0)):
        decoder.register_buffer("kept", torch.tensor(value))
    captures = captures_of(source, store, "A")
    labelled(captures, source, one, store=store)
    labelled(captures, source, other, store=store)
    assert sum(one.reads) == sum(other.reads) == 38


def test_a_decoder_whose_code_changed_reads_anew(store, monkeypatch):
    from ufe_core import labels

    source, before, after = FacesSource(), Reader(), Reader()
    captures = captures_of(source, store, "A")
    labelled(captures, source, before, store=store)
    original = labels.code_fingerprint
    monkeypatch.setattr(labels, "code_fingerprint", lambda *names: original(*names) + "changed")
    labelled(captures, source, after, store=store)
    assert sum(after.reads) == 38


@pytest.mark.parametrize("damage", ["truncated", "altered", "something else", "gone"])
def test_a_damaged_kept_file_is_made_again(store, damage):
    source, decoder = FacesSource(), Reader()
    captures = captures_of(source, store, "A")
    (made,) = labelled(captures, source, Reader(), store=store)
    (file,) = (store.root / "labels").glob("*/codes.safetensors")
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "altered":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"something else")
    for _ in range(2):
        (mended,) = labelled(captures, source, decoder, store=store)
        np.testing.assert_array_equal(mended.expression, made.expression)
    assert sum(decoder.reads) == 38, "made once, then kept again"


@pytest.mark.parametrize("capture", [TextureOnly, GeometryOnly])
def test_a_source_without_exact_faces_is_refused_in_one_line(store, capture):
    source = FacesSource(capture)
    texture = 0 if capture is GeometryOnly else TEXELS
    captures = captures_of(source, store, "A", texture=texture)
    with pytest.raises(DataError, match=r"'A/0' has no exact geometry and texture: Reader cannot tell") as error:
        labelled(captures, source, Reader(), store=store)
    assert "\n" not in str(error.value) and "--decoder" in str(error.value)
    assert not list((store.root / "labels").glob("*/codes.safetensors"))


def test_a_source_that_gives_no_texture_is_refused_in_one_line(store):
    """The whole way from packing, as a training goes."""
    source = FacesSource(GeometryOnly)
    with pytest.raises(DataError) as error:
        labelled(captures_of(source, store, "A"), source, Reader(), store=store)
    assert "\n" not in str(error.value)


def test_a_decoder_that_reads_no_faces_leaves_labels_as_they_are(store):
    source, decoder, told = FacesSource(), Exact(), []
    captures = captures_of(source, store, texture=0)
    after = labelled(captures, source, decoder, store=store, progress=told.append)
    assert after == captures and all(a is b for a, b in zip(after, captures, strict=True))
    assert decoder.reads == told == [] and not (store.root / "labels").exists()
