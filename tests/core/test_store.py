import enum
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ufe_core import ComponentConfig, store
from ufe_core.errors import ArtifactError
from ufe_core.store import Store, canonical_json, code_fingerprint, default_root, fingerprint, write_atomic

needs_posix = pytest.mark.skipif(os.name != "posix", reason="kills processes")


class Colour(enum.Enum):
    RED = "red"


class Options(ComponentConfig):
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)


def run_python(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def leftovers(root, kind):
    return sorted(path.name for path in (root / kind / ".building").iterdir())


def test_default_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("UFE_HOME", str(tmp_path / "x"))
    assert default_root() == tmp_path / "x"
    assert Store().root == tmp_path / "x"
    monkeypatch.delenv("UFE_HOME")
    assert default_root().name == "ufe"


def test_canonical_json_is_one_text_per_value():
    assert canonical_json({"b": (1, 2.0), "a": {"z": None, "y": True}}) == '{"a":{"y":true,"z":null},"b":[1,2.0]}'
    assert canonical_json([Colour.RED, Path("a/b"), Options()]) == '["red","a/b",{"rate":0.5,"sizes":[1,2]}]'
    assert canonical_json("ø") == '"\\u00f8"'


def test_fingerprint_is_stable_and_sensitive():
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.0})
    assert fingerprint(Options()) == fingerprint({"sizes": [1, 2], "rate": 0.5})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0.0, float("nan")]}, r"value\.a\[1\]: it is nan"),
        ({"a": float("inf")}, "it is inf"),
        ({1: 2}, "key 1 is not text"),
        ({"a": {3}}, r"value\.a: set has no place in JSON"),
    ],
)
def test_fingerprint_refuses_what_has_no_canonical_form(value, message):
    with pytest.raises(ArtifactError, match=message):
        fingerprint(value)


def test_code_fingerprint_sees_source_and_imports_nothing(tmp_path, monkeypatch):
    package = tmp_path / "acme_code"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__", "model", "inner/__init__"):
        (package / f"{name}.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_fingerprint("acme_code.model")
    whole = code_fingerprint("acme_code")
    assert code_fingerprint("acme_code.model", "acme_code.model") == before
    (package / "model.py").write_bytes(b"raise AssertionError('imported')\r\n")
    assert code_fingerprint("acme_code.model") == before
    (package / "model.py").write_text("changed = True\n")
    assert code_fingerprint("acme_code.model") != before
    assert code_fingerprint("acme_code") != whole
    assert code_fingerprint("acme_code.inner") not in (before, whole)
    assert not any(name.startswith("acme_code") for name in sys.modules)


WRITTEN = '''"""What it is for."""

def area(a, b):
    """Of a rectangle.

    Args: a, b.
    """
    # sides
    text = "# no comment"

    return a * b, text, ("""kept""", f"""one {a}
    two

    three""")
'''


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("What it is for.", "What it does.", False),
        ("    # sides\n", "", False),
        ("    Args: a, b.\n", "    Args:\n        a, b: sides.\n", False),
        ("\n\n    return", "\n    return", False),
        ('three""")', 'three""")  # both', False),
        ("two\n", "two \n", True),
        ("two\n\n", "two\n", True),
        ("# no comment", "# other text", True),
        ("a * b", "a + b", True),
        ("kept", "changed", True),
        ("    return", "        return", True),
        ("def area", "def \nbroken", True),
    ],
)
def test_code_fingerprint_sees_what_runs_alone(tmp_path, monkeypatch, old, new, counts):
    (tmp_path / "acme_words.py").write_text(WRITTEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_fingerprint("acme_words")
    assert old in WRITTEN
    (tmp_path / "acme_words.py").write_text(WRITTEN.replace(old, new))
    assert (code_fingerprint("acme_words") != before) is counts


@pytest.mark.parametrize("name", ["no_such_module", "ufe_core.no_such", "ufe_core.store.deeper"])
def test_code_fingerprint_names_a_missing_module(name):
    with pytest.raises(ArtifactError, match=f"module '{name}': it is not installed"):
        code_fingerprint(name)


def test_code_fingerprint_needs_source():
    with pytest.raises(ArtifactError, match="'sys': it has no Python source"):
        code_fingerprint("sys")


@pytest.mark.parametrize("key", ["", "..", ".hidden", "a/b", "a\\b", "a b"])
def test_bad_keys_are_refused(tmp_path, key):
    with pytest.raises(ArtifactError, match="Store key .* is not allowed"):
        Store(tmp_path).path("kind", key)


def test_building_appears_whole(tmp_path):
    there = Store(tmp_path)
    with there.building("captures", "abc") as folder:
        (folder / "a.txt").write_text("a")
        assert not there.has("captures", "abc")
    assert (there.path("captures", "abc") / "a.txt").read_text() == "a"
    assert leftovers(tmp_path, "captures") == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_building_that_fails_leaves_nothing(tmp_path, error):
    there = Store(tmp_path)
    with pytest.raises(error), there.building("captures", "abc") as folder:
        (folder / "a.txt").write_text("a")
        raise error
    assert not there.has("captures", "abc")
    assert leftovers(tmp_path, "captures") == []


def test_the_loser_of_a_race_discards_its_own(tmp_path):
    there = Store(tmp_path)
    with there.building("captures", "abc") as slow:
        (slow / "who").write_text("slow")
        with there.building("captures", "abc") as fast:
            (fast / "who").write_text("fast")
    assert (there.path("captures", "abc") / "who").read_text() == "fast"
    assert leftovers(tmp_path, "captures") == []


@needs_posix
def test_folders_of_killed_processes_are_cleaned_and_live_ones_kept(tmp_path):
    code = (
        "import time; from ufe_core.store import Store\n"
        f"with Store({str(tmp_path)!r}).building('captures', 'abc') as f:\n"
        "    (f / 'half').write_text('x'); print('ready', flush=True); time.sleep(60)"
    )
    process = run_python(code)
    assert process.stdout.readline() == "ready\n"
    there = Store(tmp_path)
    with there.building("captures", "other"):
        assert len(leftovers(tmp_path, "captures")) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    with there.building("captures", "other2"):
        assert len(leftovers(tmp_path, "captures")) == 1
    assert not there.has("captures", "abc")


def numbered(folder):
    """What `made` is given to load: the number in the folder, or None."""
    try:
        return int((folder / "n").read_text())
    except (OSError, ValueError):
        return None


def test_what_is_made_once_is_loaded_and_made_again_where_it_is_damaged(tmp_path):
    here, built = Store(tmp_path), []

    def build(folder):
        assert not list(folder.iterdir())
        built.append(folder)
        (folder / "n").write_text(str(len(built)))

    assert [here.made("things", "k", numbered, build) for _ in range(3)] == [1, 1, 1]
    (here.path("things", "k") / "n").write_text("dam")
    assert here.made("things", "k", numbered, build) == 2 and len(built) == 2
    with pytest.raises(ZeroDivisionError):
        here.made("things", "other", numbered, lambda folder: 1 / 0)
    assert not here.has("things", "other") and leftovers(tmp_path, "things") == []
    with pytest.raises(ArtifactError, match="was made, and cannot be read"):
        here.made("things", "other", numbered, lambda folder: None)


def test_who_comes_while_a_thing_is_made_waits_for_it(tmp_path):
    here, built, waits = Store(tmp_path), [], []

    def build(folder):
        built.append(folder)
        time.sleep(0.5)
        (folder / "n").write_text("7")

    def go():
        found.append(here.made("things", "k", numbered, build, on_wait=waits.append))

    found = []
    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7, 7, 7] and len(built) == 1 and len(waits) == 2


def test_remove(tmp_path):
    there = Store(tmp_path)
    with there.building("captures", "abc") as folder:
        (folder / "a").write_text("a")
    there.remove("captures", "abc")
    there.remove("captures", "abc")
    assert not there.has("captures", "abc")
    assert leftovers(tmp_path, "captures") == []


def test_write_atomic_replaces_and_leaves_no_trace(tmp_path):
    file = tmp_path / "new" / "a.json"
    write_atomic(file, b"one")
    write_atomic(file, b"two")
    assert file.read_bytes() == b"two"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomic(file, b"one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"Cannot write 'a.json' in '.*': the disk is full\. .*UFE_HOME"):
        write_atomic(file, b"two")
    assert file.read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_while_building_is_one_clear_line(tmp_path):
    with pytest.raises(ArtifactError, match="Cannot make captures 'abc' in '.*captures': the disk is full"):
        with Store(tmp_path).building("captures", "abc"):
            raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), Store(tmp_path).building("captures", "abc"):
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/else")


def test_a_store_that_cannot_be_written_says_how_to_mend_it(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", denied)
    monkeypatch.setenv("UFE_HOME", str(tmp_path / "new"))
    with pytest.raises(ArtifactError, match="no permission to write there. Mend that, or set UFE_HOME to a folder of"):
        with Store().building("captures", "abc"):
            pass
    with pytest.raises(ArtifactError, match="no permission to write there. Mend that, or write to a folder of"):
        write_atomic(tmp_path / "out" / "picture.png", b"")


def test_a_file_in_place_of_the_store_is_named(tmp_path):
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(ArtifactError, match=r"home.* is in the way: not a folder"):
        with Store(tmp_path / "home").building("captures", "abc"):
            pass


def test_lock_is_exclusive_and_released(tmp_path):
    there = Store(tmp_path)
    holders = []
    with there.lock("weights", "abc"):
        with pytest.raises(ArtifactError, match=rf"Weights 'abc' is being made by process {os.getpid()} on host"):
            with there.lock("weights", "abc", timeout_s=0.0):
                pass
        with there.lock("weights", "other", timeout_s=0.0):
            pass
        waiter = threading.Thread(target=lambda: there.lock("weights", "abc", on_wait=holders.append).__enter__())
        waiter.start()
        while not holders:
            time.sleep(0.01)
    waiter.join(timeout=5)
    assert not waiter.is_alive()
    assert str(os.getpid()) in holders[0]


def test_lock_is_released_by_an_error(tmp_path):
    there = Store(tmp_path)
    with pytest.raises(ValueError), there.lock("weights", "abc"):
        raise ValueError
    with there.lock("weights", "abc", timeout_s=0.0):
        pass
    assert list((tmp_path / "weights").iterdir()) == []


@needs_posix
def test_lock_of_a_killed_process_is_taken_over(tmp_path):
    code = (
        "import time; from ufe_core.store import Store\n"
        f"with Store({str(tmp_path)!r}).lock('weights', 'abc'):\n"
        "    print('ready', flush=True); time.sleep(60)"
    )
    process = run_python(code)
    assert process.stdout.readline() == "ready\n"
    there = Store(tmp_path)
    with pytest.raises(ArtifactError, match=f"process {process.pid} on host"):
        with there.lock("weights", "abc", timeout_s=0.0):
            pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with there.lock("weights", "abc", timeout_s=0.0):
        pass


def _add_one(root, counter):
    with Store(root).lock("weights", "abc"):
        value = int(Path(counter).read_text())
        time.sleep(0.02)
        Path(counter).write_text(str(value + 1))


def test_lock_holds_between_processes_that_all_meet_a_stale_one(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    stale = tmp_path / "weights" / ".abc.lock"
    stale.parent.mkdir()
    identity = store._process_identity()
    stale.write_text(canonical_json({**identity, "pid": "999999999", "token": "x"}))
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    workers = [context.Process(target=_add_one, args=(tmp_path, counter)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert counter.read_text() == "4"


def test_lock_of_another_host_is_judged_by_its_heartbeat(tmp_path):
    there = Store(tmp_path)
    file = tmp_path / "weights" / ".abc.lock"
    file.parent.mkdir()
    file.write_text(canonical_json({"host": "elsewhere", "pid": "1", "born": "0", "token": "x"}))
    with pytest.raises(ArtifactError, match=r"process 1 on host elsewhere.*delete '.*\.abc\.lock'"):
        with there.lock("weights", "abc", timeout_s=0.0):
            pass
    long_ago = time.time() - 3600
    os.utime(file, (long_ago, long_ago))
    with there.lock("weights", "abc", timeout_s=0.0):
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs process start times")
def test_a_reused_process_id_is_not_taken_for_the_owner(tmp_path):
    file = tmp_path / "weights" / ".abc.lock"
    file.parent.mkdir()
    file.write_text(canonical_json({**store._process_identity(), "born": "1", "token": "x"}))
    with Store(tmp_path).lock("weights", "abc", timeout_s=0.0):
        pass


def test_store_imports_no_torch():
    code = "import sys, ufe_core.store, ufe_core.config, ufe_core.plugins; print('torch' in sys.modules)"
    process = run_python(code)
    assert process.communicate()[0].strip() == "False"
