from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from ufe_core import ComponentConfig
from ufe_core.config import build_config, defaults_of, describe_options, parse_overrides
from ufe_core.errors import ConfigError


class Augmentation(ComponentConfig):
    rotate_deg: float = Field(5.0, ge=0, le=30, description="Largest rotation")


class Options(ComponentConfig):
    backbone: Literal["small", "large"] = Field("small", description="Which network")
    cells: Annotated[int, Field(ge=1)] = Field(16, le=64)
    sizes: tuple[int, ...] = (1, 2)
    label: str | None = None
    augmentation: Augmentation = Augmentation()


class Needy(ComponentConfig):
    steps: int = Field(ge=1)


class Needier(Options):
    root: str


class Consistent(ComponentConfig):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def build(*assignments, model=Options):
    return build_config(model, parse_overrides([f"x.{a}" for a in assignments]).get("x", {}), owner="acme/fovea")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("3", 3),
        ("-1e-3", -1e-3),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("'single'", "single"),
        ("1_000", 1000),
        ("small_100", "small_100"),
        ("a=b", "a=b"),
        ("", ""),
        ("2024-01-01", "2024-01-01"),
        ("NaN", "NaN"),
        ("inf", "inf"),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_values_are_read_as_json_then_toml_then_text(raw, value):
    parsed = parse_overrides([f"encoder.field={raw}"])
    assert parsed == {"encoder": {"field": value}}
    assert type(parsed["encoder"]["field"]) is type(value)


def test_overrides_nest_and_the_last_one_wins():
    assert parse_overrides(["a.x=1", "b.y.z=2", "a.x=3", "b.y.w=4"]) == {
        "a": {"x": 3},
        "b": {"y": {"z": 2, "w": 4}},
    }


@pytest.mark.parametrize("text", ["", "a", "a=1", "a.b", ".b=1", "a.=1", "a..b=1"])
def test_malformed_override_shows_the_form(text):
    with pytest.raises(ConfigError, match=r"is not of the form KIND.OPTION=VALUE, e.g. 'training.steps=200'"):
        parse_overrides([text])


def test_contradicting_overrides_are_refused():
    with pytest.raises(ConfigError, match="another assignment sets as a whole"):
        parse_overrides(["a.x=1", "a.x.y=2"])
    with pytest.raises(ConfigError, match="another assignment sets a part"):
        parse_overrides(["a.x.y=2", "a.x=1"])


def test_unknown_owner_suggests():
    with pytest.raises(ConfigError, match=r"options can be set of: encoder, decoder. Did you mean 'encoder'\?"):
        parse_overrides(["encodr.x=1"], owners=["encoder", "decoder"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "cels=1",
            "Option 'cels' is not known to 'acme/fovea' (options: backbone, cells, sizes, label, "
            "augmentation.rotate_deg). Did you mean 'cells'?",
        ),
        ("zzzz=1", "Option 'zzzz' is not known to 'acme/fovea' (options: backbone, cells,"),
        ("cells=0", "Option 'cells' of 'acme/fovea' is 0; expected integer >= 1, <= 64."),
        ("cells=many", "Option 'cells' of 'acme/fovea' is 'many'; expected integer"),
        ("backbone=huge", "Option 'backbone' of 'acme/fovea' is 'huge'; expected 'small' or 'large'."),
        ("sizes=[1, 2.5]", "Option 'sizes' of 'acme/fovea' is 2.5; expected list of integer."),
        (
            "augmentation.rotate_deg=NaN",
            "Option 'augmentation.rotate_deg' of 'acme/fovea' is 'NaN'; expected number",
        ),
        ("augmentation.rotate=1", "Did you mean 'augmentation.rotate_deg'?"),
    ],
)
def test_wrong_option_says_what_was_found_and_what_is_expected(assignment, message):
    with pytest.raises(ConfigError) as caught:
        build(assignment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_wrong_options_take_two_lines():
    with pytest.raises(ConfigError) as caught:
        build("cells=0", "backbone=huge", "nothing=1", "label=[]")
    first, second = str(caught.value).split("\n")
    assert "'backbone'" in first
    assert second.endswith("(and 2 more)")


def test_missing_option_and_rules_over_several():
    with pytest.raises(
        ConfigError, match="Option 'steps' of 'acme/fovea' has no default and must be set: integer >= 1"
    ):
        build(model=Needy)
    with pytest.raises(ConfigError, match="Options of 'acme/fovea': low is above high."):
        build("low=3", model=Consistent)


def test_defaults_are_those_of_the_options_that_have_one():
    assert defaults_of(Options) == defaults_of(Needier) == Options().model_dump(mode="json")
    assert defaults_of(Needy) == {}


def test_good_values_are_coerced_and_frozen():
    options = build("cells=8", "label=123", "augmentation.rotate_deg=1", "sizes=[3]")
    assert (options.cells, options.label, options.augmentation.rotate_deg, options.sizes) == (
        8,
        "123",
        1.0,
        (3,),
    )
    with pytest.raises(ValidationError, match="frozen"):
        options.cells = 9


def test_describe_options_lists_type_default_bounds_description():
    described = {option.name: option.as_dict() for option in describe_options(Options)}
    assert list(described) == ["backbone", "cells", "sizes", "label", "augmentation.rotate_deg"]
    assert described["augmentation.rotate_deg"] == {
        "name": "augmentation.rotate_deg",
        "type": "number",
        "default": "5.0",
        "bounds": ">= 0, <= 30",
        "description": "Largest rotation",
    }
    assert described["label"]["type"] == "text or none"
    assert described["label"]["default"] == "null"
    assert described["sizes"]["default"] == "[1, 2]"
    assert describe_options(Needy)[0].default == ""
