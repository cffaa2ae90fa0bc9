"""A source of which nothing but headset images can be read: what pre-training is given (P§6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ufe_core.interfaces.source import Capture, HMCSource
from ufe_core.store import fingerprint


class HeadsetOnly(HMCSource[Any]):
    """Another source's captures without labels, faces, exact data, traits and conditions.

    They cannot be read through it, so whoever is given it cannot learn from them by mistake.
    """

    def __init__(self, source: HMCSource[Any]) -> None:
        super().__init__(source.config)
        self._source = source
        self.sessions = source.sessions

    def subjects(self) -> tuple[str, ...]:
        """All of the source."""
        return self._source.subjects()

    def captures(self, subjects: Sequence[str], *, session: int = 0) -> list[Capture]:
        """Their captures, of which only images can be read."""
        chosen = {"session": session} if session else {}  # a source with one session need not take the argument
        return [_HeadsetCapture(capture) for capture in self._source.captures(subjects, **chosen)]

    @property
    def fingerprint(self) -> str:
        """Of the pixels; another than the source's, as what is packed from it is."""
        return fingerprint({"headset images of": self._source.fingerprint})


class _HeadsetCapture(Capture):
    """One capture's images, cameras, segments and anchors."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self.id, self.subject = capture.id, capture.subject
        self.cameras, self.segments = capture.cameras, capture.segments
        self.conditions: Mapping[str, float | str | bool] = {}

    @property
    def anchors(self) -> Mapping[str, int]:  # type: ignore[override]  # a capture may draw them when first asked
        return self._capture.anchors

    @property
    def frame_count(self) -> int:
        return self._capture.frame_count

    def spread(self, count: int, *, seed: int) -> list[int]:
        return self._capture.spread(count, seed=seed)

    def clips(self, count: int, length: int, *, seed: int, kind: str = "speech") -> list[int]:
        return self._capture.clips(count, length, seed=seed, kind=kind)

    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray:
        return self._capture.frames(indices, cameras=cameras, size=size)

    def labels(self, indices: Sequence[int]) -> None:
        return None

    def neutral(self, *, size: int | None = None) -> None:
        return None
