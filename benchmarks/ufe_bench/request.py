"""What a user asked to be measured, and the commands that ask for it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ufe_bench.enrolment import Enrolment
from ufe_bench.schema import Trial
from ufe_bench.suite import Suite
from ufe_core.config import parse_overrides
from ufe_core.recipe import DEFAULT_ANCHORS, DEFAULT_DECODER, DEFAULT_ENCODER

_NOTHING = object()
_DEFAULTS = {"decoder": DEFAULT_DECODER, "source": "synthetic", "budget": "cpu"}


@dataclass(frozen=True)
class Request:
    """What a user asked for. `train` leaves released weights aside; `fresh` trains again; `weights` is a file to take.

    `row` is the row of a study that this is. `tuned` are training options that a search chose, and `trials` is its
    trace.
    """

    suite: Suite
    encoder: str = DEFAULT_ENCODER
    calibrator: str | None = None
    detector: str | None = None
    pretraining: str | None = None
    decoder: str = DEFAULT_DECODER
    source: str = "synthetic"
    budget: str = "cpu"
    anchors: tuple[str, ...] = DEFAULT_ANCHORS
    overrides: Mapping[str, Mapping[str, Any]] | None = None
    enrolment: Enrolment = "own"
    row: str | None = None
    train: bool = False
    fresh: bool = False
    weights: Path | None = None
    tuned: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    @property
    def options(self) -> Mapping[str, Mapping[str, Any]]:
        """Options by kind: what the user set, and what a search for training options chose."""
        given = {kind: dict(fields) for kind, fields in (self.overrides or {}).items()}
        if self.tuned:
            given["training"] = {**given.get("training", {}), **self.tuned}
        return given

    @property
    def method(self) -> str:
        """As users type it; of a study, its row."""
        if self.row is not None:
            return self.row
        return " + ".join(name for name in (self.encoder, self.calibrator, self.pretraining) if name)

    def command(self) -> str:
        """The command that measures this, `ufe bench`, in canonical form; of a study, its row."""
        if self.suite.rows:
            words = [
                "ufe",
                "bench",
                "--suite",
                self.suite.reference,
                "--row",
                self.row or self.encoder,
                *self._defaults(),
            ]
            own = self.suite.row(self.row).set if self.row else {}
            shared = self.suite.set
            given = {
                kind: {
                    name: value for name, value in fields.items()
                    if name not in own.get(kind, {}) and shared.get(kind, {}).get(name, _NOTHING) != value
                }
                for kind, fields in (self.overrides or {}).items()
            }  # fmt: skip
            return shlex.join([*words, *_settings(given)])
        words = ["ufe", "bench", *self._components(), *_settings(self.options)]
        words += ["--suite", self.suite.reference] if self.suite.name != "main" else []
        words += ["--enrolment", self.enrolment] if self.enrolment != "own" else []
        return shlex.join([*words, *(["--train"] if self.train else [])])

    def training_command(self) -> str:
        """The command that makes the weights, `ufe train`."""
        return shlex.join(["ufe", "train", *self._components(), *_settings(self.options)])

    def _components(self) -> list[str]:
        words = ["--encoder", self.encoder]
        words += ["--calibrator", self.calibrator] if self.calibrator else []
        words += ["--detector", self.detector] if self.detector else []
        words += ["--pretraining", self.pretraining] if self.pretraining else []
        words += self._defaults()
        return [*words, *(["--anchors", ",".join(self.anchors) or "none"] if self.anchors != DEFAULT_ANCHORS else [])]

    def _defaults(self) -> list[str]:
        chosen = [(name, getattr(self, name)) for name, default in _DEFAULTS.items() if getattr(self, name) != default]
        return [word for name, value in chosen for word in (f"--{name}", value)]

    def changes(self) -> list[str]:
        """What of the decoder, the source, the budget and the options is not as by default: `training.steps=50`."""
        return [*self._defaults()[1::2], *_settings(self.options)[1::2]]


def _settings(options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Options as words of a command, which reads each value as what it is."""
    pairs = [(f"{kind}.{name}", value) for kind, fields in options.items() for name, value in fields.items()]
    return [word for name, value in sorted(pairs) for word in ("--set", f"{name}={_written(value)}")]


def _written(value: Any) -> str:
    if isinstance(value, str) and parse_overrides([f"a.b={value}"], owners=("a",)) == {"a": {"b": value}}:
        return value
    return json.dumps(value)
