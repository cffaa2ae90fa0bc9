"""Folders of packed captures: packed by several processes, listed, and told from what was packed there."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ufe_core.errors import DataError
from ufe_core.interfaces.source import HMCSource
from ufe_core.packed import PackedCapture, PackEvent, PackRequest, open_packed, pack, results_of
from ufe_core.packed_file import DATA
from ufe_core.packed_meta import META, read_meta
from ufe_core.store import Store, fingerprint, write_atomic

_MANIFESTS = "manifests"


def pack_in_processes(
    create: Callable[[], HMCSource[Any]], subjects: Sequence[str], request: PackRequest, *, store: Store,
    processes: int, listener: Callable[[PackEvent], None] | None = None,
) -> list[PackedCapture]:  # fmt: skip
    """What `pack` does, a capture at a time in each of several processes; the bytes are the same.

    Args:
        create: makes the source, in each process anew; it must pickle.
        subjects: whose captures, in the order of the result.
        request: what to take of each.
        store: where they are kept.
        processes: how many.
        listener: called with news from all of them, from one thread.

    Raises:
        DataError: as `pack`; or a process was ended from outside.
        ArtifactError: the disk is full, or the store cannot be written.
    """
    context = multiprocessing.get_context("spawn")
    events, stop = context.SimpleQueue(), context.Event()
    news = _News(events, listener or (lambda event: None), stop)
    news.start()
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_prepare, initargs=(create, request, store.root, events, stop)
    )
    try:
        futures = [pool.submit(_pack_one, subject) for subject in subjects]
        wait(futures, return_when=FIRST_EXCEPTION)
        stop.set()
        if news.error is not None:
            raise news.error
        return [open_packed(path) for path in results_of(futures)]
    except BrokenProcessPool as error:
        raise DataError(
            "A packing process was ended from outside, perhaps for want of memory. Run the same command again: it "
            "goes on after the last finished block; fewer --processes need less memory."
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        events.put(None)
        news.join()


class _News(threading.Thread):
    """Passes on what workers tell. Where the listener fails they are stopped, and heard out, or they would wait."""

    def __init__(self, events: Any, listener: Callable[[PackEvent], None], stop: Any) -> None:
        super().__init__(daemon=True)
        self._events, self._listener, self._stop_workers = events, listener, stop
        self.error: Exception | None = None

    def run(self) -> None:
        while (event := self._events.get()) is not None:
            if self.error is not None:
                continue
            try:
                self._listener(event)
            except Exception as error:  # raised where the workers are waited for
                self.error = error
                self._stop_workers.set()


_worker: dict[str, Any] = {}


def _prepare(create: Callable[[], HMCSource[Any]], request: PackRequest, root: Path, events: Any, stop: Any) -> None:
    """Begin a worker: Ctrl-C reaches its parent, which tells it to stop; it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(create=create, request=request, store=Store(root), events=events, stop=stop)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _pack_one(subject: str) -> Path:
    if "source" not in _worker:
        _worker["source"] = _worker["create"]()
    (packed,) = pack(
        _worker["source"], [subject], _worker["request"], store=_worker["store"], threads=1,
        listener=_worker["events"].put, stopped=_worker["stop"].is_set,
    )  # fmt: skip
    return packed.path


def packed_folders(root: Path) -> list[Path]:
    """Folders of the packed captures below a folder: a store, a folder of captures, or one capture itself."""
    if (root / META).exists() or (root / DATA).exists():
        return [root]
    inner = root / "captures"
    if inner.is_dir():
        return sorted(folder for folder in inner.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if (folder / META).exists() or (folder / DATA).exists())


def write_manifest(root: Path, captures: Sequence[PackedCapture]) -> None:
    """Note in a folder what was packed there, so that a capture that is lost on the way is missed.

    Raises:
        ArtifactError: the disk is full, or the folder cannot be written.
    """
    listed = {c.path.name: {"subject": c.subject, "capture": c.capture, "sha256": c.sha256} for c in captures}
    name = f"{fingerprint(sorted(listed))[:16]}.json"
    write_atomic(root / _MANIFESTS / name, json.dumps({"captures": listed}, indent=1, sort_keys=True).encode())


def missing_captures(root: Path) -> Iterator[tuple[Path, str]]:
    """Captures that a folder should hold, by its manifests, and does not, or not as packed: path and reason."""
    for file in sorted((root / _MANIFESTS).glob("*.json")):
        try:
            listed = json.loads(file.read_text())["captures"]
            expected = [(root / "captures" / key, entry["capture"], entry["sha256"]) for key, entry in listed.items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield file, f"{file} cannot be read ({type(error).__name__}: {error}). Pack again, or delete it."
            continue
        for path, capture, sha256 in expected:
            if not path.is_dir():
                yield path, f"{path} is missing: capture {capture!r} was packed here. Copy or pack it again."
                continue
            with contextlib.suppress(DataError):  # damage is told of by whoever reads it
                if read_meta(path)["sha256"] != sha256:
                    yield path, f"{path} is not what was packed here as capture {capture!r}. Copy or pack it again."
