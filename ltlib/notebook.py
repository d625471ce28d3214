"""A notebook's first cell: parameters checked, paths anchored, figures styled.

Papermill only warns about a parameter that does not exist and passes lists and dicts as text, so
``setup`` checks names and types before anything expensive starts.
"""

import ast
import difflib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ltlib import plots
from ltlib.reproduce import plan

PARAMETERS_CELL = "# Parameters"
"""First line of the cell that papermill injects."""


def _from_text(value: object) -> object:
    """Read a list or dict, which papermill passes as text."""
    if not (isinstance(value, str) and value.startswith(("[", "{"))):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None


class Settings(BaseModel):
    """A notebook's parameters, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = "paper"
    seeds: Annotated[list[int], BeforeValidator(_from_text), Field(min_length=1)] = [0, 1, 2]
    overrides: Annotated[dict[str, object], BeforeValidator(_from_text)] = {}
    num_processes: int = Field(default=1, ge=1)
    num_jobs: int = Field(default=1, ge=1)
    data_root: str = ""
    runs_dir: Path = Path("runs")
    figures_dir: Path = Path("figures")

    @property
    def watermark(self) -> str | None:
        """What every figure of a smoke run says."""
        return "smoke run on digits, not a result" if self.preset == "smoke" else None

    @property
    def execution(self) -> dict[str, object]:
        """Arguments of ``reproduce.reproduce`` beside the table."""
        return {
            "seeds": self.seeds,
            "preset": self.preset,
            "overrides": self.overrides,
            "num_processes": self.num_processes,
            "num_jobs": self.num_jobs,
            "data_root": self.data_root or None,
            "runs_dir": self.runs_dir,
        }


def setup(namespace: Mapping[str, object], notebook: str, table: str | None = None) -> Settings:
    """Check a notebook's parameters and set the figures' style.

    Args:
        namespace: ``globals()`` of the notebook, after the parameters cell.
        notebook: Its name; figures go to ``<figures_dir>/<notebook>``.
        table: The table it reproduces; its plan is checked too.

    Returns:
        The parameters. Relative folders start at the project's root, whatever the working
        directory, unless the package is installed without the project.

    Raises:
        ValueError: If a parameter does not exist, has the wrong type, or fits no recipe.
    """
    known = list(Settings.model_fields)
    for name in _injected(namespace):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown parameter {name!r}{hint} (parameters: {', '.join(known)})")
    try:
        settings = Settings.model_validate(
            {name: namespace[name] for name in known if name in namespace}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        message = problem["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"parameter {problem['loc'][0]!r}: {message}, got {problem['input']!r}"
        ) from None
    if table:
        plan(table, preset=settings.preset, overrides=settings.overrides)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    plots.set_style()
    pd.set_option("display.float_format", "{:.2f}".format)
    return settings.model_copy(
        update={
            "data_root": str(_anchored(settings.data_root)) if settings.data_root else "",
            "runs_dir": _anchored(settings.runs_dir),
            "figures_dir": _anchored(settings.figures_dir) / notebook,
        }
    )


def _injected(namespace: Mapping[str, object]) -> list[str]:
    """Return the names that papermill assigned, from the source of the cell it injects."""
    cells = namespace.get("In", [])
    sources = [cell for cell in cells if cell.startswith(PARAMETERS_CELL)]  # type: ignore[attr-defined]
    return [
        target.id
        for source in sources[-1:]
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


def _anchored(path: Path | str) -> Path:
    root = Path(__file__).parents[1]
    return root / path if (root / "notebooks").is_dir() else Path(path).absolute()
