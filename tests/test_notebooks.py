"""Notebooks are products: their shape, and that each runs from top to bottom."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(notebook):
    return [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]


def papermill(notebook, output, *parameters, cwd=ROOT):
    """Run a notebook as a user does; return exit code and what was printed."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(output)]
    for name, value in parameters:
        command += ["-p", name, str(value)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_there_are_notebooks():
    assert {"start_here", "proco_cifar_lt"} <= {notebook.stem for notebook in NOTEBOOKS}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_is_stripped_short_and_only_calls(notebook):
    content = json.loads(notebook.read_text())
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    cells = code_cells(notebook)
    assert len(cells) <= 12
    for cell in cells:
        assert cell.outputs == []
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 10
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Try)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_code_cell_holds_annotated_parameters_with_help(notebook):
    first, *others = code_cells(notebook)
    assert first.metadata.tags == ["parameters"]
    assert not any("parameters" in cell.metadata.get("tags", []) for cell in others)
    for line in first.source.splitlines():
        statement, _, comment = line.partition("  # help: ")
        assert isinstance(ast.parse(statement).body[0], ast.AnnAssign), line
        assert comment
        assert "=" not in comment  # papermill reads the last one on the line


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_cell_is_a_title_with_protocol_time_and_command(notebook):
    title = nbformat.read(notebook, 4).cells[0]
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert f"papermill notebooks/{notebook.name}" in title.source


@pytest.mark.notebook
@pytest.mark.parametrize("name", ["start_here", "proco_cifar_lt"])
def test_smoke_preset_runs_from_another_folder_and_reports(name, tmp_path):
    output = tmp_path / f"{name}.ipynb"
    parameters = [
        ("preset", "smoke"),
        ("seeds", "[0]"),
        ("runs_dir", tmp_path / "runs"),
        ("figures_dir", tmp_path / "figures"),
    ]
    code, printed = papermill(
        ROOT / "notebooks" / f"{name}.ipynb", output, *parameters, cwd=tmp_path
    )
    assert code == 0, printed
    figures = tmp_path / "figures" / name
    pictures = {file.stem for file in figures.glob("*.png")}
    assert {"per_class_accuracy", "shot_accuracy", "cosine_matrices", "spheres", "history"} <= (
        pictures
    )
    assert pictures == {file.stem for file in figures.glob("*.csv")}
    text = output.read_text()
    assert "Smoke run on digits, not a result" in text
    assert "application/vnd.jupyter.widget-view+json" not in text
    assert len(list((tmp_path / "runs").glob("*-smoke/*/result.json"))) == 7


@pytest.mark.notebook
def test_geometry_runs_without_any_trained_run(tmp_path):
    output = tmp_path / "simplex_geometry.ipynb"
    parameters = [
        ("seeds", "[0]"),
        ("runs_dir", tmp_path / "runs"),
        ("figures_dir", tmp_path / "figures"),
    ]
    code, printed = papermill(ROOT / "notebooks/simplex_geometry.ipynb", output, *parameters)
    assert code == 0, printed
    figures = tmp_path / "figures" / "simplex_geometry"
    pictures = {file.stem for file in figures.glob("*.png")}
    assert {"spheres_long_tailed", "cosine_matrices", "steps", "trained_networks"} <= pictures
    assert pictures == {file.stem for file in figures.glob("*.csv")}


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        (("presett", "smoke"), "unknown parameter 'presett'; did you mean 'preset'?"),
        (("preset", "quick"), "preset must be 'paper' or 'smoke', got 'quick'"),
        (("overrides", '{"optim.epoch": 2}'), "unknown field 'optim.epoch'; did you mean"),
        (("num_processes", 0), "parameter 'num_processes': Input should be greater than or"),
    ],
)
def test_bad_parameter_stops_the_first_code_cell_with_a_sentence(parameter, sentence, tmp_path):
    output = tmp_path / "out.ipynb"
    code, printed = papermill(ROOT / "notebooks/proco_cifar_lt.ipynb", output, parameter)
    assert code != 0
    assert sentence in printed
    executed = [cell for cell in code_cells(output) if cell.execution_count]
    assert len(executed) <= 3  # parameters, injected parameters, and the cell that checks them
    assert any(out.output_type == "error" for out in executed[-1].outputs)
