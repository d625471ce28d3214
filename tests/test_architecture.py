"""The house stands: imports go down, the light modules stay light, the heavy imports stay home."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ltlib"

FLOORS = {
    "config": 0,
    "distributed": 0,
    "execution": 0,
    "vmf": 0,
    "models": 0,
    "normalization": 0,
    "views": 0,
    "metrics": 0,
    "geometry": 0,
    "plots": 0,
    "losses": 1,
    "memory": 1,
    "data": 1,
    "recipes": 1,
    "runs": 1,
    "methods": 2,
    "checkpoints": 2,
    "trainer": 3,
    "reproduce": 4,
    "submit": 5,
    "posthoc": 4,
    "figures": 4,
    "unconstrained": 4,
    "report": 5,
    "notebook": 5,
    "explore": 5,
    "doctor": 5,
    "benchmark": 5,
    "cli": 6,
}


def modules() -> dict[str, list[Path]]:
    """Map each module of the package to its files."""
    found = {}
    for entry in sorted(PACKAGE.iterdir()):
        if entry.suffix == ".py" and entry.stem != "__init__":
            found[entry.stem] = [entry]
        elif (entry / "__init__.py").exists():
            found[entry.name] = sorted(entry.rglob("*.py"))
    return found


def imports(file: Path) -> set[str]:
    """List the dotted names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(name: str) -> set[str]:
    """List the other modules of the package that a module imports."""
    parts = [n.split(".") for file in modules()[name] for n in imports(file)]
    return {p[1] for p in parts if p[0] == "ltlib" and len(p) > 1 and p[1] in FLOORS} - {name}


def test_every_module_has_a_floor():
    assert set(modules()) <= set(FLOORS)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_only_go_down(name):
    above = {other for other in imported_modules(name) if FLOORS[other] > FLOORS[name]}
    assert not above


def test_no_two_modules_import_each_other():
    graph = {name: imported_modules(name) for name in modules()}
    order = []
    while graph:
        free = [name for name, needs in graph.items() if not needs & set(graph)]
        assert free, f"a circle among {sorted(graph)}"
        order += free
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert order


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("ipywidgets", {"explore"}),
        ("nbconvert", {"report"}),
        ("papermill", {"report"}),
        ("submitit", {"submit"}),
        ("typer", {"cli"}),
    ],
)
def test_heavy_package_stays_home(package, home):
    users = {
        name
        for name, files in modules().items()
        for file in files
        if any(imported.split(".")[0] == package for imported in imports(file))
    }
    assert users <= home


@pytest.mark.parametrize("name", ["config", "recipes", "runs", "plots", "cli"])
def test_light_module_does_not_import_torch(name):
    code = f"import sys, ltlib.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_module_prints_or_calls_cuda():
    for name, files in modules().items():
        for file in files:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    called = node.func
                    assert getattr(called, "id", "") != "print", f"{name} prints"
                    assert getattr(called, "attr", "") != "cuda", f"{name} calls .cuda()"
