"""The small parts that several figures share: notes, legends, class axes, split bands."""

from collections.abc import Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ltlib.plots.style import (
    FEW_SHOT,
    GREY,
    MANY_SHOT,
    MARKER_EDGE,
    RULE,
    SMALL,
    SPLIT_RANGES,
    SPLIT_TINTS,
    MethodStyle,
)

NAMED_CLASSES = 20
"""Up to so many classes are drawn one by one, under their names."""


def new_axes(ax: Axes | None) -> Axes:
    """Return ``ax``, or the Axes of a new figure."""
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def not_run(ax: Axes) -> Axes:
    """Say on the figure itself that there is nothing to draw yet."""
    ax.set_axis_off()
    write(ax, "not run", (0.5, 0.5), within=("axes fraction", "axes fraction"))
    return ax


def write(
    ax: Axes,
    text: str,
    at: tuple[float, float],
    *,
    within: tuple[str, str] = ("data", "data"),
    shift: tuple[float, float] = (0, 0),
    align: tuple[str, str] = ("center", "center"),
    color: str = GREY,
) -> Annotation:
    """Write small text into the Axes.

    Args:
        ax: Where.
        text: What.
        at: Place, in the coordinates ``within``: "data" or "axes fraction", for x and for y.
        within: See ``at``.
        shift: From that place, in points.
        align: Which side of the text stands there, horizontally and vertically.
        color: Of the text.

    Returns:
        The text.
    """
    note = ax.annotate(text, at, xycoords=within, xytext=shift, textcoords="offset points")
    note.set(ha=align[0], va=align[1], fontsize=SMALL, color=color)
    return note


def require(data: pd.DataFrame, *columns: str) -> None:
    """Raise ValueError, naming the columns, if the frame lacks any."""
    missing = [name for name in columns if name not in data]
    if missing:
        raise ValueError(f"data lacks the columns {missing}; it has {list(data.columns)}")


def mean_and_std(data: pd.DataFrame, by: str, value: str) -> pd.DataFrame:
    """Return columns mean and std (sample standard deviation, NaN for one) per value of ``by``."""
    return data.groupby(by, observed=True)[value].agg(["mean", "std"])


def percent_axis(ax: Axes) -> None:
    """Show the fractions of the y axis as percent, from 0 at the least; its label says (%)."""
    ax.set_ylim(bottom=max(0, ax.get_ylim()[0]), auto=None)  # shared Axes go on autoscaling
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:.5g}"))


def seeds_note(data: pd.DataFrame) -> str:
    """Say how many seeds a figure stands on; where methods differ, their labels say it."""
    seeds = _num_seeds(data)
    if seeds.empty:
        return "reported values only"
    if seeds.nunique() > 1:
        return "mean ± std over n seeds"
    n = seeds.iloc[0]
    return "one seed (n = 1), no spread" if n == 1 else f"mean ± std over {n} seeds"


def method_handles(
    data: pd.DataFrame, styles: dict[str, MethodStyle], *, line: bool = True
) -> list[Line2D]:
    """Return legend entries of the methods, with n where it differs or nothing was run."""
    seeds = _num_seeds(data)
    handles = []
    for method, style in styles.items():
        ending = ""
        if method not in seeds:
            ending = " (not run)"
        elif seeds.nunique() > 1:
            ending = f" (n = {seeds[method]})"
        handle = Line2D([], [], color=style.color, marker=style.marker, **MARKER_EDGE)
        handle.set(label=style.label + ending, linestyle="-" if line else "none")
        handles.append(handle)
    return handles


def _num_seeds(data: pd.DataFrame) -> pd.Series:
    # dropna: imported weights have no seed, and are one run all the same.
    return data.groupby("method", observed=True)["seed"].nunique(dropna=False)


def note_above(ax: Axes, note: str) -> None:
    """Write a quiet line over the Axes, like other figures' legend title; a title replaces it."""
    ax.set_title(note, fontsize=SMALL, color=GREY)


def legend_above(ax: Axes, handles: list[Line2D], note: str) -> None:
    """Put the legend over the Axes, in as few rows as its width allows, under a quiet note."""
    columns = _num_columns(ax, [len(str(handle.get_label())) for handle in handles])
    rows = -(-len(handles) // columns)
    columns = -(-len(handles) // rows)
    by_row = [handle for first in range(columns) for handle in handles[first::columns]]
    legend = ax.legend(
        handles=by_row,  # matplotlib fills column by column
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        title=note,
        alignment="left",
        borderaxespad=0.2,
        borderpad=0.2,
        columnspacing=1.2,
        handlelength=1.6,
        handletextpad=0.5,
    )
    legend.get_title().set_color(GREY)


def _num_columns(ax: Axes, lengths: list[int]) -> int:
    """Return how many legend columns fit over the Axes, for labels of these lengths."""
    figure = ax.get_figure(root=True)
    assert figure is not None, "Axes on a figure"
    size = plt.rcParams["font.size"]
    # By a tenth more, because the layout, which comes later, widens the Axes.
    room = 1.1 * ax.get_position().width * figure.get_size_inches()[0] * 72 / size
    for columns in range(len(lengths), 1, -1):
        widest = [max(lengths[first::columns]) for first in range(columns)]
        if sum(0.58 * length + 3.3 for length in widest) - 1.2 <= room:
            return columns
    return 1


def split_spans(counts: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return where each split that exists begins and ends on an axis of sorted classes.

    Args:
        counts: Training images per class, (C,), many to few.

    Returns:
        From and to of each split, in positions of classes, which are 0..C-1.
    """
    ends = [0, (counts > MANY_SHOT).sum(), (counts >= FEW_SHOT).sum(), len(counts)]
    spans = zip(SPLIT_RANGES, pairwise(ends), strict=True)
    return {name: (start - 0.5, end - 0.5) for name, (start, end) in spans if start < end}


def draw_splits(ax: Axes, counts: np.ndarray) -> None:
    """Shade and name the splits along an x axis of classes sorted by count."""
    left, right = ax.get_xlim()
    for name, (start, end) in split_spans(counts).items():
        first, last = start < 0, end > len(counts) - 1
        edges = (left if first else start, right if last else end)
        ax.axvspan(*edges, color=SPLIT_TINTS[name], linewidth=0, zorder=0)
        if not first:
            ax.axvline(start, color=RULE, linewidth=0.8, zorder=1)
        top, text = ((start + end) / 2, 1), f"{name}\n{SPLIT_RANGES[name]}"
        write(ax, text, top, within=("data", "axes fraction"), align=("center", "top"))


def class_ticks(names: Sequence[object]) -> tuple[list[int], list[str], str]:
    """Choose which of the positions 0..C-1 to label, how, and what the labels are.

    Args:
        names: Class names in the order of the axis, (C,).

    Returns:
        Positions, their labels, and "class" or, of many classes, "class rank".
    """
    num_classes = len(names)
    if num_classes <= NAMED_CLASSES:
        return list(range(num_classes)), [str(name) for name in names], "class"
    step = num_classes // 5
    ticks = [0, *range(step - 1, num_classes, step)]
    return ticks, [str(tick + 1) for tick in ticks], "class rank"


def class_axis(ax: Axes, classes: pd.DataFrame, *, show_counts: bool) -> None:
    """Label an x axis whose positions 0..C-1 are the classes, many to few.

    Args:
        ax: Where.
        classes: Columns class and train_count, sorted many to few.
        show_counts: Write each labelled class's number of training images below it.
    """
    ticks, labels, what = class_ticks(list(classes["class"]))
    rotated = max(len(label) for label in labels) * len(labels) > 70
    if show_counts:
        counts = classes["train_count"].iloc[ticks]
        pattern = "{} ({:,.0f})" if rotated else "{}\n{:,.0f}"
        labels = [pattern.format(*pair) for pair in zip(labels, counts, strict=True)]
    ax.set_xticks(ticks, labels)
    if rotated:
        plt.setp(ax.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
    tail = "and its number of training images" if show_counts else "most to fewest training images"
    margin = max(0.6, 0.012 * len(classes))  # markers of the outermost classes stay whole
    ax.set(xlim=(-margin, len(classes) - 1 + margin), xlabel=f"{what}, {tail}")
