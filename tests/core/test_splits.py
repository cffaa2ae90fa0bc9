"""Whom methods learn from and whom they are measured on, for sources that say so and sources that do not."""

import pytest
from fake_source import FakeSource

from ufe_core.errors import DataError, PluginError, RegistryError
from ufe_core.splits import find_split, held_out_people, refuse_held_out, splits_of, training_people


class Divided(FakeSource):
    parts = {"train": ["P1", "P2"], "test": ["P3"]}  # noqa: RUF012

    def subjects(self):
        return ("P1", "P2", "P3", "P4")

    def split(self):
        return self.parts


def divided(**parts):
    source = Divided()
    source.parts = parts or Divided.parts
    return source


def test_a_source_that_divides_its_people_trains_on_its_own_part_alone():
    split = find_split("acme/lab", "acme/lab", divided())
    assert (split.part("train"), split.part("test")) == (("P1", "P2"), ("P3",))
    assert training_people("acme/lab", divided()) == ("P1", "P2")
    assert held_out_people("acme/lab", divided()) == {"P3"}


def test_everybody_who_is_held_out_is_refused_and_nobody_else():
    source = divided()
    refuse_held_out("acme/lab", source, ["P1", "P2", "P4"])
    with pytest.raises(DataError, match="Subjects P3 are held out for testing: no training may read them"):
        refuse_held_out("acme/lab", source, ["P1", "P3"])
    refuse_held_out("acme/lab", FakeSource(), ["P3"])
    registered = splits_of("ufe/synthetic", source)["synthetic"]
    refuse_held_out("ufe/synthetic", source, registered.train)
    for subject in registered.test:
        with pytest.raises(DataError, match=subject):
            refuse_held_out("ufe/synthetic", source, [registered.train[0], subject])


def test_the_registry_goes_before_what_a_source_says_of_itself():
    (name,) = splits_of("ufe/synthetic", divided())
    assert name == "synthetic" and len(training_people("ufe/synthetic", divided())) == 234


def test_a_source_that_says_nothing_trains_on_everybody_and_measures_nobody():
    source = FakeSource()
    assert training_people("acme/lab", source) == source.subjects() and splits_of("acme/lab", source) == {}
    with pytest.raises(RegistryError, match="'acme/lab' does not say whom it holds out: give it a method `split`"):
        find_split("acme/lab", "acme/lab", source)


def test_nobody_to_train_on_is_said():
    with pytest.raises(DataError, match="nobody to train on"):
        training_people("acme/lab", divided(test=["P1"]))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("synthetic", DataError, "'synthetic' is of 'ufe/synthetic', not of 'acme/lab'.*split = 'acme/lab'"),
        ("other/lab", DataError, "'other/lab' is of 'other/lab'"),
        ("synthetik", RegistryError, "No split 'synthetik'. Did you mean 'synthetic'"),
    ],
)
def test_a_split_of_another_source_is_refused(name, error, message):
    with pytest.raises(error, match=message):
        find_split(name, "acme/lab", divided())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": ["P1"], "test": ["P1"]}, "names twice: P1"),
        ({"train": ["P1"], "test": ["P9"]}, "whom the source does not have: P9"),
        ({"train": ["P1"], "val": ["P2"]}, "a part besides train and test: val"),
    ],
)
def test_a_split_that_cannot_be_right_is_refused(parts, message):
    with pytest.raises(PluginError, match=message):
        splits_of("acme/lab", divided(**parts))
