"""Pickles from elsewhere: what is listed comes back, nothing else is named, nothing is executed or altered."""

import collections
import io
import os
import pickle

import pytest

from ufe_core.errors import DataError
from ufe_core.safe_pickle import Function, load_pickle, refusing

ALLOWED = {("collections", "OrderedDict"): collections.OrderedDict, ("made", "total"): Function(lambda *n: sum(n))}
TOTAL = b"cmade\ntotal\n"


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def read(data, path, **options):
    with refusing(path):
        return load_pickle(io.BytesIO(data), ALLOWED, part_of="a sum", **options)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
class TestEachProtocol:
    def test_what_is_listed_and_plain_containers_come_back(self, tmp_path, protocol):
        value = collections.OrderedDict(a=[1, 2.5, None, True], b=({"x": "y"}, 2**70), c=(), d="ä")
        found = read(pickle.dumps(value, protocol), tmp_path)
        assert found == value and type(found) is collections.OrderedDict

    def test_a_trap_does_not_spring(self, tmp_path, protocol):
        data = pickle.dumps({1: Trap(tmp_path / "sprung")}, protocol)
        with pytest.raises(DataError, match=r"names '(posix|nt)\.mkdir', which is no part of a sum\.$"):
            read(data, tmp_path)
        assert not list(tmp_path.iterdir())


def test_a_listed_function_is_called(tmp_path):
    assert read(TOTAL + b"(I1\nI2\ntR.", tmp_path) == 3


@pytest.mark.parametrize("data", [
    b"cos\nsystem\n(S'true'\ntR.",
    b"cbuiltins\neval\n(S'1'\ntR.",
    b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x011\x85R.",
    b"(S'1'\nibuiltins\neval\n.",  # the opcode of old classes
    b"\x82\x01.", b"\x84\xff\xff\xff\x7f.",  # codes of the extension registry
    b"ccollections\nabc.Mapping\n.", b"\x80\x04\x8c\x04made\x8c\x0etotal.__class__\x93.",  # a path to something else
    TOTAL + b"}S'_call'\nI1\nsb.",  # state: a dictionary, then one for slots
    TOTAL + b"(N}S'_call'\nI1\nstb.",
    TOTAL + b"(S'one'\nS'two'\ntR.",
    b"ccollections\nOrderedDict\n(N}S'x'\nI1\nstb.",
    b"Pname\n.", b"\x80\x02K\x01Q.",  # persistent names, which nobody here reads
    b"(lp0\n", b"", b"garbage", b"\x80\x04\x95", b"\x80\x09.",
])  # fmt: skip
def test_anything_else_is_refused_in_one_line(tmp_path, data):
    with pytest.raises(DataError, match=r"x\.pkl is refused or damaged: ") as caught:
        read(data, tmp_path / "x.pkl")
    assert "\n" not in str(caught.value)
    assert read(TOTAL + b"(I1\nI2\ntR.", tmp_path) == 3 and not hasattr(collections.OrderedDict, "x")


def test_persistent_names_are_the_callers(tmp_path):
    assert read(b"\x80\x02K\x01Q.", tmp_path, persistent=lambda name: f"<{name}>") == "<1>"


class TestRefusing:
    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ValueError("one.\ntwo"), "f is refused or damaged: one."),
            (MemoryError(), "f is refused or damaged: MemoryError."),
            (RecursionError("too deep"), "f is refused or damaged: too deep."),
            (FileNotFoundError(2, "No such file or directory"), "f cannot be read: No such file or directory."),
            (OSError("odd"), "f cannot be read: odd."),
            (DataError("said already."), "said already."),
        ],
    )
    def test_an_error_becomes_one_line_that_names_the_file(self, error, message, tmp_path):
        with pytest.raises(DataError) as caught, refusing(tmp_path / "f"):
            raise error
        assert str(caught.value).removeprefix(f"{tmp_path}{os.sep}") == message

    def test_an_interruption_goes_through(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), refusing(tmp_path):
            raise KeyboardInterrupt
