"""Plugins and the harness know the core; the core knows neither, and they do not know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path for path in (ROOT / "plugins").glob("ufe_*") if path.is_dir())
PACKAGES = [ROOT / "ufe_core", *PLUGINS, ROOT / "benchmarks" / "ufe_bench"]
OURS = {path.name for path in PACKAGES} | {"plugins", "benchmarks", "tests"}


def imported_packages(file):
    """Top-level packages that a file imports absolutely, by statement or by `import_module` of a literal."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_arrows_point_at_the_core(package):
    allowed = {package.name, "ufe_core"}
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sorted(package.rglob("*.py"))
        for line, name in imported_packages(file)
        if name in OURS - allowed
    ]
    assert wrong == []


def test_every_plugin_folder_is_shipped_and_announced():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in PLUGINS:
        assert f'"plugins/{path.name}"' in text
        assert f'"{path.name}.plugin"' in text


def test_the_rule_sees_all_forms_of_import(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import a.b\nfrom c.d import e\nfrom . import f\ndef g():\n    import h\n    importlib.import_module('i.j')\n"
    )
    assert sorted(name for _, name in imported_packages(file)) == ["a", "c", "h", "i"]
