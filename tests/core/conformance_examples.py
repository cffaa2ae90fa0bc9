"""A sound component of each kind, and for each rule one that breaks it and keeps to the others as far as that goes."""

# ruff: noqa: RUF012

import time
from typing import ClassVar

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import nn
from torch.nn import functional

from ufe_core.budgets import PretrainingConfig
from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError, DataError
from ufe_core.interfaces.calibrator import Calibrator
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.detector import KeypointDetector, KeypointNames
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.metric import Metric
from ufe_core.interfaces.pretraining import Pretraining
from ufe_core.interfaces.source import Capture, FrameLabels, HMCSource, Segment
from ufe_core.types import Avatar, AvatarCode, CameraSpec, CodeSpace, Detections, Encoding, Identity, MeshTopology

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")


class Options(ComponentConfig):
    width: int = Field(4, ge=1, description="How wide it is")


class NeedsAFolder(ComponentConfig):
    root: str = Field(description="Where it is")


class Silent(ComponentConfig):
    width: int = 4


class Loose(ComponentConfig):
    model_config = ConfigDict(extra="allow", frozen=True)


class GoodEncoder(Encoder):
    learns = "weights"
    uses_anchors = True

    def __init__(self, config, *, needs, code_space):
        super().__init__(config, needs=needs, code_space=code_space)
        if len(needs.cameras) != 4:
            raise ConfigError("It needs four cameras.")
        self.net = nn.Linear(4 * 16, code_space.size + 6)

    def grid(self, images):
        return functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)

    def _enroll(self, anchors):
        seen = self.grid(anchors.images.flatten(0, 1)).unflatten(0, anchors.images.shape[:2])
        there = anchors.present[..., None]
        return {"mean": torch.where(there, seen, 0.0).sum(1) / there.sum(1).clamp_min(1)}

    def say(self, features):
        out = self.net(features)
        gaze = functional.normalize((out[:, -6:] + torch.tensor([0.0, 0, 1] * 2)).view(-1, 2, 3), dim=-1)
        return Encoding(out[:, :-6].contiguous(), gaze.flatten(1))

    def _encode(self, frames, calibration):
        return self.say(self.grid(frames.images) - calibration.rows(frames.users)["mean"])


class GivesAnotherSize(GoodEncoder):
    def _encode(self, frames, calibration):
        said = super()._encode(frames, calibration)
        return Encoding(said.expression[:, :-1], said.gaze)


class Rolls(GoodEncoder):
    def _encode(self, frames, calibration):
        said = super()._encode(frames, calibration)
        return Encoding(said.expression + torch.rand(1), said.gaze)


class Mixes(GoodEncoder):
    def _encode(self, frames, calibration):
        said = super()._encode(frames, calibration)
        return Encoding(said.expression - said.expression.mean(0), said.gaze)


class ForgetsUsers(GoodEncoder):
    def _encode(self, frames, calibration):
        return self.say(self.grid(frames.images) - calibration.tensors["mean"][:1])


class TrainsAnother(GoodEncoder):
    def forward(self, frames, anchors):
        return self.say(self.grid(frames.images))


class LooksAtWhatIsMissing(GoodEncoder):
    def _enroll(self, anchors):
        return {"mean": self.grid(anchors.images.flatten(0, 1)).unflatten(0, anchors.images.shape[:2]).mean(1)}


class KeepsInSecret(GoodEncoder):
    def __init__(self, config, **context):
        super().__init__(config, **context)
        self.secret = torch.randn(())

    def say(self, features):
        said = super().say(features)
        return Encoding(said.expression + self.secret, said.gaze)


class KeepsOneRow(GoodEncoder):
    def _enroll(self, anchors):
        kept = super()._enroll(anchors)
        return {**kept, "all": kept["mean"].mean(0, keepdim=True)}

    def _encode(self, frames, calibration):
        return self.say(self.grid(frames.images) - calibration.tensors["mean"].index_select(0, frames.users))


class HasAnIdlePart(GoodEncoder):
    def __init__(self, config, **context):
        super().__init__(config, **context)
        self.idle = nn.Linear(2, 2)


class SkipsItsNorm(GoodEncoder):
    """Its own `_encode` uses the convolution as its child's `forward` does not."""

    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, images):
            return self.norm(self.conv(images))

    def __init__(self, config, **context):
        super().__init__(config, **context)
        self.stem = self.Stem()

    def grid(self, images):
        return super().grid(self.stem.conv(images.float()))


class FailsForOthers(GoodEncoder):
    def __init__(self, config, *, needs, code_space):
        (_, _, _, _) = needs.cameras
        super().__init__(config, needs=needs, code_space=code_space)


class LooksAtEachCamera(GoodEncoder):
    """For any number of cameras, of each of which it keeps something."""

    def __init__(self, config, *, needs, code_space):
        Encoder.__init__(self, config, needs=needs, code_space=code_space)
        self.net = nn.Linear(len(needs.cameras) * 16, code_space.size + 6)
        self.register_buffer("level", torch.zeros(len(needs.cameras)))

    def fit_statistics(self, statistics):
        self.level.copy_(torch.cat([images.float().mean((2, 3)) for images in statistics.images]).mean(0))

    def grid(self, images):
        return super().grid(images - self.level[:, None, None])


class NeedsFiveCameras(GoodEncoder):
    def __init__(self, config, *, needs, code_space):
        if len(needs.cameras) != 5:
            raise ConfigError("It needs five cameras.")
        super().__init__(config, needs=needs, code_space=code_space)


class CountsCamerasBadly(GoodEncoder):
    def __init__(self, config, *, needs, code_space):
        (_, _, _, _, _) = needs.cameras
        super().__init__(config, needs=needs, code_space=code_space)


class RefusesTooLate(GoodEncoder):
    def _encode(self, frames, calibration):
        raise ConfigError("It needs five cameras.")


class TakesItsTime(GoodEncoder):
    def _encode(self, frames, calibration):
        if len(frames.users) == 1:
            time.sleep(2.1)
        return super()._encode(frames, calibration)


class GoodCalibrator(Calibrator):
    def __init__(self, config, *, channels, anchors):
        super().__init__(config, channels=channels, anchors=anchors)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def precompute(self, features, present):
        there = present[:, :, None, None, None]
        return {"mean": torch.where(there, features, 0.0).sum(1) / there.sum(1).clamp_min(1)}

    def forward(self, features, cached):
        mean = cached["mean"].expand(len(features), *features.shape[1:])
        return self.mix(torch.cat([features, mean], 1))


class HalvesTheMap(GoodCalibrator):
    def forward(self, features, cached):
        return super().forward(features, cached)[..., ::2]


class SharesUsers(GoodCalibrator):
    def precompute(self, features, present):
        kept = super().precompute(features, present)["mean"]
        return {"mean": kept - kept.mean(0)}


class MixesFrames(GoodCalibrator):
    def forward(self, features, cached):
        return super().forward(features - features.mean(0), cached)


class UsesWhatIsMissing(GoodCalibrator):
    def precompute(self, features, present):
        return {"mean": features.sum(1)}


class UsesNothing(GoodCalibrator):
    def forward(self, features, cached):
        return super().forward(features, {"mean": 0 * cached["mean"]})


class LosesItsState(GoodCalibrator):
    def __init__(self, config, **context):
        super().__init__(config, **context)
        self.secret = torch.randn(())

    def forward(self, features, cached):
        return super().forward(features, cached) + self.secret


class GoodMetric(Metric):
    label, unit, needs = "Away", "mm", frozenset({"geometry"})

    def per_frame(self, predicted, truth):
        return (predicted.geometry - truth.geometry).norm(dim=-1).mean(1)


class LooksAtLids(GoodMetric):
    def __init__(self, config, **context):
        super().__init__(config, **context)
        names = ("skin", "eyelids", "eye_left", "eye_right")
        self.rows = np.concatenate([self.topology.region(name) for name in names])

    def per_frame(self, predicted, truth):
        return (predicted.geometry - truth.geometry)[:, self.rows].norm(dim=-1).mean(1)


class LooksAtEyes(GoodMetric):
    def __init__(self, config, **context):
        super().__init__(config, **context)
        self.rows = self.topology.region("eyes")


class HasNoUnit(GoodMetric):
    needs = frozenset({"geometry", "smell"})


class ReadsSecretly(GoodMetric):
    def per_frame(self, predicted, truth):
        return super().per_frame(predicted, truth) + (predicted.gaze - truth.gaze).abs().sum(1)


class IsNeverContent(GoodMetric):
    def per_frame(self, predicted, truth):
        return super().per_frame(predicted, truth) + 1


class LooksAround(GoodMetric):
    def per_frame(self, predicted, truth):
        each = super().per_frame(predicted, truth)
        return each + each.mean()


class CountsTwice(GoodMetric):
    temporal = True

    def per_frame(self, predicted, truth):
        return super().per_frame(predicted, truth)

    def reset(self):
        self._computed = None


class GoodDecoder(Decoder):
    def __init__(self, config):
        super().__init__(config)
        self.code_space = CodeSpace("three", 3)
        rows = np.arange(20)
        faces = np.stack([rows[:-2], rows[1:-1], rows[2:]], 1)
        regions = {"face": rows, "lower_face": rows[:9], "mouth_corners": rows[:2], "lip_centres": rows[2:4]}
        self.topology = MeshTopology(
            20, faces, np.zeros((20, 2), np.float32), faces, self.regions(regions), np.ones(20, np.float32)
        )
        self.moves = nn.Parameter(torch.randn(3, 20, 3, generator=torch.Generator().manual_seed(0)))

    def regions(self, regions):
        return regions

    def identity(self, texture, geometry):
        return Identity({"rest": geometry})

    def _decode(self, expression, gaze, identity):
        moved = torch.einsum("bd,dvi->bvi", expression, self.moves)
        geometry = identity["rest"] + moved + 0.1 * gaze.sum(1)[:, None, None]
        return Avatar(geometry, code=AvatarCode(expression, gaze, identity))

    def render(self, avatar, camera, *, mask=None):
        level = torch.sigmoid(avatar.geometry.mean((1, 2)) / 50)
        return level[:, None, None, None].expand(-1, 3, camera.height, camera.width)

    def frontal_camera(self, size):
        lens = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]])
        return CameraSpec("front", "centre", "whole", "tracking", size, size, lens, np.eye(3), np.array([0, 0, 500.0]))

    def face_mask(self, size):
        mask = torch.zeros(size, size, dtype=torch.bool)
        mask[size // 4 : -size // 4] = True
        return mask


class HasNoMouth(GoodDecoder):
    def regions(self, regions):
        return {name: rows for name, rows in regions.items() if name != "lip_centres"}


class DecodesAtRandom(GoodDecoder):
    def _decode(self, expression, gaze, identity):
        avatar = super()._decode(expression, gaze, identity)
        return Avatar(avatar.geometry + torch.rand(1), code=avatar.code)


class StopsGradients(GoodDecoder):
    def render(self, avatar, camera, *, mask=None):
        return super().render(Avatar(avatar.geometry.detach()), camera) + 0 * avatar.geometry.sum()

    def _decode(self, expression, gaze, identity):
        return super()._decode(expression.detach(), gaze, identity)


class IsTooBright(GoodDecoder):
    def render(self, avatar, camera, *, mask=None):
        return 1 + super().render(avatar, camera)


class MasksWhatItShows(GoodDecoder):
    def render(self, avatar, camera, *, mask=None):
        return super().render(avatar, camera) * (0.5 if mask is not None else 1.0)


class CannotBeRestored(GoodDecoder):
    made = 0

    def __init__(self, config):
        super().__init__(config)
        CannotBeRestored.made += 1
        self.register_buffer("grows", torch.zeros(CannotBeRestored.made))


class ReadsTheWrongSize(GoodDecoder):
    reads_texture = 8

    def read(self, texture, geometry, neutral_texture, neutral_geometry):
        return torch.zeros(len(texture), 2)


class CallsAllCodesAlike(GoodDecoder):
    reads_texture = 8

    @classmethod
    def weights_sha256(cls, config):
        return "0123456789abcdef" * 4


class GoodDetector(KeypointDetector):
    def __init__(self, config):
        super().__init__(config)
        self.size = 32
        names = tuple(f"p{k}" for k in range(16))
        self.keypoints = tuple(KeypointNames(c, names, tuple(range(16)), ()) for c in CAMERAS)
        self.drop = nn.Dropout(0.5)

    def train(self, mode=True):
        return super().train(False)

    def _detect(self, images):
        seen = functional.adaptive_avg_pool2d(images, 4).flatten(2)
        return Detections(torch.stack([seen, seen], -1) * self.size, self.drop(seen).clamp(0, 1))


class CountsWrong(GoodDetector):
    def __init__(self, config):
        super().__init__(config)
        self.keypoints = tuple(KeypointNames(c, tuple(f"p{k}" for k in range(16)), (1, 2), ()) for c in CAMERAS)


class FindsNothingReal(GoodDetector):
    def _detect(self, images):
        found = super()._detect(images)
        return Detections(found.points / 0, found.visible)


class ComparesFrames(GoodDetector):
    def _detect(self, images):
        found = super()._detect(images)
        return Detections(found.points - found.points.mean(0), found.visible)


class TrainsAlong(GoodDetector):
    def train(self, mode=True):
        return nn.Module.train(self, mode)

    def _detect(self, images):
        found = super()._detect(images)
        return Detections(self.drop(found.points), found.visible)


class TakesAnything(GoodDetector):
    def detect(self, images):  # type: ignore[override]
        return self._detect(functional.interpolate(images.float() / 255, (32, 32)))


class Steps(PretrainingConfig):
    pass


class GoodPretraining(Pretraining):
    def __init__(self, config, *, encoder, views):
        super().__init__(config, encoder=encoder, views=views)
        self.head = nn.Linear(encoder.code_space.size, 2)
        self.register_buffer("mean", torch.zeros(()))

    def losses(self, encoder, batch):
        drawn = torch.rand(())
        total = self.head(encoder(batch.frames, batch.anchors).expression).square().mean() + drawn
        return {"total": total}


class LearnsOddly(GoodPretraining):
    learns: ClassVar = "quickly"


class TeachesNothing(GoodPretraining):
    def losses(self, encoder, batch):
        with torch.no_grad():
            said = encoder(batch.frames, batch.anchors).expression
        return {"total": self.head(said).square().mean()}


class IgnoresPeople(GoodPretraining):
    @property
    def person_shape(self):
        return (3,)


class StartsPeopleOtherwise(IgnoresPeople):
    views: ClassVar = "tracking"

    def person_start(self, views):
        return np.zeros((2, 3), np.float32)


class DrawsElsewhere(GoodPretraining):
    def losses(self, encoder, batch):
        return {"total": super().losses(encoder, batch)["total"] + np.random.default_rng().uniform()}


class MakesFloats(GoodPretraining):
    views: ClassVar = "augmented"

    def targets(self, views):
        return views.images.astype(np.float32)


class ForgetsStatistics(GoodPretraining):
    views: ClassVar = "tracking"

    def fit_statistics(self, sample):
        self.secret = torch.rand(())

    def losses(self, encoder, batch):
        return {"total": super().losses(encoder, batch)["total"] + self.secret}


class NeedsFiveViews(GoodPretraining):
    views: ClassVar = "tracking"

    def __init__(self, config, *, encoder, views):
        super().__init__(config, encoder=encoder, views=views)
        if len(views) != 5:
            raise ConfigError("It needs five views.")


class GivesATraceback(GoodPretraining):
    learns: ClassVar = "given"

    def initialise(self, encoder):
        raise KeyError("weights")


class GoodCapture(Capture):
    segments = (Segment("rest", 0, 5), Segment("talk", 5, 9, "speech"))
    anchors = {"neutral": 2}
    conditions = {}
    pose: ClassVar = (np.diag([-1.0, 1.0, -1.0]), np.array([0, 0, 120.0]))  # before the face, looking at it

    def __init__(self, subject):
        self.subject, self.id = subject, f"{subject}/0"
        lens = np.array([[300.0, 0, 200], [0, 300, 200], [0, 0, 1]])
        self.cameras = tuple(
            CameraSpec(name, "left", "upper", "tracking", 400, 400, lens, *self.pose) for name in CAMERAS
        )

    def frames(self, indices, *, cameras, size):
        columns = [CAMERAS.index(self.camera(name).name) for name in cameras]
        if not all(0 <= index < self.frame_count for index in indices):
            raise DataError("There is no such frame.")
        levels = np.array([[20 * index + column for column in columns] for index in indices], np.uint8)
        return np.broadcast_to(levels[..., None, None], (*levels.shape, size, size)).copy()

    def labels(self, indices):
        gaze = np.tile(np.array([0, 0, 1.0] * 2, np.float32), (len(indices), 1))
        return FrameLabels(np.zeros((len(indices), 3), np.float32), gaze)

    def neutral(self, *, size=None):
        return None


class GoodSource(HMCSource):
    capture: ClassVar = GoodCapture
    fingerprint = "sound"

    def subjects(self):
        return ("A", "B")

    def captures(self, subjects, *, session=0):
        if not set(subjects) <= {"A", "B"}:
            raise DataError("There is nobody of that name.")
        return [self.capture(subject) for subject in subjects]

    def split(self):
        return {"train": ["A"], "test": ["B"]}


class KnowsEverybody(GoodSource):
    def captures(self, subjects, *, session=0):
        return [self.capture(subject) for subject in subjects]


class MeasuresWhomItTrains(GoodSource):
    def split(self):
        return {"train": ["A", "B"], "test": ["B"]}


class _LosesAnAnchor(GoodCapture):
    anchors = {"neutral": 99}


class LosesAnAnchor(GoodSource):
    capture = _LosesAnAnchor


class _LooksOut(GoodCapture):
    pose = (np.eye(3), np.array([0, 0, 60.0]))


class LooksOut(GoodSource):
    capture = _LooksOut


class _DependsOnOrder(GoodCapture):
    def frames(self, indices, *, cameras, size):
        return super().frames(sorted(indices), cameras=cameras, size=size)


class DependsOnOrder(GoodSource):
    capture = _DependsOnOrder


class _GivesAnything(GoodCapture):
    def frames(self, indices, *, cameras, size):
        return super().frames([index % 9 for index in indices], cameras=cameras, size=size)


class GivesAnything(GoodSource):
    capture = _GivesAnything


class _LooksTooFar(GoodCapture):
    def labels(self, indices):
        found = super().labels(indices)
        return FrameLabels(found.expression, 3 * found.gaze)


class LooksTooFar(GoodSource):
    capture = _LooksTooFar


class _Changes(GoodCapture):
    seen = 0

    def frames(self, indices, *, cameras, size):
        _Changes.seen += len(indices) if size == 32 and len(cameras) == 4 else 0
        return super().frames(indices, cameras=cameras, size=size) + np.uint8(_Changes.seen % 7)


class Changes(GoodSource):
    capture = _Changes


GOOD = {
    "encoder": GoodEncoder, "calibrator": GoodCalibrator, "metric": GoodMetric, "decoder": GoodDecoder,
    "detector": GoodDetector, "pretraining": GoodPretraining, "source": GoodSource,
}  # fmt: skip

#: (kind, rule): what breaks it, and words of the line that says what to mend.
BROKEN = {
    ("encoder", "gives_codes"): (GivesAnotherSize, "needs [4, 12]"),
    ("encoder", "is_deterministic"): (Rolls, "encoding twice gives two answers"),
    ("encoder", "frames_stand_alone"): (Mixes, "mixes the frames of a batch"),
    ("encoder", "users_stand_alone"): (ForgetsUsers, "calibration.rows(frames.users)"),
    ("encoder", "training_and_use_agree"): (TrainsAnother, "must be the same computation"),
    ("encoder", "anchors_may_be_missing"): (LooksAtWhatIsMissing, "look at `anchors.present`"),
    ("encoder", "weights_restore_it"): (KeepsInSecret, "keep everything in parameters and buffers"),
    ("encoder", "calibrations_are_kept"): (KeepsOneRow, "must have a row for each user"),
    ("encoder", "it_runs_live"): (SkipsItsNorm, "run live it gives other codes"),
    ("encoder", "it_learns_as_it_says"): (HasAnIdlePart, "no gradient reaches idle.weight"),
    ("encoder", "other_headsets_are_refused"): (FailsForOthers, "raise ConfigError with a line for users"),
    ("encoder", "is_not_hopelessly_slow"): (TakesItsTime, "no headset can wait for that"),
    ("calibrator", "keeps_the_shape"): (HalvesTheMap, "expected [2, 8, 4, 4]"),
    ("calibrator", "keeps_a_row_for_each_user"): (SharesUsers, "depends on the users beside them"),
    ("calibrator", "frames_stand_alone"): (MixesFrames, "mixes the frames of a batch"),
    ("calibrator", "anchors_may_be_missing"): (UsesWhatIsMissing, "look at `present`"),
    ("calibrator", "uses_what_it_says"): (UsesNothing, "uses_anchors = False"),
    ("calibrator", "learns_and_is_restored"): (LosesItsState, "keep everything in parameters and buffers"),
    ("metric", "says_what_it_is"): (HasNoUnit, "`needs` names smell"),
    ("metric", "reads_what_it_says"): (ReadsSecretly, "`needs` has no 'gaze'"),
    ("metric", "truth_is_best"): (IsNeverContent, "the truth has an error of 1"),
    ("metric", "frames_stand_alone"): (LooksAround, "say `temporal = True`"),
    ("metric", "batches_add_up"): (CountsTwice, "is not the mean of the errors"),
    ("decoder", "says_what_it_is"): (HasNoMouth, "has no region lip_centres"),
    ("decoder", "names_its_codes"): (CallsAllCodesAlike, "put the start of their sha256, 01234567, into it"),
    ("decoder", "decodes"): (DecodesAtRandom, "decoding twice differs"),
    ("decoder", "carries_gradients"): (StopsGradients, "an encoder could not learn through it"),
    ("decoder", "renders"): (IsTooBright, "pixels leave [0, 1]"),
    ("decoder", "masks"): (MasksWhatItShows, "pixels inside the mask change"),
    ("decoder", "is_restored"): (CannotBeRestored, "its own state does not load"),
    ("decoder", "reads"): (ReadsTheWrongSize, "`read` gave codes of shape [2, 2]"),
    ("detector", "says_what_it_finds"): (CountsWrong, "16 names for 2 points"),
    ("detector", "finds"): (FindsNothingReal, "a point is no number"),
    ("detector", "frames_stand_alone"): (ComparesFrames, "depend on the frames beside it"),
    ("detector", "stays_frozen"): (TrainsAlong, "override `train`"),
    ("detector", "refuses_others"): (TakesAnything, "leave `detect` as it is"),
    ("pretraining", "says_what_it_is"): (LearnsOddly, "`learns` is 'quickly'"),
    ("pretraining", "teaches"): (TeachesNothing, "no gradient reaches the encoder"),
    ("pretraining", "learns_of_people"): (IgnoresPeople, "read it with `batch.person`"),
    ("pretraining", "starts_people"): (StartsPeopleOtherwise, "must be [3] finite numbers"),
    ("pretraining", "is_deterministic"): (DrawsElsewhere, "draw with torch's generator alone"),
    ("pretraining", "makes_targets"): (MakesFloats, "expected uint8"),
    ("pretraining", "is_restored"): (ForgetsStatistics, "keep everything in parameters and buffers"),
    ("pretraining", "refuses_in_one_line"): (GivesATraceback, "KeyError: 'weights'"),
    ("source", "has_people"): (KnowsEverybody, "somebody it does not have"),
    ("source", "divides_people"): (MeasuresWhomItTrains, "names twice: B"),
    ("source", "captures_say_what_they_are"): (LosesAnAnchor, "anchor neutral lies outside the capture"),
    ("source", "cameras_see_the_face"): (LooksOut, "sees the face from inside, from (0, 0, -60)"),
    ("source", "frames_are_images"): (DependsOnOrder, "in another order are other images"),
    ("source", "refuses_what_is_not_there"): (GivesAnything, "a frame that is not there: raise DataError"),
    ("source", "labels_fit"): (LooksTooFar, "a gaze is no unit vector"),
    ("source", "packs"): (Changes, "packed frames differ"),
}  # fmt: skip
