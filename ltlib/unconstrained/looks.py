"""What the pictures of free vectors share: size, looks of the losses, and captions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltlib.execution import Execution, describe
from ltlib.plots import METHOD_COLORS, METHOD_MARKERS
from ltlib.plots.style import INK
from ltlib.unconstrained.vectors import Arrangement

WIDTH = 7.0
"""Inches of every figure: its text stays legible on a page 400 pixels wide."""

SECOND = "#3E7C8A"
"""Beside INK, for what is no method."""


class Look(NamedTuple):
    """How one loss is drawn."""

    color: str
    marker: str
    line: Any = "-"


_DASHES = (0, (4, 2))

LOOKS = {
    "SCL": Look(METHOD_COLORS["scl"], METHOD_MARKERS["scl"]),
    "SCL + class averaging": Look(METHOD_COLORS["scl"], "v", _DASHES),
    "BCL, per sample": Look(METHOD_COLORS["bcl"], "d", _DASHES),
    "BCL, per class": Look(METHOD_COLORS["bcl"], METHOD_MARKERS["bcl"]),
    "ProCo": Look(METHOD_COLORS["proco"], METHOD_MARKERS["proco"]),
    "PaCo": Look(METHOD_COLORS["paco"], METHOD_MARKERS["paco"]),
}
"""Of the losses of ``ladder``: the method's colour, dashed between two methods."""


def panels(
    number: int, *, columns: int, height: float, projection: str | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of that many panels, each so many inches high."""
    rows = -(-number // columns)
    figure = plt.figure(figsize=(WIDTH, height * rows), layout="constrained")
    places = range(1, number + 1)
    return figure, [figure.add_subplot(rows, columns, n, projection=projection) for n in places]


def title(ax: Axes, name: str, arrangement: Arrangement) -> None:
    """Write the loss and its gap over a panel."""
    ax.set_title(f"{name}\ngap {arrangement.gap:.2f}", color=INK, pad=12)


def pairs(arrangement: Arrangement) -> pd.DataFrame:
    """List every two classes, numbered from 1, with the cosine between their means."""
    matrix = arrangement.cosines.numpy()
    row, column = np.triu_indices(len(matrix), k=1)
    return pd.DataFrame(
        {"class": row + 1, "other_class": column + 1, "cosine": matrix[row, column]}
    )


def gaps(arrangements: Mapping[str, Arrangement]) -> str:
    """Say how far each arrangement is from the simplex."""
    return "; ".join(f"{name} {number(end.gap, 2)}" for name, end in arrangements.items())


def number(value: float, digits: int) -> str:
    """Write a number, never as minus zero, with a true minus sign."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:.{digits}f}".replace("-", "−")


def facts(
    arrangements: Mapping[str, Arrangement], *, counts: bool = True, temperature: bool = True
) -> str:
    """Say what was optimised: vectors per class, dimensions, temperature, starts."""
    one = next(iter(arrangements.values()))
    said = [f"{count_list(one)} vectors a class"] if counts else []
    said.append(f"{one.embeddings.shape[1]} dimensions")
    if temperature:
        said.append(f"temperature {one.method.temperature:g}")
    said.append("one random start" if one.starts == 1 else f"best of {one.starts} random starts")
    return ", ".join(said) + "."


def provenance(seconds: float) -> pd.DataFrame:
    """Say by what the vectors were moved, where, and how long it took: one row."""
    found = describe(Execution.choose(device="cpu", precision="fp32"))
    versions = found["versions"]
    assert isinstance(versions, dict), "describe lists versions by package"
    row = {"commit": found["commit"]} | {name: versions[name] for name in ("python", "torch")}
    row |= {"device": found["device"], "precision": "float64", "seconds": seconds}
    return pd.DataFrame([row])


def count_list(arrangement: Arrangement) -> str:
    """Write the vectors per class."""
    *first, last = map(str, arrangement.class_counts)
    return f"{', '.join(first)} and {last}"
