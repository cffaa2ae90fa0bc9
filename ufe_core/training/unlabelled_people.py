"""People without labels: their captures, packed, and what a pre-training reconstructs of their views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ufe_core.errors import ContractError, DataError
from ufe_core.inputs import detected, tell_if_coarse
from ufe_core.interfaces.pretraining import Pretraining, Views
from ufe_core.interfaces.source import HMCSource
from ufe_core.packed import PackedCapture, PackRequest, open_packed, pack
from ufe_core.recipe import DEFAULT_ANCHORS, Recipe, tracking_cameras
from ufe_core.store import Store, fingerprint
from ufe_core.training.kept_views import kept_views
from ufe_core.training.progress import Counter
from ufe_core.types import Detections

_PACKED_AT_A_TIME = 64  # people; more are never held in memory
_NEUTRAL = "neutral"


def view_cameras(recipe: Recipe, source: HMCSource[Any], subject: str) -> tuple[str, ...]:
    """Names of the cameras whose images the recipe's pre-training reconstructs; none where it does not.

    Raises:
        DataError: the source has none of that role.
    """
    assert recipe.pretraining is not None, "there is no pre-training"
    role = recipe.pretraining.spec.load().views
    if role is None:
        return ()
    (capture,) = source.captures([subject])
    names = tuple(camera.name for camera in capture.cameras if camera.role == role)
    if not names:
        raise DataError(
            f"'{recipe.pretraining.spec.id}' reconstructs {role} cameras; source '{recipe.source.spec.id}' has none."
        )
    return names


class UnlabelledPeople:
    """Packs people for a recipe's pre-training, and makes what its method reconstructs of their views."""

    def __init__(self, recipe: Recipe, source: HMCSource[Any], store: Store, device: torch.device) -> None:
        self.recipe, self.source, self.store, self.device = recipe, source, store, device
        self._detector: Any = None

    def request(self, subject: str, frames: int, *, session: int = 0, seed: int = 0) -> PackRequest:
        """What is packed of everybody, as of a subject; each person's frames at instants of their own."""
        recipe = self.recipe
        tracking = tracking_cameras(self.source, subject)
        cameras = tuple(dict.fromkeys((*tracking, *view_cameras(recipe, self.source, subject))))
        known = self.source.captures([subject])[0].anchors
        anchors = tuple(dict.fromkeys((*(name for name in DEFAULT_ANCHORS if name in known), *recipe.anchors)))
        return PackRequest(
            frames, recipe.training.size, cameras, anchors, seed=seed, session=session, own_instants=True
        )  # fmt: skip

    def pack(self, people: Sequence[str], request: PackRequest, count: Counter | None = None) -> list[Path]:
        """Where people's packed captures lie, packed now where they are not there yet."""
        paths: list[Path] = []
        for start in range(0, len(people), _PACKED_AT_A_TIME):
            some = people[start : start + _PACKED_AT_A_TIME]
            source = self.source if start == 0 else self._anew()  # what a source remembers of people goes with it
            paths += [one.path for one in pack(source, some, request, store=self.store, progress=count)]
        return paths

    def views(self, capture: PackedCapture, names: tuple[str, ...], *, rows: Sequence[int] | None = None) -> Views:
        """What the views of the method saw in some rows of a capture, or all, with keypoints."""
        columns = [index for index, camera in enumerate(capture.cameras) if camera.name in names]
        chosen = np.arange(len(capture.images)) if rows is None else np.asarray(rows)
        images = np.ascontiguousarray(capture.images[chosen][:, columns])
        found = self._detect(images, names)
        points = () if self._detector is None else tuple(one.names for one in self._detector.keypoints)
        return Views(images, found, points)

    def targets(
        self, paths: Sequence[Path], method: Pretraining[Any], count: Counter | None = None
    ) -> list[Path | None]:  # fmt: skip
        """What the method made of the views of people's frames, kept; nothing where it takes them as they are."""
        state = method.targets_of() if method.view_names else None
        if state is None:
            return [None] * len(paths)
        assert self.recipe.pretraining is not None, "there is no pre-training"
        finder, first = self.recipe.view_detector, self.recipe.pretraining
        made_by = {
            "method": first.spec.id,
            "code": first.code,
            "detector": finder and finder.describe(),
            "state": state,
        }
        made: list[Path | None] = []
        for path in paths:
            key = fingerprint({"of": path.name, **made_by})
            made.append(kept_views(self.store, key, partial(self._made, path, method)))
            if count is not None:
                count()
        return made

    def at_rest_first(self, capture: PackedCapture, method: Pretraining[Any]) -> Views:
        """What the method's views saw of a person's anchors, the one at rest first; without anchors, of all frames."""
        shown = capture.anchor_rows
        rows = [shown[name] for name in sorted(shown, key=lambda name: name != _NEUTRAL)]
        return self.views(capture, method.view_names, rows=rows or None)

    def start_of(self, path: Path, method: Pretraining[Any]) -> np.ndarray | None:
        """What the method takes a person for before it learned of them; None where it says nothing.

        Raises:
            ContractError: it is of another shape than what it learns of people.
        """
        start = method.person_start(self.at_rest_first(open_packed(path), method))
        if start is not None and start.shape != method.person_shape:
            raise ContractError(
                f"{type(method).__name__}.person_start gave {start.shape}; its person_shape is {method.person_shape}."
            )
        return start

    def _made(self, path: Path, method: Pretraining[Any]) -> np.ndarray:
        capture = open_packed(path)
        return method.targets(self.views(capture, method.view_names, rows=capture.frame_rows.tolist()))

    def _anew(self) -> HMCSource[Any]:
        """The same source, made again."""
        return self.recipe.unlabelled()[0]

    def _detect(self, images: np.ndarray, names: tuple[str, ...]) -> Detections | None:
        chosen = self.recipe.view_detector
        if chosen is None:
            return None
        if self._detector is None:
            self._detector = chosen.spec.load()(chosen.config).to(self.device)
            refuse_other_cameras(self._detector, self.recipe, names)
            tell_if_coarse(chosen, self._detector.size, images.shape[-1])
        return detected(images, self._detector, self.device)


def refuse_other_cameras(detector: Any, recipe: Recipe, names: tuple[str, ...]) -> None:
    """Raise a DataError where the recipe's detector of views does not look through these cameras."""
    assert recipe.view_detector is not None, "there is no detector"
    if detector.cameras != names:
        raise DataError(
            f"Detector '{recipe.view_detector.spec.id}' looks through {', '.join(detector.cameras)}; the views are "
            f"{', '.join(names)}."
        )
