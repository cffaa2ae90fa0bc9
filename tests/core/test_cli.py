import errno
import json
import os
import subprocess
import sys

import click
import pytest
import torch

from ufe_core import __version__, plugins
from ufe_core.cli import main as main_module
from ufe_core.errors import DataError

RUN = [sys.executable, "-c", "from ufe_core.cli.main import main; main()"]


@pytest.fixture
def ufe(capsys):
    """Runs the command line in this process; gives exit code, standard output, standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main_module.main(arguments)
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture
def use_catalogue(monkeypatch, make_catalogue, capsys):
    def use(*modules):
        found = make_catalogue(*modules)
        monkeypatch.setattr(plugins, "catalogue", lambda: found)
        capsys.readouterr()

    monkeypatch.setenv("COLUMNS", "160")
    return use


@pytest.fixture
def command_that(monkeypatch):
    """Makes `ufe registry` do something else."""

    def install(action):
        command = click.Command("registry", callback=action)
        monkeypatch.setattr(main_module.CommandGroup, "get_command", lambda self, ctx, name: command)

    return install


@pytest.fixture
def third_party(tmp_path):
    """Installs a distribution on a path of its own; gives the environment that sees it."""

    def install(name, entry_points, **modules):
        info = tmp_path / f"{name.replace('-', '_')}-0.2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path}

    return install


def run(*arguments, env=None):
    done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, env=env, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_help_lists_all_commands_and_version(ufe):
    code, out, _ = ufe("--help")
    assert code == 0
    for name in ("bench", "leaderboard", "plugins", "registry", "source", "train"):
        assert f"\n  {name} " in out
    assert "List components and plugins" in out
    assert ufe("--version")[:2] == (0, f"ufe, version {__version__}\n")
    assert __version__ in ufe("--version")[1]


def test_unknown_command_suggests(ufe):
    code, _, err = ufe("plugin")
    assert code == 2
    assert "No command 'plugin'. Did you mean 'plugins'? Commands: anchors, avatar, bench, export, keypoints" in err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("Capture 'S001' is truncated."), 1, "ufe: error: Capture 'S001' is truncated.\n"),
        (
            OSError(errno.ENOSPC, "No space left", "/a/b"),
            1,
            "ufe: error: The disk is full, writing '/a/b'. Free some space, or write to a larger disk "
            "(UFE_HOME, or the command's --out); finished work is kept.\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a"),
            1,
            "ufe: error: Permission denied: '/a'.\n",
        ),
        (
            MemoryError(),
            1,
            "ufe: error: The memory is used up. Let a step take fewer frames (--set training.frames_per_user=), run "
            "fewer --workers, or use another --device; finished work is kept.\n",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more."),
            1,
            "ufe: error: The memory is used up: CUDA out of memory. Tried to allocate 2 GiB. Let a step take fewer "
            "frames (--set training.frames_per_user=), run fewer --workers, or use another --device; finished work is "
            "kept.\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "ufe: interrupted; finished work is kept, run the same command again to go on\n",
        ),
    ],
)
def test_errors_are_one_line(ufe, command_that, monkeypatch, error, code, message):
    monkeypatch.delenv("UFE_DEBUG", raising=False)

    def fail():
        raise error

    command_that(fail)
    found, out, err = ufe("registry")
    assert (found, out, err.lstrip("\n")) == (code, "", message)


def test_debug_shows_the_traceback(ufe, command_that, monkeypatch):
    monkeypatch.setenv("UFE_DEBUG", "1")

    def fail():
        raise DataError("bad")

    command_that(fail)
    code, _, err = ufe("registry")
    assert code == 1
    assert "Traceback" in err
    assert err.endswith("ufe: error: bad\n")


def test_plugins_table_lists_components_and_failures(ufe, use_catalogue):
    use_catalogue("good", "import_error", "wrong_interface")
    code, out, _ = ufe("plugins")
    assert code == 0
    assert "acme/fovea" in out
    assert "A fine encoder" in out
    assert "acme-ufe 0.2.0" in out
    assert "'ufe plugins --why acme-import_error' shows where." in out
    assert "incompatible" in out
    assert "acme/linear" not in ufe("plugins", "--kind", "encoder")[1]


def test_the_list_of_components_is_readable_in_80_columns(ufe, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = ufe("plugins")
    assert "…" not in out and max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) < 3 * len(plugins.catalogue().all())


def test_show_says_what_budgets_set(ufe):
    _, out, _ = ufe("plugins", "show", "univ")
    assert 'Budget cpu sets backbone = "resnet10t"' in " ".join(out.split())


def test_plugins_strict_fails_on_any_failure(ufe, use_catalogue):
    use_catalogue("good")
    assert ufe("plugins", "--strict")[0] == 0
    use_catalogue("good", "wrong_interface")
    code, out, _ = ufe("plugins", "--strict", "--json")
    assert code == 1
    assert [plugin["status"] for plugin in json.loads(out)["plugins"]] == ["ok", "incompatible"]


def test_plugins_json(ufe, use_catalogue):
    use_catalogue("good")
    code, out, err = ufe("plugins", "--json", "--kind", "encoder")
    assert (code, err) == (0, "")
    assert json.loads(out)["components"] == [
        {
            "name": "fovea",
            "id": "acme/fovea",
            "kind": "encoder",
            "summary": "A fine encoder",
            "reference": "P§4",
            "distribution": "acme-ufe",
            "version": "0.2.0",
            "license": "Apache-2.0",
            "target": "good:Fovea",
        }
    ]


def test_plugins_why_shows_the_traceback(ufe, use_catalogue):
    use_catalogue("good", "raising_hook")
    code, out, _ = ufe("plugins", "--why", "acme-raising_hook")
    assert code == 0
    assert "(distribution acme-ufe 0.2.0): broken" in out
    assert "raising_hook.py" in out
    assert "RuntimeError: the second half is missing" in out
    code, _, err = ufe("plugins", "--why", "acme-rasing_hook")
    assert code == 1
    assert "No plugin 'acme-rasing_hook'. Did you mean 'acme-raising_hook'? Installed: acme-good" in err


def test_plugins_show_prints_options(ufe, use_catalogue):
    use_catalogue("good")
    code, out, _ = ufe("plugins", "show", "fovea")
    assert code == 0
    for word in (
        "acme/fovea",
        "(encoder)",
        "P§4",
        "cells",
        "integer >= 1, <= 64",
        "16",
        "Side of the grid, in cells",
    ):
        assert word in out
    assert "--set encoder.cells=" in out
    assert "It has no options." in ufe("plugins", "show", "linear", "--kind", "metric")[1]
    facts = json.loads(ufe("plugins", "show", "acme/fovea", "--json")[1])
    assert facts["options"][0]["bounds"] == ">= 1, <= 64"


def test_an_option_before_a_command_that_would_not_see_it_is_refused(ufe, use_catalogue):
    use_catalogue("good")
    code, out, err = ufe("plugins", "--json", "show", "fovea")
    assert code != 0 and not out and "--json stands before 'show' and would not count" in err
    assert ufe("leaderboard", "--out", "site", "schema")[0] != 0


def test_plugins_show_unknown_name(ufe, use_catalogue):
    use_catalogue("good")
    code, _, err = ufe("plugins", "show", "fovae")
    assert code == 1
    assert err == "ufe: error: No component 'fovae'. Did you mean 'fovea'? 'ufe plugins' shows all 4.\n"


def test_registry_commands(ufe, use_catalogue, monkeypatch, tmp_path):
    from ufe_core import registry

    use_catalogue("good")
    code, out, _ = ufe("registry", "show")
    assert code == 0
    assert "synthetic: 234 train, 32 test subjects of source 'ufe/synthetic'" in out
    assert json.loads(ufe("registry", "show", "--json")[1])["schema"] == 1

    empty = registry.Registry.model_validate({"schema": 1})
    monkeypatch.setattr(registry, "load_registry", lambda: empty)
    code, out, _ = ufe("registry", "check")
    assert code == 0
    assert "agrees with the files and with what is installed" in out

    listed = {"name": "x", "distribution": "acme-ufe", "components": [{"kind": "encoder", "id": "acme/lost"}]}
    wrong = registry.Registry.model_validate({"schema": 1, "plugins": [listed]})
    monkeypatch.setattr(registry, "load_registry", lambda: wrong)
    problem = "Encoder 'acme/lost' is listed under 'x', but is not registered."
    code, out, err = ufe("registry", "check")
    assert (code, out) == (1, problem + "\n")
    assert "1 disagreement in" in err
    code, out, _ = ufe("registry", "check", "--json")
    assert (code, json.loads(out)["problems"]) == (1, [problem])


def test_help_and_listing_import_nothing_heavy():
    probe = (
        "import sys\n"
        "from ufe_core.cli.main import main\n"
        "try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {{'torch', 'numpy', 'cv2', 'warp', 'timm', 'matplotlib'}} & set(sys.modules)\n"
        "print(sorted(heavy), 'pydantic' in sys.modules, file=sys.stderr)"
    )
    for arguments, pydantic in ((["--help"], False), (["plugins"], True), (["registry", "show"], True)):
        done = subprocess.run(
            [sys.executable, "-c", probe.format(arguments=arguments)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr.splitlines()[-1] == f"[] {pydantic}"


def test_third_party_plugin_that_does_not_import_breaks_nothing(third_party):
    env = third_party(
        "acme-ufe",
        "[ufe.plugins]\nacme = acme_plugin\n",
        acme_plugin="print('noise')\nimport no_such_library\n",
    )
    code, out, _ = run("plugins", "--json", env=env)
    assert code == 0
    (report,) = [plugin for plugin in json.loads(out)["plugins"] if plugin["name"] == "acme"]
    assert report["status"] == "broken"
    assert report["distribution"] == "acme-ufe"
    assert "No module named 'no_such_library'" in report["reason"]
    assert run("registry", "show", env=env)[0] == 0


def test_third_party_command_comes_in_by_entry_point_and_may_fail_alone(third_party):
    module = 'import click\n@click.command()\ndef go():\n    """Goes."""\n    print("went")\n'
    env = third_party(
        "acme-ufe",
        "[ufe.commands]\nacme = acme_cli:go\nlost = acme_lost:go\nodd = acme_cli:click\nplugins = acme_cli:go\n",
        acme_cli=module,
    )
    assert run("acme", env=env)[:2] == (0, "went\n")
    code, out, _ = run("--help", env=env)
    assert code == 0
    assert "acme         Goes." in out
    assert "(does not load) Command 'lost' cannot be loaded" in out
    code, _, err = run("lost", env=env)
    assert code == 1
    assert err.startswith("ufe: error: Command 'lost' cannot be loaded from 'acme_lost:go': ModuleNotFoundError")
    assert "is not a click command" in run("odd", env=env)[2]
    code, _, err = run("plugins", env=env)
    assert code == 1
    assert "Command 'plugins' is claimed by 'acme-ufe' and 'ufe'. Uninstall one of them." in err


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_pipe_is_quiet():
    script = f'"{sys.executable}" -c "from ufe_core.cli.main import main; main()" registry show --json | true'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
