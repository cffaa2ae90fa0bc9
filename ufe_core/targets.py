"""Where a command is to write: refused before the work, not after it, if that cannot be done."""

import os
from collections.abc import Sequence
from pathlib import Path

from ufe_core.errors import ConfigError


def check_target(out: Path, endings: Sequence[str] = (), *, option: str = "--out", make: bool = False) -> None:
    """Refuse a place where a file cannot be written.

    Args:
        out: the file.
        endings: what its name may end in; anything, where there are none.
        option: which names it.
        make: whether folders that are not there are made for it.

    Raises:
        ConfigError: it is a folder, has another ending, or lies in none that can be written.
    """
    listed = ", ".join(endings[:-1]) + f" or {endings[-1]}" if len(endings) > 1 else "".join(endings)
    if out.is_dir():
        wanted = f" that ends in {listed}" if endings else ""
        raise ConfigError(f"{option} '{out}' is a folder. Give the name of a file{wanted}.")
    if endings and out.suffix.lower() not in endings:
        raise ConfigError(f"{option} '{out}' has to end in {listed}.")
    folder = out.absolute().parent
    while make and not os.path.lexists(folder):
        folder = folder.parent
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{option} '{out}': '{folder}' is no folder.")
    if not folder.is_dir():
        raise ConfigError(f"{option} '{out}': there is no folder '{out.parent}'. Make it first.")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{option} '{out}': no permission to write in '{folder}'.")
