"""Figures over epochs."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ltlib.plots.parts import (
    legend_above,
    mean_and_std,
    method_handles,
    new_axes,
    not_run,
    percent_axis,
    require,
    seeds_note,
)
from ltlib.plots.style import INK, MARKER_EDGE, method_styles

_ACCURACY_LABELS = {
    "all": "accuracy, all classes (%)",
    "many": "accuracy, many-shot classes (%)",
    "medium": "accuracy, medium-shot classes (%)",
    "few": "accuracy, few-shot classes (%)",
}
_OTHER_LABELS = {
    "loss": "training loss (nats)",
    "lr": "learning rate (per global batch)",
    "seconds": "time per epoch (s)",
}
_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (8, 3)))


def plot_history(
    data: pd.DataFrame,
    y: str = "all",
    reference: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one column of the runs' histories over epochs, one line per method.

    Lines are means over seeds, bands standard deviations.

    Args:
        data: One row per method, seed and epoch: method, seed, epoch and ``y``.
        y: The column to draw: "all", "many", "medium" or "few" (fractions), "loss",
            "loss/<term>", "lr", "seconds", or any other, which names its own axis.
        reference: The authors' curve, drawn dashed and dark: epoch, ``y`` in the same unit, and
            source, which is its legend entry.
        ax: Where to draw; a new figure by default.

    Returns:
        The Axes: epochs against ``y``, accuracies in percent.

    Raises:
        ValueError: If a column is missing.
    """
    ax = new_axes(ax)
    if data.empty:
        return not_run(ax)
    require(data, "method", "seed", "epoch", y)
    styles = method_styles(data["method"])
    for order, (method, style) in enumerate(styles.items()):
        stats = mean_and_std(data[data["method"] == method], "epoch", y)
        low, high = stats["mean"] - stats["std"], stats["mean"] + stats["std"]
        ax.fill_between(stats.index, low, high, color=style.color, alpha=0.2, linewidth=0)
        every = max(1, len(stats) // 8)
        ax.plot(
            stats.index,
            stats["mean"],
            color=style.color,
            marker=style.marker,
            markevery=(order * every // len(styles), every),  # apart where curves coincide
            **MARKER_EDGE,
        )
    handles = method_handles(data, styles)
    if reference is not None and not reference.empty:
        require(reference, "epoch", y, "source")
        for dashes, (source, rows) in zip(_DASHES, reference.groupby("source"), strict=False):
            rows = rows.sort_values("epoch")
            (line,) = ax.plot(rows["epoch"], rows[y], color=INK, linestyle=dashes, linewidth=1.2)
            line.set(label=str(source), zorder=3)
            handles.append(line)
    if y in _ACCURACY_LABELS:
        percent_axis(ax)
    ax.set(xlabel="epoch", ylabel=_axis_label(y))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.02)
    legend_above(ax, handles, seeds_note(data))
    return ax


def _axis_label(y: str) -> str:
    if y.startswith("loss/"):
        return f"training loss, {y.removeprefix('loss/').replace('_', ' ')} term (nats)"
    return {**_ACCURACY_LABELS, **_OTHER_LABELS}.get(y, y)
