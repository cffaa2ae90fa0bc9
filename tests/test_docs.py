"""The documents say what is so: names exist, links lead somewhere, commands are commands."""

import ast
import json
import re
import shlex

import click
import pytest

from ufe_bench.suite import load_suite
from ufe_core.cli.main import cli

from .documents import PAGES, ROOT, commands


def defined(path):
    """Names of a module's classes, functions and methods."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_code_exists(page):
    for path, name in re.findall(r"`([\w/]+\.py)::([\w.]+)`", page.read_text()):
        assert name in defined(ROOT / path), f"{page.name}: {path} has no {name}"


def test_the_conventions_list_the_actions_in_their_order():
    from ufe_core.head import ACTIONS

    text = (ROOT / "ufe_core" / "CONVENTIONS.md").read_text()
    rows = re.findall(r"^\| (\d+)-(\d+) \| (.*) \|$", text, re.M)
    assert [name for _, _, names in rows for name in names.split(", ")] == list(ACTIONS)
    assert all(len(names.split(", ")) == int(last) - int(first) + 1 for first, last, names in rows)


def test_the_readmes_numbers_are_the_published_ones():
    text = (ROOT / "README.md").read_text().partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    rows = {cells[0]: cells[1:] for cells in re.findall(r"^\| (`.*?) \|" + 5 * r" (.*?) \|" + "$", text, re.M)}
    folder = ROOT / "benchmarks" / "results" / load_suite("main").id
    found = {name: json.loads(file.read_text())["summary"] for name, file in (
        (name, next(folder.glob(f"{place}/*.json"))) for name, place in (
            ("`univ` + `late_fusion`, released weights", "ufe__univ__late_fusion"), ("`neutral`", "ufe__neutral"),
            ("`mean`", "ufe__mean"),
        )
    )}  # fmt: skip
    assert rows.keys() == found.keys()
    for name, cells in rows.items():
        for cell, (metric, value), floor in zip(cells, found[name].items(), found["`mean`"].values(), strict=True):
            ratio = "" if name == "`mean`" else f" ({value['mean'] / floor['mean']:.2f} ×)"
            assert cell == f"{value['mean']:.{2 if metric == 'gaze' else 3}f}{ratio}", f"{name}, {metric}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    "words",
    sorted({words for page in PAGES for words in commands(page) if words.startswith("ufe ")}),
    ids=lambda words: words[:70],
)
def test_every_command_and_option_exists(words):
    """As far as parsing goes: names of commands and options, and no words too many, as of a comment taken for some."""
    command, rest = cli, shlex.split(words)[1:]
    context = click.Context(cli)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None, name
    _, extra, _ = command.make_parser(click.Context(command)).parse_args(rest)
    assert not extra, words
