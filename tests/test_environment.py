"""One set of dependencies, said three times: pyproject.toml, constraints.txt, environment.yml."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
PINS = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in LINES)}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_bounds(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_lower_bound_that_the_environment_meets(requirement):
    if requirement.name not in ("types-tqdm",):
        assert any(specifier.operator == ">=" for specifier in requirement.specifier)
    assert requirement.specifier.contains(version(requirement.name))


def test_conda_environment_installs_the_project_and_no_pytorch_channel():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python, pip, section = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip"
    assert section == {"pip": ["-c constraints.txt", "-e .[test]"]}


def test_every_import_of_the_package_is_a_declared_dependency():
    import ast
    import sys

    distributions = {
        "PIL": "pillow",
        "sklearn": "scikit-learn",
        "mpl_toolkits": "matplotlib",
        "typing_extensions": "typing-extensions",
    }
    # Installed by a declared dependency that is made of them.
    parts = {"nbformat": "nbconvert", "pygments": "nbconvert"}
    declared = {requirement.name for requirement in REQUIREMENTS} | {"ltlib"}
    for file in (ROOT / "ltlib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names:
                    assert distributions.get(name, parts.get(name, name)) in declared, (file, name)
