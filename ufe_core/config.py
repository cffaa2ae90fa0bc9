"""Options of components: pydantic models, `--set` overrides, and errors a user can act on."""

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from ufe_core.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ModelT = TypeVar("ModelT", bound=BaseModel)

_BOUNDS = {
    "ge": ">= {}",
    "gt": "> {}",
    "le": "<= {}",
    "lt": "< {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matching {}",
}
_TYPE_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "none"}


class ComponentConfig(BaseModel):
    """Base of every option model: frozen, unknown fields refused, no NaN or infinity.

    Give each field a bound where it has one and a description: `ufe plugins show` and the error messages
    print them.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )


@dataclass(frozen=True)
class OptionInfo:
    """One option as help shows it.

    Attributes:
        name: dotted where the option lies in a nested model.
        type: in words, e.g. `integer` or `'a' or 'b'`.
        default: JSON text; empty if the option is required.
        bounds: e.g. `>= 1, <= 64`; empty if there are none.
        description: the field's own.
    """

    name: str
    type: str
    default: str
    bounds: str
    description: str

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return f"{self.type} {self.bounds}".strip()

    def as_dict(self) -> dict[str, str]:
        """Return the fields, for JSON."""
        return asdict(self)


def describe_options(model: type[BaseModel]) -> list[OptionInfo]:
    """List the options of a config model, nested ones as `outer.inner`, in the order they are declared."""
    return list(_walk_options(model, ""))


def parse_overrides(assignments: Sequence[str], *, owners: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Read `owner.field=value` assignments, as `--set` takes them.

    A value is read as JSON, then as TOML, and taken as plain text if it is neither: `3`, `1e-3`, `true`,
    `null`, `[1, 2]`, `mobilenet`. The last assignment of a field wins. A field of a nested model is
    `owner.outer.inner`.

    Args:
        assignments: e.g. `["encoder.backbone=small", "training.steps=10"]`.
        owners: the owners that may be set; any if empty.

    Raises:
        ConfigError: an assignment is malformed, names an unknown owner, or contradicts another.
    """
    result: dict[str, dict[str, Any]] = {}
    for text in assignments:
        left, equals, raw = text.partition("=")
        path = [part.strip() for part in left.split(".")]
        if not equals or len(path) < 2 or not all(path):
            known = f", with a KIND of {', '.join(owners)}" if owners else ", e.g. 'training.steps=200'"
            raise ConfigError(f"'{text}' is not of the form KIND.OPTION=VALUE{known}.")
        if owners and path[0] not in owners:
            raise ConfigError(
                f"'{text}' sets an option of {path[0]!r}; options can be set of: {', '.join(owners)}."
                f"{did_you_mean(path[0], owners)}"
            )
        table = result.setdefault(path[0], {})
        for part in path[1:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"'{text}' sets a part of an option that another assignment sets as a whole.")
        if isinstance(table.get(path[-1]), dict):
            raise ConfigError(f"'{text}' sets an option as a whole of which another assignment sets a part.")
        table[path[-1]] = _parse_value(raw.strip())
    return result


def build_config(model: type[ModelT], overrides: Mapping[str, Any], *, owner: str, kind: str | None = None) -> ModelT:
    """Validate overrides into a config.

    Args:
        model: the option model.
        overrides: field values; what is left out keeps its default.
        owner: whose options these are, for messages, e.g. `ufe/univ`.
        kind: of that component, where `--set` sets them.

    Raises:
        ConfigError: one line for each of at most two wrong options.
    """
    try:
        return model.model_validate(dict(overrides))
    except ValidationError as error:
        problems = error.errors(include_url=False)
    options = describe_options(model)
    lines = list(dict.fromkeys(_explain(problem, options, owner, kind) for problem in problems))
    if len(lines) > 2:
        lines = [lines[0], f"{lines[1]} (and {len(lines) - 2} more)"]
    raise ConfigError("\n".join(lines))


def defaults_of(model: type[ComponentConfig]) -> dict[str, Any]:
    """The defaults of those options that have one, as JSON values."""
    return model.model_construct().model_dump(mode="json")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ` Did you mean 'x'?` with the nearest known word, or nothing if none is near.

    Nearest is what begins with the word, at a length that says something.
    """
    begun = [one for one in known if len(word) > 2 and one.lower().startswith(word.lower())]
    near = difflib.get_close_matches(word, begun or known, n=1, cutoff=0.0 if begun else 0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _parse_value(raw: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        return json.loads(raw, parse_constant=refuse)
    except ValueError:
        pass
    try:
        table = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    value = table["value"]
    # Dates, `inf` and a second line are TOML, but what the user meant was text.
    if len(table) > 1 or isinstance(value, float) or not isinstance(value, (bool, int, str, list, dict)):
        return raw
    return value


def _explain(problem: ErrorDetails, options: Sequence[OptionInfo], owner: str, kind: str | None) -> str:
    names = [option.name for option in options]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return (
            f"Option {path!r} is not known to {owner!r} (options: {', '.join(names) or 'none'})."
            f"{did_you_mean(path, names)}"
        )
    # A location may go on into a list index or the branch of a union: name the option it belongs to.
    option = next((o for o in options if path == o.name or path.startswith(f"{o.name}.")), None)
    if problem["type"] == "missing":
        about = f": {option.expected}" if option else ""
        how = f" Give --set {kind}.{path}=VALUE." if kind is not None else ""
        return f"Option {path!r} of {owner!r} has no default and must be set{about}.{how}"
    reason = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if option is None:
        where = f"Option {path!r} of {owner!r}" if path else f"Options of {owner!r}"
        return f"{where}: {reason}."
    found = _shown(problem["input"])
    if problem["type"] in ("value_error", "assertion_error"):
        return f"Option {option.name!r} of {owner!r} is {found}: {reason}."
    return f"Option {option.name!r} of {owner!r} is {found}; expected {option.expected}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _walk_options(model: type[BaseModel], prefix: str) -> Iterator[OptionInfo]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _walk_options(inner, f"{prefix}{name}.")
            continue
        yield OptionInfo(
            name=f"{prefix}{name}",
            type=_type_text(inner),
            default=_default_text(field),
            bounds=_bounds_text(field),
            description=field.description or "",
        )


def _default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if default is PydanticUndefined:
        return ""
    return json.dumps(default, default=lambda value: value.value if isinstance(value, Enum) else str(value))


def _bounds_text(field: FieldInfo) -> str:
    parts = []
    for key, words in _BOUNDS.items():
        for item in field.metadata:
            value = getattr(item, key, None)
            if value is not None:
                parts.append(words.format(value))
    return ", ".join(parts)


def _type_text(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _TYPE_WORDS:
        return _TYPE_WORDS[annotation]
    if origin is Literal:
        return " or ".join(repr(value) for value in args)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(repr(member.value) for member in annotation)
    if origin in (Union, UnionType):
        return " or ".join(_type_text(part) for part in args)
    if origin in (list, set, frozenset, Sequence) or (origin is tuple and args[-1:] == (...,)):
        return f"list of {_type_text(args[0])}"
    if origin is tuple:
        return f"list of {len(args)}: " + ", ".join(_type_text(part) for part in args)
    if hasattr(annotation, "__metadata__"):
        return _type_text(args[0])
    if isinstance(annotation, type):
        return {"Path": "path"}.get(annotation.__name__, annotation.__name__)
    return str(annotation).replace("typing.", "")
