"""Where a command is to write is looked at before the work."""

import os

import pytest

from ufe_core.errors import ConfigError
from ufe_core.targets import check_target


@pytest.mark.parametrize(
    ("place", "endings", "make", "line"),
    [
        ("", (), False, "is a folder. Give the name of a file."),
        ("", (".png",), False, "is a folder. Give the name of a file that ends in .png."),
        ("a.txt", (".png", ".gif"), False, "has to end in .png or .gif."),
        ("none/a.png", (".png",), False, "there is no folder '{root}/none'. Make it first."),
        ("file/a.png", (".png",), False, "'{root}/file' is no folder."),
        ("file/none/a.png", (".png",), True, "'{root}/file' is no folder."),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, place, endings, make, line):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as told:
        check_target(tmp_path / place, endings, option="--here", make=make)
    assert str(told.value).startswith(f"--here '{tmp_path / place}'")
    assert str(told.value).endswith(line.format(root=tmp_path))


def test_what_can_be_written_passes(tmp_path, monkeypatch):
    check_target(tmp_path / "a.PNG", (".png",))
    check_target(tmp_path / "none" / "nor this" / "a", make=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=f"no permission to write in '{tmp_path}'"):
        check_target(tmp_path.relative_to(tmp_path) / "a.png")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--encoder", "mean", "--out"), ("pretrain", "run", "--out"), ("pretrain", "preview", "--out"),
        ("anchors", "search", "--out"), ("keypoints", "find", "--out"), ("source", "preview", "--out"),
        ("avatar", "render", "--out"),
    ],
    ids=lambda words: "-".join(words[:2]),
)  # fmt: skip
def test_commands_look_before_they_work(ufe, tmp_path, words):
    (tmp_path / "file").write_text("")
    ending = ".json" if words[0] == "anchors" else ".png"
    code, out, err = ufe(*words, tmp_path / "file" / f"a{ending}")
    assert code == 1 and not out and f"'{tmp_path}/file' is no folder." in err and err.count("\n") == 1
