"""`registry.toml`: what is released. Data to check against, never a way to discover anything."""

import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ufe_core.errors import RegistryError
from ufe_core.names import FIRST_PARTY
from ufe_core.plugins import Catalogue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = 1
MAX_RELEASED_BYTES = 25_000_000

Kind = Literal["source", "detector", "encoder", "calibrator", "pretraining", "decoder", "metric"]
ComponentId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*$")]
PackagedFile = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Unlabelled(_Table):
    """People of a source of whom nothing but headset images is read, as many as are asked for.

    They are numbered on from `first`; the source's option `option` says how many people it has in all.
    """

    first: str = Field(pattern=r"^[A-Za-z_-]*[0-9]+$", description="The first one's id, which ends in a number")
    option: str

    def people(self, count: int) -> tuple[tuple[str, ...], dict[str, int]]:
        """Ids of so many of them, and the options that a source needs to have them."""
        prefix = self.first.rstrip("0123456789")
        digits = self.first[len(prefix) :]
        number = int(digits)
        return tuple(f"{prefix}{number + k:0{len(digits)}d}" for k in range(count)), {self.option: number + count}


class Split(_Table):
    """The subjects of a source: either in the parts `train` and `test`, or one list `subjects`."""

    source: ComponentId
    counts: dict[Literal["train", "test", "subjects"], int] = Field(
        default_factory=dict, description="How many each part must have; a check against slips of the editor"
    )
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    unlabelled: Unlabelled | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "Split":
        if bool(self.subjects) == bool(self.train or self.test):
            raise ValueError("give either 'train' and 'test', or 'subjects'")
        if not self.subjects and not (self.train and self.test):
            raise ValueError("'train' and 'test' must both name subjects")
        return self

    def part(self, name: str) -> tuple[str, ...]:
        """Return the subjects of a part: `train`, `test` or `subjects`; `all` stands for every one.

        Raises:
            RegistryError: there is no such part.
        """
        parts = {"train": self.train, "test": self.test, "subjects": self.subjects}
        known = [part for part, members in parts.items() if members]
        if name == "all":
            return tuple(sorted({subject for part in known for subject in parts[part]}))
        if name not in known:
            raise RegistryError(f"No split {name!r} of {self.source!r} (splits: {', '.join([*known, 'all'])}).")
        return parts[name]


class ReleasedWeights(_Table):
    """One released weights file, and the command that made it."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*\.[a-z0-9][a-z0-9_.-]*$")
    kind: Kind = "encoder"
    component: ComponentId
    calibrator: ComponentId | None = None
    decoder: ComponentId | None = None
    pretraining: ComponentId | None = None
    encoder: ComponentId | None = Field(None, description="Whom a pre-training taught")
    source: ComponentId
    budget: str
    file: PackagedFile
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)
    license: str
    command: str
    superseded: tuple[str, ...] = Field((), description="Hashes of the files that stood here before")


class Suite(_Table):
    """One benchmark suite."""

    name: str
    summary: str
    file: PackagedFile


class NamedAnchors(_Table):
    """A published set of anchor expressions, in the order in which they help."""

    summary: str
    anchors: tuple[str, ...]


class ListedComponent(_Table):
    """A component that a known plugin provides."""

    kind: Kind
    id: ComponentId


class KnownPlugin(_Table):
    """A plugin known to exist, installed or not."""

    name: str
    distribution: str
    components: tuple[ListedComponent, ...]


class Registry(_Table):
    """The whole file."""

    schema_: Literal[1] = Field(alias="schema")
    splits: dict[str, Split] = Field(default_factory=dict)
    weights: tuple[ReleasedWeights, ...] = ()
    suites: tuple[Suite, ...] = ()
    anchor_sets: dict[str, NamedAnchors] = Field(default_factory=dict)
    plugins: tuple[KnownPlugin, ...] = ()

    def split(self, name: str, part: str) -> tuple[str, ...]:
        """Return the subjects of a part of a split set, e.g. `split("synthetic", "test")`.

        Raises:
            RegistryError: there is no such split set or part.
        """
        if name not in self.splits:
            raise RegistryError(f"No split set {name!r} (known: {', '.join(self.splits) or 'none'}).")
        return self.splits[name].part(part)


def checkout_root() -> Path | None:
    """Return the root of the checkout that `ufe_core` lies in, or None when it is installed from a wheel."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "registry.toml").is_file() else None


def registry_path() -> Path:
    """Return the registry in force: the checkout's own, else the one packed into the wheel."""
    root = checkout_root()
    return root / "registry.toml" if root else Path(__file__).resolve().parent / "registry.toml"


def load_registry(path: Path | None = None) -> Registry:
    """Read and validate the registry.

    Args:
        path: the file; `registry_path()` if left out.

    Raises:
        RegistryError: the file is missing, not TOML, or has a wrong or unknown field.
    """
    file = path or registry_path()
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RegistryError(f"Registry '{file}' does not exist; the installation is incomplete.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RegistryError(f"Registry '{file}' cannot be read: {error}.") from error
    try:
        return Registry.model_validate(table)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        where = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        raise RegistryError(f"Registry '{file}' is invalid at '{where}': {first['msg']}{more}.") from error


def released_component(kind: Kind, component: str) -> ReleasedWeights:
    """The released weights of a component that is no encoder, by its id.

    Raises:
        RegistryError: there are none.
    """
    for weights in load_registry().weights:
        if weights.kind == kind and weights.component == component:
            return weights
    name = component.partition("/")[2]
    raise RegistryError(
        f"No weights of '{component}' are released. Train your own, 'ufe train --{kind} {name} --out FILE', and give "
        f"--set {kind}.weights=FILE."
    )


def released_encoder(
    component: str, calibrator: str | None, decoder: str, source: str, budget: str, pretraining: str | None = None
) -> ReleasedWeights | None:
    """The released weights of an encoder, by the ids of what it is put together of and of what it learned from.

    None where there are none.
    """
    return _released(
        "encoder", component=component, calibrator=calibrator, decoder=decoder, source=source, budget=budget,
        pretraining=pretraining,
    )  # fmt: skip


def released_pretraining(
    component: str, encoder: str, calibrator: str | None, decoder: str, source: str, budget: str
) -> ReleasedWeights | None:
    """The released weights of a pre-training, by the ids of it and of what it taught; None where there are none."""
    return _released(
        "pretraining", component=component, encoder=encoder, calibrator=calibrator, decoder=decoder, source=source,
        budget=budget,
    )  # fmt: skip


def _released(kind: Kind, **wanted: str | None) -> ReleasedWeights | None:
    for one in load_registry().weights:
        if one.kind == kind and all(getattr(one, name) == value for name, value in wanted.items()):
            return one
    return None


def packaged_file(reference: str) -> Path:
    """Return where `package/path` lies on disk, without importing the package. The file need not exist.

    In a checkout, what a wheel packs into a package from beside it (suites, results) is found beside it.

    Raises:
        RegistryError: the package is not installed.
    """
    package, _, inner = reference.partition("/")
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    if not folders:
        raise RegistryError(f"'{reference}' lies in package '{package}', which is not installed.")
    folder = folders[0]
    root = checkout_root()
    beside = folder.parent / inner
    if not (folder / inner).exists() and root is not None and beside.is_relative_to(root) and beside.exists():
        return beside
    return folder / inner


def check_registry(registry: Registry, catalogue: Catalogue) -> list[str]:
    """Compare the registry with the files it names and with what is installed.

    Returns:
        One line for each disagreement; empty if there is none.
    """
    return [
        *_check_splits(registry),
        *_check_weights(registry, catalogue),
        *_check_suites(registry),
        *_check_plugins(registry, catalogue),
    ]


def _check_splits(registry: Registry) -> Iterator[str]:
    for name, split in registry.splits.items():
        for part in ("train", "test", "subjects"):
            members: tuple[str, ...] = getattr(split, part)
            twice = sorted({subject for subject in members if members.count(subject) > 1})
            if twice:
                yield f"Split '{name}': {part} names {', '.join(twice)} more than once."
            expected = split.counts.get(part)
            if expected is not None and expected != len(members):
                yield f"Split '{name}': {part} has {len(members)} subjects, expected {expected}."
        both = sorted(set(split.train) & set(split.test))
        if both:
            yield f"Split '{name}': {', '.join(both)} are in both train and test."


def _check_weights(registry: Registry, catalogue: Catalogue) -> Iterator[str]:
    ids = [weights.id for weights in registry.weights]
    for twice in sorted({name for name in ids if ids.count(name) > 1}):
        yield f"Weights '{twice}' are listed more than once."
    registered = {(spec.kind, spec.id) for spec in catalogue.all()}
    for weights in registry.weights:
        needed = [
            (weights.kind, weights.component),
            ("calibrator", weights.calibrator),
            ("decoder", weights.decoder),
            ("pretraining", weights.pretraining),
            ("encoder", weights.encoder),
            ("source", weights.source),
        ]
        for kind, component in needed:
            if component is not None and (kind, component) not in registered:
                yield (f"Weights '{weights.id}' need {kind} '{component}', which no installed plugin registers.")
        problem = _check_file(weights)
        if problem:
            yield f"Weights '{weights.id}': {problem}"
    total = sum(weights.bytes for weights in registry.weights)
    if total > MAX_RELEASED_BYTES:
        yield f"Released weights have {total} bytes together, more than {MAX_RELEASED_BYTES}."


def _check_file(weights: ReleasedWeights) -> str:
    try:
        data = packaged_file(weights.file).read_bytes()
    except FileNotFoundError:
        return f"file '{weights.file}' is missing."
    except (OSError, RegistryError) as error:
        return f"file '{weights.file}' cannot be read: {error}"
    if len(data) != weights.bytes:
        return f"file '{weights.file}' has {len(data)} bytes, expected {weights.bytes}."
    found = hashlib.sha256(data).hexdigest()
    if found != weights.sha256:
        return f"file '{weights.file}' has sha256 {found[:12]}…, expected {weights.sha256[:12]}…."
    return ""


def _check_suites(registry: Registry) -> Iterator[str]:
    for suite in registry.suites:
        try:
            tomllib.loads(packaged_file(suite.file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            yield f"Suite '{suite.name}': file '{suite.file}' is missing."
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RegistryError) as error:
            yield f"Suite '{suite.name}': file '{suite.file}' cannot be read: {error}"


def _check_plugins(registry: Registry, catalogue: Catalogue) -> Iterator[str]:
    registered = {(spec.kind, spec.id): catalogue.provenance(spec).distribution for spec in catalogue.all()}
    listed: dict[tuple[str, str], str] = {}
    for plugin in registry.plugins:
        installed = _is_installed(plugin.distribution, catalogue)
        for component in plugin.components:
            key: tuple[str, str] = (component.kind, component.id)
            if key in listed:
                yield f"{_title(key)} is listed under both '{listed[key]}' and '{plugin.name}'."
            listed[key] = plugin.name
            if installed and key not in registered:
                yield f"{_title(key)} is listed under '{plugin.name}', but is not registered."
    for key, distribution in registered.items():
        if distribution == FIRST_PARTY and key not in listed:
            yield f"{_title(key)} is registered by '{FIRST_PARTY}', but not listed."


def _title(key: tuple[str, str]) -> str:
    return f"{key[0].capitalize()} '{key[1]}'"


def _is_installed(distribution: str, catalogue: Catalogue) -> bool:
    if any(report.dist == distribution for report in catalogue.reports):
        return True
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
