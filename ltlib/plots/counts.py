"""How many training images each class has."""

from itertools import cycle, pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ltlib.plots.parts import (
    NAMED_CLASSES,
    class_axis,
    new_axes,
    not_run,
    require,
    split_spans,
    write,
)
from ltlib.plots.style import (
    FEW_SHOT,
    MANY_SHOT,
    MARKER_EDGE,
    RULE,
    SPLIT_MARKERS,
    SPLIT_RANGES,
    SPLIT_TINTS,
)

_COLORS = ("#22304A", "#3E7C8A", "#9A6B2F", "#7D4E6D", "#5E7A3A")
"""None of a method's: a data set is not a method."""


def plot_class_counts(data: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how many training images each class has, on a log scale, with the splits' bounds.

    Args:
        data: One row per class: class, train_count; optionally dataset and imbalance_factor,
            each combination of which is one curve. Curves of unequally many classes share an
            axis in percent of their classes.
        ax: Where to draw; a new figure by default.

    Returns:
        The Axes: classes from many to few against training images.

    Raises:
        ValueError: If a column is missing.
    """
    ax = new_axes(ax)
    if data.empty:
        return not_run(ax)
    require(data, "class", "train_count")
    by = [name for name in ("dataset", "imbalance_factor") if name in data]
    groups = data.groupby(by, sort=False) if by else [((), data)]
    curves = {
        key: rows.sort_values("train_count", ascending=False, kind="stable", ignore_index=True)
        for key, rows in groups
    }
    relative = len({len(curve) for curve in curves.values()}) > 1
    _draw_bands(ax, counts=data["train_count"])
    for color, (key, curve) in zip(cycle(_COLORS), curves.items(), strict=False):
        x = np.linspace(0, 100, len(curve)) if relative else np.arange(len(curve))
        name = _curve_name(dict(zip(by, key, strict=True))) if len(curves) > 1 else ""
        _draw_curve(ax, x, curve["train_count"].to_numpy(), color, name)
    if relative:
        ax.set_xlabel("class rank, most to fewest training images (% of classes)")
    else:
        class_axis(ax, curve, show_counts=False)
    ax.set_ylabel("training images per class (log scale)")
    return ax


def _draw_bands(ax: Axes, counts: pd.Series) -> None:
    bottom, top = min(8, 0.6 * counts.min()), 2 * counts.max()
    ax.set(yscale="log", ylim=(bottom, top))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    ax.minorticks_off()
    for (name, bounds), (above, below) in zip(
        SPLIT_RANGES.items(), pairwise([top, MANY_SHOT, FEW_SHOT, bottom]), strict=True
    ):
        last = name == "few"
        ax.axhspan(below, above, color=SPLIT_TINTS[name], linewidth=0, zorder=0)
        if not last:
            ax.axhline(below, color=RULE, linewidth=0.8, zorder=1)
        # Curves fall from the upper left, where the middle band's lower edge is free; in the
        # first and the last band it is the upper edge.
        middle = name == "medium"
        write(
            ax,
            f"{name} {bounds}",
            (0, below if middle else above),
            within=("axes fraction", "data"),
            shift=(5, 3 if middle else -3),
            align=("left", "bottom" if middle else "top"),
        )


def _draw_curve(ax: Axes, x: np.ndarray, counts: np.ndarray, color: str, name: str) -> None:
    few_points = len(counts) <= NAMED_CLASSES
    ax.plot(x, counts, color=color, linewidth=0.9 if few_points else 1.8)
    if few_points:
        for split, (start, end) in split_spans(counts).items():
            members = slice(int(start + 0.5), int(end + 0.5))
            marker = SPLIT_MARKERS[split]
            ax.plot(x[members], counts[members], marker, color=color, **MARKER_EDGE)
    if few_points and not name:
        for place, count in zip(x, counts, strict=True):
            _write_count(ax, place, count, color)
        return
    # Curves begin close together, so each says both ends where it is alone.
    label = f"{name}{counts[0]:,.0f} to {counts[-1]:,.0f}"
    write(ax, label, (x[-1], counts[-1]), shift=(6, 0), align=("left", "center"), color=color)


def _write_count(ax: Axes, place: float, count: int, color: str) -> None:
    write(
        ax, f"{count:,.0f}", (place, count), shift=(0, 6), align=("center", "bottom"), color=color
    )


def _curve_name(key: dict[str, object]) -> str:
    parts = [str(key["dataset"])] if "dataset" in key else []
    if "imbalance_factor" in key:
        parts.append(f"IF {key['imbalance_factor']:g}")
    return f"{', '.join(parts)}: " if parts else ""
