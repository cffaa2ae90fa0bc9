"""Whom methods learn from and whom they are measured on: splits that the registry lists, or that sources bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ufe_core.config import did_you_mean
from ufe_core.errors import DataError, PluginError, RegistryError
from ufe_core.interfaces.source import HMCSource
from ufe_core.registry import Split, load_registry

TRAIN, TEST = "train", "test"


@runtime_checkable
class DividesPeople(Protocol):
    """A source that says itself whom it holds out. The registry's split of a source goes before its own."""

    def split(self) -> Mapping[str, Sequence[str]]:
        """Ids of the people of `train` and of `test`, apart. Whoever is in neither trains nothing that has labels."""
        ...


def splits_of(source_id: str, source: HMCSource[Any]) -> dict[str, Split]:
    """The splits of a source by name: those that the registry lists, else its own, named as the source is.

    Raises:
        PluginError: its own names somebody twice, or whom it does not have.
    """
    listed = {name: split for name, split in load_registry().splits.items() if split.source == source_id}
    if listed or not isinstance(source, DividesPeople):
        return listed
    return {source_id: _own_split(source_id, source.split(), source.subjects())}


def find_split(name: str, source_id: str, source: HMCSource[Any]) -> Split:
    """The split of that name, which must be one of the source's.

    Raises:
        RegistryError: there is none.
        DataError: it is of another source.
    """
    splits = splits_of(source_id, source)
    if name in splits:
        return splits[name]
    other = load_registry().splits.get(name)
    owner = other.source if other is not None else name if "/" in name else None
    if owner is not None and owner != source_id:
        mine = f"a suite file of yours with split = {next(iter(splits))!r}" if splits else "a `split` of its own"
        raise DataError(f"Split {name!r} is of '{owner}', not of '{source_id}': that one needs {mine}.")
    if owner == source_id:
        raise RegistryError(f"Source '{source_id}' does not say whom it holds out: give it a method `split`.")
    known = [*load_registry().splits, *(one for one in splits if one not in load_registry().splits)]
    raise RegistryError(f"No split {name!r}.{did_you_mean(name, known)} Splits: {', '.join(known)}.")


def training_people(source_id: str, source: HMCSource[Any]) -> tuple[str, ...]:
    """The training part of a source's split; everybody of a source that has none.

    Raises:
        DataError: the split holds out everybody.
    """
    for split in splits_of(source_id, source).values():
        if split.train:
            return split.train
        if split.test:
            raise DataError(f"Source '{source_id}' has nobody to train on: all its people are held out.")
    return source.subjects()


def held_out_people(source_id: str, source: HMCSource[Any]) -> set[str]:
    """Everybody whom some split of a source holds out."""
    return {subject for split in splits_of(source_id, source).values() for subject in split.test}


def refuse_held_out(source_id: str, source: HMCSource[Any], subjects: Sequence[str]) -> None:
    """Refuse to train on anybody whom a split of the source holds out.

    Raises:
        DataError: names them.
    """
    held_out = held_out_people(source_id, source)
    overlap = [subject for subject in subjects if subject in held_out]
    if overlap:
        raise DataError(f"Subjects {', '.join(overlap[:5])} are held out for testing: no training may read them.")


def _own_split(source_id: str, parts: Mapping[str, Sequence[str]], subjects: Sequence[str]) -> Split:
    train, test = tuple(parts.get(TRAIN, ())), tuple(parts.get(TEST, ()))
    unknown = sorted({*parts} - {TRAIN, TEST})
    twice = sorted({one for one in (*train, *test) if [*train, *test].count(one) > 1})
    strange = sorted({*train, *test} - set(subjects))
    for wrong, what in ((unknown, "names a part besides train and test"), (twice, "names twice"),
                        (strange, "names people whom the source does not have")):  # fmt: skip
        if wrong:
            raise PluginError(f"`split` of source '{source_id}' {what}: {', '.join(wrong[:5])}.")
    return Split.model_construct(source=source_id, train=train, test=test)
