"""Source `ava256`: headset and dome captures in the public ava-256 layout, read as they lie on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import features

from ufe_ava256.dome import Ava256Dome
from ufe_ava256.folder import CaptureFolder
from ufe_ava256.frame_list import read_table
from ufe_ava256.headset import Ava256Capture
from ufe_ava256.layout import (
    CAPTURE_LIST,
    CAPTURE_LIST_HEADER,
    DOME,
    FRAME_LIST,
    HEADSET,
    TOPOLOGY,
    VERTEX_COUNT,
    subject_of,
)
from ufe_ava256.plugin import Ava256Config
from ufe_ava256.splits import split_of
from ufe_core.config import did_you_mean
from ufe_core.errors import DataError
from ufe_core.interfaces.source import Capture, DomeCapture, HMCSource
from ufe_core.store import code_fingerprint, fingerprint

if TYPE_CHECKING:
    from ufe_core.interfaces.source import WriteRequest, WrittenCapture
    from ufe_core.types import MeshTopology

_CODE = (
    "ufe_core.safe_pickle",
    *(
        f"ufe_ava256.{name}"
        for name in ("archives", "folder", "frame_list", "headset", "layout", "pickles", "ply", "zip_directory")
    ),
)
_DOME_CODE = tuple(f"ufe_ava256.{name}" for name in ("calibration", "dome", "topology"))


class Ava256Source(HMCSource[Ava256Config]):
    """Captures below `root`, by subject; where a subject was recorded more than once, a session for each."""

    code_modules = _CODE

    def __init__(self, config: Ava256Config) -> None:
        super().__init__(config)
        self._folders = self._found()
        self.sessions = max(len(folders) for folders in self._folders.values())
        self._headsets: dict[Path, Ava256Capture] = {}
        self._domes: dict[Path, Ava256Dome] = {}

    def subjects(self) -> tuple[str, ...]:
        return tuple(self._folders)

    def split(self) -> dict[str, list[str]]:
        """Those of `part` who train, and those whom UFE holds out."""
        return self._split

    @cached_property
    def _split(self) -> dict[str, list[str]]:
        train = set(self._parts["train"])
        divided = {
            "train": [subject for subject in self._folders if subject in train],
            "test": [subject for subject in self._folders if subject not in train],
        }
        if not train and not (self.config.root / CAPTURE_LIST).is_file():
            logging.getLogger("ufe").warning(
                "Everybody in '%s' is held out: 32 of all people are, and without %s these are taken for all.",
                self.config.root, CAPTURE_LIST,
            )  # fmt: skip
        return divided

    def captures(self, subjects: Sequence[str], *, session: int = 0) -> list[Capture]:
        folders = [self._folder(subject, session) for subject in subjects]
        new = [folder for folder in folders if folder.path not in self._headsets]
        for folder in new:
            self._refuse_without(folder, HEADSET)
            self._headsets[folder.path] = Ava256Capture(
                folder, free_face=self.config.free_face, with_labels=self.config.labels
            )
        _tell_losses([self._headsets[folder.path] for folder in new])
        return [self._headsets[folder.path] for folder in folders]

    def dome(self, subjects: Sequence[str]) -> list[DomeCapture]:
        folders = [self._folder(subject, 0) for subject in subjects]
        new = [folder for folder in folders if folder.path not in self._domes]
        for folder in new:
            self._refuse_without(folder, DOME)
            self._domes[folder.path] = Ava256Dome(
                folder, free_face=self.config.free_face, topology=lambda: self._topology
            )
        _tell_losses([self._domes[folder.path] for folder in new])
        return [self._domes[folder.path] for folder in folders]

    @classmethod
    def write(
        cls,
        folder: Path,
        source: HMCSource[Any],
        request: WriteRequest,
        *,
        listener: Callable[[int, int], None] | None = None,
    ) -> list[WrittenCapture]:
        from ufe_ava256.writer import write

        return write(folder, source, request, listener=listener)

    @cached_property
    def fingerprint(self) -> str:
        return self._fingerprint((HEADSET, f"{DOME}/kinematic_tracking", f"{DOME}/uv_image"), _CODE)

    @cached_property
    def dome_fingerprint(self) -> str:
        return self._fingerprint((DOME,), (*_CODE, *_DOME_CODE))

    def _fingerprint(self, parts: Sequence[str], code: Sequence[str]) -> str:
        """Of files below some folders of each capture, of code, and of what the options ask for."""
        found = [
            file for folders in self._folders.values() for folder in folders for part in parts
            for file in sorted((folder.path / part).rglob("*")) if file.is_file()
        ]  # fmt: skip
        topology = self.config.root / TOPOLOGY
        files = [
            [file.relative_to(self.config.root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns]
            for file in [*found, *([topology] if DOME in parts and topology.is_file() else [])]
        ]
        return fingerprint({
            "source": "ufe/ava256", "code": code_fingerprint(*code), "files": files, "labels": self.config.labels,
            "free_face": self.config.free_face, "avif": features.version("avif") or "",
        })  # fmt: skip

    @cached_property
    def _topology(self) -> MeshTopology | None:
        from ufe_ava256.topology import read_topology

        path = self.config.root / TOPOLOGY
        return read_topology(path) if path.is_file() else None

    def _found(self) -> dict[str, list[CaptureFolder]]:
        """The folders of each subject of the part that the options name."""
        root, expected = self.config.root, "<date>--<time>--<subject>, e.g. 20230405--1234--ABC123"
        if not root.is_dir():
            raise DataError(f"There is no folder '{root}'. Set source.root to the folder of the captures, {expected}.")
        paths = sorted(path for path in root.iterdir() if subject_of(path.name) and path.is_dir())
        if not paths:
            below = next((path for path in sorted(root.glob("*/*--*--*")) if subject_of(path.name)), None)
            hint = f" There are some in '{below.parent}'." if below else ""
            raise DataError(f"'{root}' holds no captures; expected folders {expected}.{hint}")
        count = self._topology.vertex_count if self._topology else VERTEX_COUNT
        found: dict[str, list[CaptureFolder]] = {}
        for path in paths:
            subject = str(subject_of(path.name))
            found.setdefault(subject, []).append(CaptureFolder(path, subject, count))
        self._there = tuple(found)
        part = self._part()
        return {subject: found[subject] for subject in sorted(found) if subject in part}

    @cached_property
    def _parts(self) -> dict[str, tuple[str, ...]]:
        """Everybody's part; the list of captures, where there is one, says who is whole."""
        listed = self.config.root / CAPTURE_LIST
        column = CAPTURE_LIST_HEADER.index("sid")
        everybody = [row[column] for row in read_table(listed, CAPTURE_LIST_HEADER)] if listed.is_file() else []
        return split_of([*everybody, *self._there])

    def _part(self) -> tuple[str, ...]:
        """Subjects of the part that the options name."""
        if self.config.part == "all":
            return self._there
        part, count = self._parts[self.config.part], len(self._there)
        if not set(part) & set(self._there):
            raise DataError(
                f"Part {self.config.part!r} has none of the {count} subjects in '{self.config.root}': of all whom "
                f"{CAPTURE_LIST} lists or who are there, 20 are new identities and 12 for driving. Set source.part=all."
            )
        return part

    def _folder(self, subject: str, session: int) -> CaptureFolder:
        if subject not in self._folders:
            known = list(self._folders)
            raise DataError(
                f"Source 'ava256' has no subject {subject!r}.{did_you_mean(subject, known)} "
                f"It has {len(known)}: {known[0]} to {known[-1]}."
            )
        folders = self._folders[subject]
        if not 0 <= session < len(folders):
            raise DataError(f"Subject {subject!r} was recorded {len(folders)} times; there is no session {session}.")
        return folders[session]

    @staticmethod
    def _refuse_without(folder: CaptureFolder, part: str) -> None:
        if not (folder.path / part / FRAME_LIST).is_file():
            raise DataError(f"Capture '{folder.path}' has no {part}/{FRAME_LIST}.")


def _tell_losses(opened: Sequence[Ava256Capture | Ava256Dome]) -> None:
    """Say once, of all captures just opened, how many listed frames are left out."""
    short = [capture for capture in opened if capture.dropped]
    if short:
        lost = sum(sum(capture.dropped.values()) for capture in short)
        worst = max(short, key=lambda capture: sum(capture.dropped.values()))
        logging.getLogger("ufe").warning(
            "%d of %d captures lack listed entries, %d in all; their frames are left out. Most: %s (%s).",
            len(short), len(opened), lost, worst.id,
            ", ".join(f"{count} not in {name}" for name, count in worst.dropped.items()),
        )  # fmt: skip
