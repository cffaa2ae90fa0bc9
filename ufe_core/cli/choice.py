"""Options that `ufe source` commands share: which source, whose captures, which cameras and anchors."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.progress import Progress

    from ufe_core.components import ComponentSpec
    from ufe_core.interfaces.source import Capture, HMCSource
    from ufe_core.types import CameraSpec


def which_source(command: "Callable[..., None]", kinds: "Sequence[str]" = ()) -> "Callable[..., None]":
    """Give a command the options `--source` and `--set`, which sets options of the source and of other kinds."""
    owners = ("source", *kinds)
    setting = click.option(
        "--set", "assignments", multiple=True, metavar=f"{owners[0] if len(owners) == 1 else 'KIND'}.OPTION=VALUE",
        help=f"Set an option of the {' or the '.join(owners)}; 'ufe plugins show NAME' lists them.",
    )  # fmt: skip
    name = click.option(
        "--source", "name", default="synthetic", show_default=True, help="Name or full id of the source."
    )
    return name(setting(command))


def open_source(name: str, assignments: "Sequence[str]") -> "tuple[ComponentSpec, HMCSource[Any]]":
    """The source that the options name.

    Raises:
        UfeError: there is none of that name, or an option of it is wrong.
    """
    from ufe_core.config import parse_overrides
    from ufe_core.plugins import catalogue

    overrides = parse_overrides(assignments, owners=("source",)).get("source", {})
    spec = catalogue().get("source", name)
    return spec, catalogue().create("source", spec.id, overrides)


def parts_of(spec: "ComponentSpec", opened: "HMCSource[Any]") -> dict[str, list[str]]:
    """Members of each part of a source's splits, as far as the source has them."""
    from ufe_core.splits import splits_of

    there = set(opened.subjects())
    return {
        part: [subject for subject in split.part(part) if subject in there]
        for split in splits_of(spec.id, opened).values()
        for part in ("train", "test", "subjects")
        if getattr(split, part)
    }


def choose_subjects(
    spec: "ComponentSpec", opened: "HMCSource[Any]", named: "Sequence[str]", count: int, seed: int | None
) -> list[str]:
    """The named subjects, or some that are not held out; of a copy that has nobody else, some of those who are.

    Raises:
        DataError: a named subject is not in the source.
        ConfigError: more are asked for than there are.
    """
    from ufe_core.errors import ConfigError

    if named:
        return _known_subjects(spec, opened, named)
    known = opened.subjects()
    held_out = set(parts_of(spec, opened).get("test", ()))
    pool = [subject for subject in known if subject not in held_out] or list(known)
    if count > len(pool):
        raise ConfigError(f"--count {count} is more than the {len(pool)} subjects of '{spec.id}' to choose from.")
    if seed is None:
        return pool[:count]
    import random

    return sorted(random.Random(seed).sample(pool, count))


def choose_part(
    spec: "ComponentSpec", opened: "HMCSource[Any]", named: "Sequence[str]", split: str | None, part: str | None,
    count: int | None,
) -> list[str]:  # fmt: skip
    """The named subjects, or those of a part of a split: `train` unless said otherwise, all where there is no split.

    Raises:
        ConfigError: there is no such split or part, nobody of it is there, or more are asked for than it has.
        DataError: a named subject is not in the source.
    """
    from ufe_core.config import did_you_mean
    from ufe_core.errors import ConfigError
    from ufe_core.splits import splits_of

    if named:
        return _known_subjects(spec, opened, named)
    known = opened.subjects()
    splits = splits_of(spec.id, opened)
    if split is not None and split not in splits:
        there = ", ".join(splits) or "none"
        raise ConfigError(f"No split {split!r} of '{spec.id}'.{did_you_mean(split, list(splits))} Splits: {there}.")
    if part == "all" or not splits:
        members, whose = list(known), "The source"
    else:
        chosen = splits[split] if split is not None else next(iter(splits.values()))
        parts = [name for name in ("train", "test", "subjects") if getattr(chosen, name)]
        wanted = part if part is not None else parts[0]
        if wanted not in parts:
            hint = did_you_mean(wanted, [*parts, "all"])
            raise ConfigError(f"No part {wanted!r} of '{spec.id}'.{hint} Parts: {', '.join(parts)}, all.")
        there_too = set(known)
        members = [subject for subject in chosen.part(wanted) if subject in there_too]
        whose = f"Part {wanted!r}, of {len(chosen.part(wanted))} people,"
    if not members:
        raise ConfigError(f"{whose} has nobody here: '{spec.id}' with these options has {len(known)} "
                          f"{'person' if len(known) == 1 else 'people'}.")  # fmt: skip
    if count is not None and count > len(members):
        raise ConfigError(f"--count {count} is more than the {len(members)} subjects to choose from.")
    return members[:count]


def _known_subjects(spec: "ComponentSpec", opened: "HMCSource[Any]", named: "Sequence[str]") -> list[str]:
    from ufe_core.config import did_you_mean
    from ufe_core.errors import DataError

    known = opened.subjects()
    for subject in named:
        if subject not in known:
            raise DataError(
                f"Source '{spec.id}' has no subject {subject!r}.{did_you_mean(subject, known)} "
                f"It has {len(known)}{f': {known[0]} to {known[-1]}' if known else ''}."
            )
    return list(dict.fromkeys(named))


def choose_anchors(capture: "Capture", text: str | None) -> list[str]:
    """Anchors by an option: as `anchors_of` takes them, or `all`; without one the default ones that the capture has.

    Raises:
        ConfigError: the capture has none of that name.
    """
    from ufe_core.anchor_sets import anchors_of

    known = list(capture.anchors)
    if text == "all":
        return known
    wanted = list(anchors_of(text))
    if not wanted:
        return []
    if text is None:
        return [name for name in wanted if name in known] or known
    return all_known(f"Capture {capture.id!r}", "anchor", wanted, known)


def choose_cameras(capture: "Capture", text: str) -> "list[CameraSpec]":
    """Cameras by an option: names, or `all`, `tracking`, `augmented`.

    Raises:
        ConfigError: the capture has none of that name.
    """
    if text in ("all", "tracking", "augmented"):
        return [camera for camera in capture.cameras if text in ("all", camera.role)]
    by_name = {camera.name: camera for camera in capture.cameras}
    return [by_name[n] for n in all_known(f"Capture {capture.id!r}", "camera", names_of(text), list(by_name))]


def names_of(text: str) -> list[str]:
    """Names separated by commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def all_known(owner: str, what: str, wanted: list[str], known: list[str]) -> list[str]:
    """The wanted names, where all are known.

    Raises:
        ConfigError: one is not, with the nearest; or none is named.
    """
    from ufe_core.config import did_you_mean
    from ufe_core.errors import ConfigError

    has = ", ".join(known) or "none"
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{owner} has no {what} {name!r}.{did_you_mean(name, known)} It has {has}.")
    if not wanted:
        raise ConfigError(f"No {what} is named; {owner} has {has}.")
    return wanted


def progress_bar() -> "Progress":
    """A bar on standard error, or nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
