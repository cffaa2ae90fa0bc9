"""Hooks of the documentation's site: pages that lie elsewhere in the checkout, the commands, and links into the code.

A document's link to a file outside `docs/` leads to a page with that file, so that the site is whole by itself.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Pages that lie elsewhere, to where the site has them.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "ufe_core/CONVENTIONS.md": "conventions.md",
}
_LINK = re.compile(r"(\]\(|src=\")([^)#\s\"]+)")
_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json"}


def on_files(files: Files, config: Any) -> Files:
    """Add what is not in `docs/`."""
    for place, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / place).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference/commands.md", content=_commands()))
    files.append(File.generated(config, "result-2.schema.json", content=_schema()))
    waiting = [(page, (ROOT / place).read_text(encoding="utf-8")) for place, page in ELSEWHERE.items()]
    waiting += [(file.src_uri, file.content_string) for file in files.documentation_pages() if not file.generated_by]
    while waiting:
        for target in _outside(*waiting.pop()):
            uri = _uri(target)
            if files.get_file_from_path(uri) is None:
                files.append(_added(config, target, uri))
                if target.suffix == ".md":
                    waiting.append((uri, (ROOT / target).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to where the site has their files."""
    here = page.file.src_uri

    def led(match: re.Match[str]) -> str:
        target = _target(here, match[2])
        if target is None:
            return match[0]
        return match[1] + posixpath.relpath(_uri(target), posixpath.dirname(here) or ".")

    return _LINK.sub(led, markdown)


def _outside(page: str, text: str) -> list[Path]:
    found = (_target(page, match[2]) for match in _LINK.finditer(text))
    return [target for target in found if target is not None and not _uri(target).startswith("..")]


def _target(page: str, link: str) -> Path | None:
    """The file that a link of a page leads to, from the checkout's root; None where it leads to no file."""
    if "://" in link or link.startswith(("mailto:", "data:")):
        return None
    homes = {site: place for place, site in ELSEWHERE.items()}
    home = homes.get(page, f"docs/{page}")
    home = home.removeprefix("docs/source/")  # a page of a file, as it lies in the checkout
    target = Path(posixpath.normpath(posixpath.join(posixpath.dirname(home), link)))
    return target if (ROOT / target).is_file() else None


def _uri(target: Path) -> str:
    """Where the site has a file of the checkout."""
    place = target.as_posix()
    if place in ELSEWHERE:
        return ELSEWHERE[place]
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return f"source/{place}" + (".md" if target.suffix in _LANGUAGES else "")


def _added(config: Any, target: Path, uri: str) -> File:
    """A file of the checkout, code as a page."""
    if target.suffix not in _LANGUAGES:
        return File.generated(config, uri, abs_src_path=str(ROOT / target))
    text, language = (ROOT / target).read_text(encoding="utf-8"), _LANGUAGES[target.suffix]
    return File.generated(config, uri, content=f"# {target.as_posix()}\n\n````{language}\n{text}````\n")


def _commands() -> str:
    """Every command with what its `--help` says."""
    from ufe_core.cli.main import cli

    parts = ["# Commands\n", "What `ufe COMMAND --help` prints.\n"]

    def add(command: click.Command, context: click.Context, depth: int) -> None:
        if depth:
            title = f"{'#' * min(depth + 1, 4)} {context.command_path}"
            parts.append(f"{title}\n\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None and not inner.hidden:
                    add(inner, click.Context(inner, info_name=name, parent=context, terminal_width=100), depth + 1)

    add(cli, click.Context(cli, info_name="ufe", terminal_width=100), 0)
    return "\n".join(parts)


def _schema() -> str:
    from ufe_bench.schema import json_schema

    return json.dumps(json_schema(), indent=2)
