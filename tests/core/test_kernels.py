"""Warp modules are loaded once, whichever thread asks first; memory settings are asked for politely."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import torch

from ufe_core.memory import ask_for_large_pages, keep_pages
from ufe_core.ops import kernels


def test_threads_that_ask_at_once_get_a_loaded_module_that_was_loaded_once(monkeypatch):
    loads, busy = [], threading.Lock()

    def load_module(module, device, block_dim):
        assert busy.acquire(blocking=False), "two modules are loaded at the same time"
        time.sleep(0.05)
        loads.append((module.name, device, block_dim))
        busy.release()

    fake = SimpleNamespace(load_module=load_module, device_from_torch=str)
    monkeypatch.setattr(kernels, "warp", lambda: fake)
    modules = [SimpleNamespace(name=name) for name in ("a", "b")]
    seen = []

    def ask(module):
        kernels.load(module, torch.device("cpu"))
        seen.append(module.name in [name for name, *_ in loads])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, modules * 8))
    assert all(seen) and sorted(loads) == [("a", "cpu", 1), ("b", "cpu", 1)]


def test_a_module_of_kernels_comes_ready_to_launch():
    module = kernels.kernels("ufe_core.ops.rasterize_warp")
    assert module.depth_test.module.name == "ufe_core.ops.rasterize_warp"
    assert kernels.kernels("ufe_core.ops.rasterize_warp") is module


def test_large_pages_are_asked_for_unless_the_user_said_otherwise(monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    ask_for_large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    ask_for_large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


def test_nothing_is_said_where_the_c_library_keeps_no_pages(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    keep_pages()
