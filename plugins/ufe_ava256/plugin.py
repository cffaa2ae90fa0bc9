"""Registers source `ava256`. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class Ava256Config(ComponentConfig):
    """Options of the reader of ava-256 captures."""

    root: Path = Field(description="Folder of the captures: it holds <date>--<time>--<subject> folders")
    part: Literal["all", "train", "new_identity", "driving"] = Field(
        "all", description="Which people: all, 20 held out as new identities, 12 for driving, or train, the others"
    )
    free_face: Literal["with", "without", "only"] = Field(
        "with", description="Frames of the segment EXP_free_face, which a test of one person holds out"
    )
    labels: bool = Field(
        True, description="Read encoder/encodings_gt.pt where a capture has it; frames without a label are left out"
    )


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the reader."""
    register(
        ComponentSpec(
            interface=1,
            kind="source",
            id="ufe/ava256",
            target="ufe_ava256.source:Ava256Source",
            config=Ava256Config,
            summary="Real headset and dome captures in the public ava-256 layout, read as they lie on disk",
            reference="P§1",
        )
    )
