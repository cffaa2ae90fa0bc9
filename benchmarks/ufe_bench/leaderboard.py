"""The leaderboard, from result files alone: `LEADERBOARD.md` and pages that open without a network.

Equal results give equal bytes: nothing here reads a clock, a path outside the given folders, or the network.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ufe_bench.aggregate import RankAgreement
from ufe_bench.board import BrokenFile, Extras, StudyReport, build_board
from ufe_bench.board_markdown import render_markdown
from ufe_bench.board_pages import MARK, render_pages
from ufe_bench.failure import FOLDER as FAILURES
from ufe_bench.failure import Failure, load_failure
from ufe_bench.schema import Result, load_result
from ufe_core.errors import ArtifactError, DataError
from ufe_core.store import Store, default_root, write_atomic

STUDY = "study.json"  # lies among results, and is none
FIGURES = "figures"  # of a study, beside its results: a page and its pictures
PICTURE = "study.png"
_PAGES = ("suites", "methods", FIGURES)  # folders of a leaderboard, made anew each time

LoadedT = TypeVar("LoadedT")


@dataclass(frozen=True)
class Collection:
    """What was found in the result folders."""

    results: tuple[Result, ...]
    broken: tuple[BrokenFile, ...]
    duplicates: int
    figures: Mapping[str, Path]
    """Suite to the folder of its figures."""
    studies: Mapping[str, Path]
    """Suite to the folder of its study's report."""
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Built:
    """What `build_leaderboard` wrote."""

    markdown: Path
    html: Path
    pages: int
    results: int
    duplicates: int
    failures: int
    broken: tuple[BrokenFile, ...]


def default_results() -> list[Path]:
    """The user's results and the published ones: in the package (a wheel), or beside it (a checkout)."""
    here = Path(__file__).parent
    packaged, checkout = here / "results", here.parent / "results"
    published = [packaged] if packaged.is_dir() else []
    # Beside an installed package a folder of that name would be someone else's.
    if not published and checkout.is_dir() and (here.parent.parent / "pyproject.toml").is_file():
        published = [checkout]
    return [default_root() / "results", *published]


def collect(folders: Sequence[Path]) -> Collection:
    """Read every `.json` below `folders`. Of equal `run_id`s the newest stays; broken files are reported.

    Figures and report of a suite are those of the first folder that has some. A failure is the newest of its command,
    and none where a result of that command is there. A folder that does not exist holds no results.
    """
    found: dict[str, Result] = {}
    figures: dict[str, Path] = {}
    studies: dict[str, Path] = {}
    failures: dict[tuple[str, str, str], Failure] = {}
    broken: list[BrokenFile] = []
    duplicates = 0
    for folder in folders:

        def read(path: Path, load: Callable[[Path], LoadedT], folder: Path = folder) -> LoadedT | None:
            try:
                return load(path)
            except DataError as error:
                inside = path.relative_to(folder).as_posix()
                broken.append(BrokenFile(inside, str(error).replace(str(path), path.name)))
                return None

        for page in sorted(folder.glob(f"*/{FIGURES}/index.html")):
            figures.setdefault(page.parents[1].name, page.parent)
        for path in sorted(folder.rglob("*.json")):
            if path.name == STUDY:
                studies.setdefault(path.parent.name, path.parent)
            elif path.parent.name == FAILURES:
                failure = read(path, load_failure)
                if failure is not None:
                    same = failure.suite, failure.method, failure.command
                    failures[same] = max(failures.get(same, failure), failure, key=lambda one: one.created)
            elif (result := read(path, load_result)) is not None:
                known = found.get(result.run_id)
                duplicates += known is not None
                if known is None or _age(result) > _age(known):
                    found[result.run_id] = result
    made = {(result.key.suite, result.command) for result in found.values()}
    return Collection(
        results=tuple(found[run_id] for run_id in sorted(found)),
        broken=tuple(sorted(broken, key=lambda b: (b.path, b.reason))),
        duplicates=duplicates,
        figures=figures,
        studies=studies,
        failures=tuple(failures[same] for same in sorted(failures) if (same[0], same[2]) not in made),
    )


def build_leaderboard(folders: Sequence[Path], out: Path) -> Built:
    """Write `LEADERBOARD.md`, `index.html` and the pages it leads to into `out`, from what lies below `folders`.

    Raises:
        ArtifactError: `out` has pages in it that are no leaderboard's.
    """
    found = collect(folders)
    board = build_board(found.results)
    suites = {ground.key.suite for ground in board}
    extras = Extras(
        figures={suite: f"{FIGURES}/{suite}/index.html" for suite in found.figures if suite in suites},
        studies={suite: _report(found.studies[suite], suite) for suite in found.studies if suite in suites},
        failures=found.failures, broken=found.broken,
    )  # fmt: skip
    pages = render_pages(board, extras)
    _clear(out)
    out.mkdir(parents=True, exist_ok=True)
    for suite in extras.figures:
        shutil.copytree(found.figures[suite], out / FIGURES / suite)
    for suite, report in extras.studies.items():
        if report.picture is not None:
            picture = out / report.picture
            picture.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.studies[suite] / PICTURE, picture)
    for path, text in pages.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out / path, text.encode())
    markdown, html = out / "LEADERBOARD.md", out / "index.html"
    write_atomic(markdown, render_markdown(board, extras).encode())
    return Built(
        markdown, html, len(pages), len(found.results), found.duplicates, len(found.failures), found.broken
    )  # fmt: skip


def rebuild_own(store: Store, folders: Sequence[Path]) -> Built:
    """Write the leaderboard of a store, into its folder `leaderboard`; processes that end together do it in turn."""
    with store.lock("leaderboard", "pages"):
        return build_leaderboard(folders, store.root / "leaderboard")


def _report(folder: Path, suite: str) -> StudyReport:
    """A study's report as its files say; one that cannot be read says nothing."""
    picture = f"{FIGURES}/{suite}.png" if (folder / PICTURE).is_file() else None
    try:
        content = json.loads((folder / STUDY).read_text(encoding="utf-8"))
        agreement = {
            str(name): RankAgreement(
                float(one["tau"]), (float(one["ci95"][0]), float(one["ci95"][1])), int(one["rows"])
            )
            for name, one in content["rank_agreement"].items()
        }
        failed = {str(row["title"]): str(row["error"]) for row in content["rows"] if row["error"] is not None}
        rows = {str(row["title"]): str(row["run_id"]) for row in content["rows"] if row["error"] is None}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return StudyReport(picture=picture)
    return StudyReport(agreement, failed, rows, picture)


def _clear(out: Path) -> None:
    """Take away what an earlier leaderboard left in its folders, and nothing else's."""
    index, there = out / "index.html", [out / name for name in _PAGES if (out / name).is_dir()]
    ours = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")
    foreign = [path for path in (index, *there) if path.exists() and not ours]
    if foreign:
        raise ArtifactError(f"'{foreign[0]}' is not a leaderboard's: give --out a folder of its own.")
    for folder in there:
        shutil.rmtree(folder)


def _age(result: Result) -> tuple[str, str]:
    return result.created, result.model_dump_json()
