"""Rows of a study in processes of their own: which of them, when, and what becomes of their ends."""

import os
import signal
import sys
import threading
import time

import pytest

from ufe_bench.study_workers import RowWorkers
from ufe_bench.suite import SuiteRow

PROCESS = """
import os, signal, sys, time
words = sys.argv[1:]
row = words[words.index("--row") + 1]
say = lambda text: print(text, file=sys.stderr, flush=True)
say(f"began {time.monotonic()} {'--floors' in words} {os.environ['OMP_NUM_THREADS']} {' '.join(words[:3])}")
try:
    if row == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60 if row.startswith("long") else 0.4)
except KeyboardInterrupt:
    say("finished work is kept")
    sys.exit(130)
say(f"ended {time.monotonic()}")
sys.exit(row == "fails")
"""


def row(name, tuned_as=None):
    return SuiteRow(name=name, title=name, encoder="mean", tuned_as=tuned_as)


def workers(said, count=2, **options):
    return RowWorkers(
        ["--suite", "mine"], count, said, command=lambda words: [sys.executable, "-c", PROCESS, *words], **options
    )


def facts(said, word):
    """What each row said after a word."""
    lines = [line.split(": ", 1) for line in said if f": {word} " in line]
    return {name: text.split()[1:] for name, text in lines}


def test_as_many_rows_as_asked_run_at_a_time_and_each_after_the_one_whose_search_it_shares(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    said = []
    workers(said.append)([row("a"), row("b", tuned_as="a"), row("c"), row("d", tuned_as="c")])
    began, ended = facts(said, "began"), facts(said, "ended")
    times = {name: (float(began[name][0]), float(ended[name][0])) for name in "abcd"}
    assert times["b"][0] > times["a"][1] and times["d"][0] > times["c"][1]
    assert times["c"][0] < times["a"][1], "two at a time"
    for moment, _ in times.values():
        assert sum(start <= moment < end for start, end in times.values()) <= 2
    assert [began[name][1] for name in "abcd"] == ["True", "False", "False", "False"], "floors once, for all"
    threads = str(max(1, os.cpu_count() // 2))
    assert all(facts_of[2:] == [threads, "bench", "--suite", "mine"] for facts_of in began.values())
    assert said[-1].startswith("4 of 4 rows have ended")


def test_where_no_floors_are_asked_for_none_are_measured():
    said = []
    workers(said.append, floors=False)([row("a")])
    assert facts(said, "began")["a"][1] == "False"


def test_a_row_that_fails_or_is_killed_stops_no_other():
    said = []
    workers(said.append)([row("killed"), row("fails"), row("a")])
    assert facts(said, "ended").keys() == {"fails", "a"}
    (line,) = [line for line in said if "was killed" in line]
    assert line.startswith("killed: its process was killed, most likely for want of memory. It is tried again")


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_ctrl_c_reaches_all_that_run_and_nothing_more_is_begun(times):
    said, began, pressed = [], time.monotonic(), threading.Lock()

    def listen(line):  # in a thread of each process: both may find that both have begun
        said.append(line)
        if sum(": began " in one for one in said) == 2 and pressed.acquire(blocking=False):
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        if "stopping" in line and times == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with none
    try:
        with pytest.raises(KeyboardInterrupt):
            workers(listen)([row("long1"), row("long2"), row("never")])
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 30 and facts(said, "began").keys() == {"long1", "long2"}
    if times == 1:
        assert sorted(line for line in said if "is kept" in line) == [
            "long1: finished work is kept", "long2: finished work is kept",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--workers", "2"), "Suite 'main@6' has no rows; --workers is for studies such as table3."),
        (("--suite", "table3", "--workers", "2", "--fresh"), "Rows share trainings, which --fresh would make in each"),
    ],
)  # fmt: skip
def test_what_has_no_use_for_processes_is_refused(ufe, words, line):
    code, out, err = ufe("bench", *words)
    assert code == 1 and not out and line in err and err.count("\n") == 1
