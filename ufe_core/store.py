"""The artifact store: everything made is kept under a key of exactly what it was made from.

A thing appears under its final name whole or not at all. Layout: `UFE_HOME/<kind>/<key>/`, with work in
progress in `UFE_HOME/<kind>/.building/`. Deleting any of it is safe: it is made again.
"""

import contextlib
import errno
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import math
import os
import re
import secrets
import shutil
import socket
import sys
import threading
import time
import tokenize
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path, PurePath
from typing import Any, TypeVar

from ufe_core.errors import DISK_FULL, ArtifactError

MadeT = TypeVar("MadeT")

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_HEARTBEAT_S = 30.0
_FOREIGN_LOCK_STALE_S = 15 * 60.0
_FOREIGN_FOLDER_STALE_S = 24 * 3600.0
_UNREADABLE_LOCK_STALE_S = 10.0
_POLL_S = 0.2
_GOES_ON = "\0"  # after a line that ends inside a text: it is kept to its end
_TEXT = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
_ENDS = {tokenize.NEWLINE, tokenize.COMMENT, tokenize.ENDMARKER}  # of a statement


def default_root() -> Path:
    """Return the folder named by `UFE_HOME`, else the user's cache folder."""
    home = os.environ.get("UFE_HOME")
    if home:
        return Path(home).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("ufe", appauthor=False))


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII.

    Takes JSON values, tuples, paths, enums and pydantic models.

    Raises:
        ArtifactError: the value holds NaN, infinity, a key that is not text, or what JSON cannot say.
    """
    return json.dumps(_plain(value, "value"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the sha256 (64 hex digits) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def code_fingerprint(*module_names: str) -> str:
    """Return the sha256 of the source of modules, without importing them or their parents.

    A package stands for every `.py` file below it. Comments, docstrings, empty lines and line endings do not count.

    Raises:
        ArtifactError: a module is not installed or has no Python source.
    """
    digest = hashlib.sha256()
    for name in sorted(set(module_names)):
        for label, path in _source_files(name):
            about = path.stat()
            source = _what_runs(path, about.st_mtime_ns, about.st_size)
            digest.update(f"{label}\0{len(source)}\0".encode())
            digest.update(source)
    return digest.hexdigest()


@functools.cache
def _what_runs(path: Path, modified_ns: int, size: int) -> bytes:
    """The lines of a module without what changes nothing: comments, docstrings, empty lines."""
    source = path.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    lines = source.split("\n")
    cuts: list[tuple[tuple[int, int], tuple[int, int]]] = []
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        tokens = []  # it does not run; all of it counts
    for token in tokens:
        if token.type in _TEXT:
            for row in range(token.start[0] - 1, token.end[0] - 1):
                lines[row] += _GOES_ON
    begins = True  # whether a statement begins with this token
    for token, following in itertools.pairwise(tokens):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and begins and following.type in _ENDS):
            cuts.append((token.start, token.end))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            begins = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for (top, left), (bottom, right) in reversed(cuts):
        lines[top - 1 : bottom] = [lines[top - 1][:left] + lines[bottom - 1][right:]]
    kept = (line.rstrip() for line in lines)
    return "\n".join(line.removesuffix(_GOES_ON) for line in kept if line).encode("utf-8", "surrogateescape")


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that readers see the old content or all of the new, even after a power cut.

    Raises:
        ArtifactError: the disk is full, or the folder cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with explained(f"write '{target.name}'", target.parent):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def explained(what: str, where: Path, *, only_full: bool = False) -> Iterator[None]:
    """Turn a full disk, missing permission or bad folder met inside into one clear `ArtifactError`.

    Args:
        what: the attempt, as in "cannot <what>".
        where: the folder it concerns.
        only_full: for code that also touches other folders: a missing permission there is not about `where`.
    """
    try:
        yield
    except OSError as error:
        remedy = "set UFE_HOME to" if where.absolute().is_relative_to(default_root()) else "write to"
        if error.errno in DISK_FULL:
            reason = "the disk is full. Free some space, or write to a larger disk (UFE_HOME, or the command's --out)"
        elif only_full:
            raise
        elif error.errno in _DENIED:
            reason = f"no permission to write there. Mend that, or {remedy} a folder of your own"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            reason = f"'{error.filename}' is in the way: not a folder. Move it, or {remedy} another folder"
        else:
            raise
        raise ArtifactError(f"Cannot {what} in '{where}': {reason}.") from error


class Store:
    """Folders of finished things, by kind and key.

    Args:
        root: the folder of the store; `default_root()` if left out.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root).absolute() if root is not None else default_root()

    def path(self, kind: str, key: str) -> Path:
        """Return where a thing is, or would be, kept. Nothing is created."""
        for label, text in (("kind", kind), ("key", key)):
            if not _SEGMENT.fullmatch(text):
                raise ArtifactError(
                    f"Store {label} {text!r} is not allowed: letters, digits, '.', '_' and '-' only, "
                    "starting with a letter or digit."
                )
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        """Tell whether a finished thing is there."""
        return self.path(kind, key).is_dir()

    def remove(self, kind: str, key: str) -> None:
        """Delete a thing, e.g. one found damaged. Nothing happens if it is not there."""
        target = self.path(kind, key)
        if not os.path.lexists(target):
            return
        with explained(f"remove {kind} '{key}'", target.parent):
            # Out of sight in one step, so that no reader meets half of it.
            doomed = self._private_folder(kind, key)
            with contextlib.suppress(FileNotFoundError):
                os.rename(target, doomed / "removed")
            shutil.rmtree(doomed, ignore_errors=True)

    @contextlib.contextmanager
    def building(self, kind: str, key: str) -> Iterator[Path]:
        """Give an empty private folder that becomes `path(kind, key)` when the block ends without an error.

        On an error the folder is removed. If another process finished the same key first, its result stays
        and this one is dropped: equal keys mean equal content. What killed processes left behind is cleaned
        up.

        Raises:
            ArtifactError: the disk is full, or the store cannot be written.
        """
        target = self.path(kind, key)
        what = f"make {kind} '{key}'"
        with explained(what, target.parent):
            self._clean(kind)
            folder = self._private_folder(kind, key)
        try:
            with explained(what, target.parent, only_full=True):
                yield folder
            with explained(what, target.parent):
                try:
                    os.rename(folder, target)
                except OSError:
                    if not target.is_dir():
                        raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def made(
        self, kind: str, key: str, load: Callable[[Path], MadeT | None], build: Callable[[Path], None], *,
        on_wait: Callable[[str], None] | None = None,
    ) -> MadeT:  # fmt: skip
        """A thing, loaded where it is there, else made by one process while others wait.

        Args:
            kind: kind of the thing.
            key: its key.
            load: reads it from its folder; None where it is not there, or not whole: it is made again then.
            build: makes it, in an empty folder.
            on_wait: as for `lock`.

        Raises:
            ArtifactError: the disk is full, or the store cannot be written.
        """
        path = self.path(kind, key)
        found = load(path)
        if found is None:
            with self.lock(kind, key, on_wait=on_wait):
                found = load(path)  # another process may have made it while this one waited
                if found is None:
                    self.remove(kind, key)
                    with self.building(kind, key) as folder:
                        build(folder)
                    found = load(path)
        if found is None:
            raise ArtifactError(f"{kind} '{key}' was made, and cannot be read: is something else writing to {path}?")
        return found

    @contextlib.contextmanager
    def lock(
        self,
        kind: str,
        key: str,
        *,
        timeout_s: float | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> Iterator[None]:
        """Hold the right to make a thing, for work too long to do twice; wait while another process does.

        The lock of a process that died is taken over. Check `has` again once inside.

        Args:
            kind: kind of the thing.
            key: its key.
            timeout_s: how long to wait; forever if None.
            on_wait: called once with the holder, e.g. "process 12 on host a", when there is a wait.

        Raises:
            ArtifactError: the wait was too long, or the store cannot be written.
        """
        target = self.path(kind, key)
        file = target.parent / f".{key}.lock"
        mine = json.dumps({**_process_identity(), "token": secrets.token_hex(8)}, sort_keys=True)
        with explained(f"lock {kind} '{key}'", target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._acquire(file, mine, f"{kind} '{key}'", timeout_s, on_wait)
        done = threading.Event()
        threading.Thread(target=_beat, args=(file, done), name="ufe-lock", daemon=True).start()
        try:
            yield
        finally:
            done.set()
            with contextlib.suppress(OSError):
                if file.read_text() == mine:
                    file.unlink()

    def _acquire(
        self, file: Path, mine: str, what: str, timeout_s: float | None, on_wait: Callable[[str], None] | None
    ) -> None:
        start = time.monotonic()
        told = False
        while not _create_exclusively(file, mine):
            if _lock_is_stale(file):
                _break_stale_lock(file)
                continue
            holder = _holder(file)
            if timeout_s is not None and time.monotonic() - start >= timeout_s:
                raise ArtifactError(
                    f"{what[0].upper()}{what[1:]} is being made by {holder}. Wait for it; "
                    f"if that process is gone, delete '{file}'."
                )
            if on_wait is not None and not told:
                on_wait(holder)
                told = True
            time.sleep(_POLL_S)

    def _private_folder(self, kind: str, key: str) -> Path:
        me = _process_identity()
        name = "~".join((key, me["host"], me["pid"], me["born"], secrets.token_hex(4)))
        folder = self.root / kind / ".building" / name
        folder.mkdir(parents=True)
        return folder

    def _clean(self, kind: str) -> None:
        with contextlib.suppress(OSError):
            for folder in (self.root / kind / ".building").iterdir():
                owner = dict(zip(("key", "host", "pid", "born", "token"), folder.name.split("~"), strict=False))
                if _is_gone(owner, folder, _FOREIGN_FOLDER_STALE_S):
                    shutil.rmtree(folder, ignore_errors=True)


def _plain(value: Any, where: str) -> Any:
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if value is None or (isinstance(value, (bool, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ArtifactError(f"Cannot fingerprint {where}: it is {value}, and only finite numbers have a place.")
        return float(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ArtifactError(f"Cannot fingerprint {where}: key {key!r} is not text.")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ArtifactError(f"Cannot fingerprint {where}: {type(value).__name__} has no place in JSON.")


def _source_files(name: str) -> list[tuple[str, Path]]:
    spec = _find_spec(name)
    if spec is None:
        raise ArtifactError(f"Cannot fingerprint module '{name}': it is not installed.")
    if spec.submodule_search_locations is not None:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        files = [(f"{name}/{file.relative_to(f).as_posix()}", file) for f in folders for file in f.rglob("*.py")]
        files.sort()
    else:
        files = [(name, Path(spec.origin or ""))]
    if not files or any(path.suffix != ".py" for _, path in files):
        raise ArtifactError(f"Cannot fingerprint module '{name}': it has no Python source.")
    return files


def _find_spec(name: str) -> ModuleSpec | None:
    # importlib.util.find_spec("a.b") would import "a"; walking down by hand does not.
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:
        return None
    full = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        full = f"{full}.{part}"
        spec = PathFinder.find_spec(full, list(spec.submodule_search_locations))
    return spec


def _process_identity() -> dict[str, str]:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "unknown"
    return {"host": host, "pid": str(os.getpid()), "born": _start_time(os.getpid())}


def _start_time(pid: int) -> str:
    """Return when a process started, `0` where unknown: tells it from a later one with the same id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _is_running(pid: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        # os.kill(pid, 0) would end the process on Windows.
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_gone(owner: Mapping[str, Any], evidence: Path, foreign_stale_s: float) -> bool:
    """Tell whether the process `owner` describes has ended; on another host, judge by the file's age."""
    try:
        pid = int(owner["pid"])
        host, born = owner["host"], owner["born"]
    except (KeyError, ValueError, TypeError):
        return _age_s(evidence) > foreign_stale_s
    if host != _process_identity()["host"]:
        return _age_s(evidence) > foreign_stale_s
    if not _is_running(pid):
        return True
    return "0" not in (born, _start_time(pid)) and born != _start_time(pid)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _create_exclusively(file: Path, text: str) -> bool:
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    return True


def _read_owner(file: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _lock_is_stale(file: Path) -> bool:
    owner = _read_owner(file)
    if owner is None:  # gone, or created but not yet written
        return _age_s(file) > _UNREADABLE_LOCK_STALE_S
    return _is_gone(owner, file, _FOREIGN_LOCK_STALE_S)


def _break_stale_lock(file: Path) -> None:
    # Two waiters may both see a dead lock. Only the one that holds the guard may remove it, and looks again
    # first: otherwise the slower one would remove the lock that the faster one just took.
    guard = file.with_name(f"{file.name}.break")
    if not _create_exclusively(guard, ""):
        if _age_s(guard) > _UNREADABLE_LOCK_STALE_S:
            guard.unlink(missing_ok=True)
        time.sleep(_POLL_S)
        return
    try:
        if _lock_is_stale(file):
            file.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _holder(file: Path) -> str:
    owner = _read_owner(file) or {}
    return f"process {owner.get('pid', '?')} on host {owner.get('host', '?')}"


def _beat(file: Path, done: threading.Event) -> None:
    while not done.wait(_HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(file)
