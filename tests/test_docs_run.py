"""Every command in a block of the documents is run, word for word, with few people, few frames, few steps."""

import glob
import os
import re
import shlex
import site
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ufe_bench import anchor_search, anchors_cli, evaluate
from ufe_bench import suite as suite_module
from ufe_core import budgets, config, plugins, registry
from ufe_core.cli import export, packing
from ufe_core.plugins import catalogue
from ufe_core.registry import load_registry, packaged_file

from .documents import PAGES, ROOT, blocks, commands

pytestmark = pytest.mark.documents

TEST, TRAIN = 2, 30
STEPS = 8
FRAMES = 8
EXPORT = {"size": 64, "headset_size": 48}
SEARCH = {"candidates": "neutral,jaw_open", "most": 1, "validation": 2, "frames": 4}
#: What a reader puts in the place of these words.
A_RESULT = re.compile(r"(RESULT|RUN|benchmarks/results/\S+)\.json\b")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def shrink(monkeypatch, folder):
    """Make everything small that decides how long a command takes; no command is changed for it."""
    whole = registry.registry_path().read_text()
    people = load_registry().splits["synthetic"]
    for part, count in (("test", TEST), ("train", TRAIN)):
        few = ", ".join(f'"{one}"' for one in getattr(people, part)[:count])
        whole = re.sub(rf"^{part} = \[.*?^\]", f"{part} = [{few}]", whole, count=1, flags=re.S | re.M)
    whole = whole.replace(f"counts = {{ train = {len(people.train)}, test = {len(people.test)} }}",
                          f"counts = {{ train = {TRAIN}, test = {TEST} }}")  # fmt: skip
    file = folder / "registry.toml"
    file.write_text(whole)
    monkeypatch.setattr(registry, "registry_path", lambda: file)

    def small_suite(reference):
        text = packaged_file(reference).read_text()
        text = re.sub(r"^(frames|condition_frames|clip_frames) = .*$", r"\1 = 4", text, flags=re.M)
        text = re.sub(r"^steps = .*$", "", text, count=1, flags=re.M)  # those of the tuning stay
        text = re.sub(r"^(condition_)?clips = .*$", r"\1clips = 1", text, flags=re.M)
        text = re.sub(r"^render_size = .*$", "render_size = 32", text, flags=re.M)
        text = re.sub(r"^validation = .*$", "validation = 2", text, flags=re.M)
        head, *rows = re.split(r"(?=^\[\[rows\]\])", text, flags=re.M)
        head = head.partition("[[claims]]")[0]  # of rows that may not stay, as these may be
        rows = [re.sub(r"^(tuned_as|repeats|base) = .*\n", "", row, flags=re.M) for row in rows]
        kept = [
            row
            for row in rows
            if re.search(r'^name = "(fomm|necknet|late_fusion|none|own|perceptual_loss)"', row, re.M)
        ]
        if kept:
            head = re.sub(
                r"^base = .*$", f"base = {re.search(chr(34) + '[a-z_0-9]+' + chr(34), kept[-1])[0]}", head, flags=re.M
            )
        path = folder / Path(reference).name
        path.write_text(head + "".join(kept or rows[:2]))
        return path

    monkeypatch.setattr(suite_module, "packaged_file", small_suite)
    for budget in ("cpu", "gpu"):
        monkeypatch.setitem(budgets._BUDGETS, budget, budgets._BUDGETS["smoke"])
        for spec in catalogue().all():
            if spec.kind == "pretraining" and "smoke" in spec.presets:
                monkeypatch.setitem(spec.presets, budget, spec.presets["smoke"])
            trained_by = getattr(spec.load(), "trained_by", None) if spec.kind in ("decoder", "detector") else None
            if trained_by is not None:
                monkeypatch.setitem(trained_by.presets, budget, trained_by.presets["smoke"])
    told = config.parse_overrides

    def few_steps(*assignments, **options):
        overrides = told(*assignments, **options)
        if "steps" in overrides.get("training", {}):
            overrides["training"]["steps"] = min(STEPS, overrides["training"]["steps"])
        return overrides

    monkeypatch.setattr(config, "parse_overrides", few_steps)
    for option in (*packing.pack.params, *export.export.params):
        if option.name == "frames":
            monkeypatch.setattr(option, "callback", lambda context, option, count: count and min(FRAMES, count))
    for command, small in ((export.export, EXPORT), (anchors_cli.search_sets, SEARCH)):
        for option in command.params:
            if option.name in small:
                monkeypatch.setattr(option, "default", small[option.name])
    # In this process, where everything is small.
    monkeypatch.setattr(anchor_search, "ProcessPoolExecutor", lambda count, **options: ThreadPoolExecutor(1))
    monkeypatch.setattr(evaluate, "_WARM_UP", 1)
    monkeypatch.setattr(evaluate, "_LATENCY_RUNS", 3)


@pytest.fixture
def small_world(home, monkeypatch, tmp_path):
    """A folder to work in, where everything is small."""
    shrink(monkeypatch, tmp_path)
    monkeypatch.setenv("UFE_HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield work
    monkeypatch.undo()
    plugins.catalogue.cache_clear()


def meant(word, home, page):
    """The arguments that a reader would give for a word of a command: in the tutorial, their own method's result."""
    if A_RESULT.search(word):
        assert not word.startswith("benchmarks/") or (ROOT / word).is_file(), f"{word} is not published"
        method = "acme__fovea" if page.name == "tutorial.md" else "ufe__neutral"
        found = home.glob(f"results/main@*/{method}/*.json")
        return [str(max(found, key=lambda path: path.stat().st_mtime))]
    if word == "source.root=/data/ava256":
        return [f"source.root={home / 'ava256'}"]
    if word == "PATH-OF-UFE":
        return [str(ROOT)]
    if word == "other/":
        return [str(home / "results")]
    if word.startswith("benchmarks/"):
        return [str(ROOT / word)]
    if word.startswith("~/.cache/ufe/"):
        return sorted(glob.glob(str(home / word.removeprefix("~/.cache/ufe/"))))
    return [word]


def written_as_ava256(ufe, root):
    """Captures in the public layout, with a list of everybody by which those on disk are for training."""
    code, _, err = ufe("source", "export", "--as", "ava256", "--out", root, "--set", "source.headset=ava256")
    assert code == 0, err
    people = root / "256_ids.csv"
    people.write_text(people.read_text() + "".join(f"20230101,X{k:03d},0000\n" for k in range(252)))


class Environment:
    """A reader's virtual environment, on top of this one: `pip install` finds here what a package needs."""

    def __init__(self, folder, monkeypatch):
        venv.create(folder)
        self._patch = monkeypatch
        self._python = str(folder / "bin" / "python")
        (self._packages,) = folder.glob("lib/python*/site-packages")
        below = "".join(f"import site; site.addsitedir({place!r})\n" for place in site.getsitepackages())
        (self._packages / "below.pth").write_text(below)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "false")  # which is how pip reads "none": hatchling is here
        monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")

    def run(self, words, folder="."):
        """Run `python ...` there; commands that follow in this process see what it installed."""
        done = subprocess.run([self._python, *words[1:]], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}{done.stderr[-1500:]}"
        site.addsitedir(str(self._packages))
        self._patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of processes that are started
        plugins.catalogue.cache_clear()


def run_in_processes(words, work):
    """Run `torchrun ...`, whose processes find a `ufe` where everything is small."""
    command = work / "bin" / "ufe"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = [{str(ROOT)!r}]\n"
        "from tests.test_docs_run import main_made_small\nmain_made_small()\n"
    )
    command.chmod(0o755)
    here = Path(sys.executable).parent
    path = os.pathsep.join([str(command.parent), str(here), os.environ["PATH"]])
    done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def main_made_small():
    """The command line in a process of its own, where everything is small."""
    from ufe_core.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        shrink(pytest.MonkeyPatch(), Path(folder))
        main()


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(page, ufe, small_world, home, monkeypatch):
    environment = Environment(small_world.parent / "environment", monkeypatch)
    if page.name == "ava256.md":
        written_as_ava256(ufe, home / "ava256")
    for table in blocks(page, "toml"):
        name = re.search(r'^name = "(.*)"', table, re.M)[1]
        (small_world / f"{name}.toml").write_text(table)
    if any(map(A_RESULT.search, commands(page))) and page.name != "tutorial.md":
        assert ufe("bench", "--encoder", "neutral")[0] == 0, "the result that the page speaks of"
    for words in dict.fromkeys(commands(page)):
        program, *arguments = [found for word in shlex.split(words) for found in meant(word, home, page)]
        if program == "python":
            environment.run([program, *arguments], ROOT if page.name == "README.md" else small_world)
        elif program == "torchrun":
            run_in_processes([program, *arguments], small_world)
        else:
            code, out, err = ufe(*arguments)
            assert code == 0, f"{page.name}: {words}\n{out[-3000:]}\n{err[-1500:]}"


def test_the_site_is_made_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    interfaces = (tmp_path / "reference" / "interfaces.html").read_text()
    assert "ufe_core.interfaces.encoder.Encoder" in interfaces
    assert "ufe leaderboard submit" in (tmp_path / "reference" / "commands.html").read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_every_snippet_of_a_page_runs(page, small_world):
    names = {"__name__": "__main__"}
    for source in dict.fromkeys((ROOT / "README.md", page)):  # other pages go on from the README's example
        for snippet in blocks(source, "python"):
            exec(compile(snippet, source.name, "exec"), names)
