"""The documents, and the commands and snippets in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = "python -m pytest"


def blocks(page: Path, *languages: str) -> list[str]:
    """What stands in the page's blocks of code."""
    return re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", page.read_text(), re.S)


def commands(page: Path) -> Iterator[str]:
    """Lines of the page's blocks that run something, in order, without what is said of them.

    A comment begins with its sign or after two spaces; options may be aligned by spaces too. Only the README's second
    command is left out: it runs the tests that this is for.
    """
    for block in blocks(page, "bash", "text"):
        for line in block.splitlines():
            for part in line.split("&&"):
                words = re.split(r"\s{2,}(?![-\s])|\s#\s|;", part.strip())[0]
                if words.startswith(("ufe ", "python -m ", "torchrun ")) and "..." not in words and words != TESTS:
                    yield words
