"""The cosines between class means, against the simplex's."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage

from ltlib.plots.parts import class_ticks, note_above, split_spans, write
from ltlib.plots.style import INK, RULE


def plot_cosine_matrix(
    matrix: np.ndarray | pd.DataFrame,
    ideal: float | None = None,
    *,
    counts: Sequence[int] | np.ndarray | None = None,
    name: str = "",
    limit: float = 0.5,
    colorbar: bool | Sequence[Axes] = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the cosines between class means, coloured by their distance from the simplex's.

    White is the ideal cosine, red is closer together, blue farther apart. The scale is the same
    for every figure of as many classes, so that neighbours compare: draw the first with
    ``colorbar=False`` and the last with ``colorbar=axs``, which makes room beside all. The
    diagonal is 1 by definition and grey, like classes without samples.

    Args:
        matrix: Cosines, (C, C); a frame's index names the classes.
        ideal: Off-diagonal cosine of the simplex; -1/(C-1) by default.
        counts: Training images per class, (C,): sorts classes many to few, and marks splits.
        name: What the matrix is of, such as a method, written above it.
        limit: Distance from the ideal at which colours saturate.
        colorbar: Whether to draw one, or the Axes beside which it stands.
        ax: Where to draw; a new figure by default.

    Returns:
        The Axes: class against class.

    Raises:
        ValueError: If the matrix is not square, or of fewer than two classes.
    """
    cosines = pd.DataFrame(matrix)
    num_classes = len(cosines)
    if cosines.shape != (num_classes, num_classes) or num_classes < 2:
        raise ValueError(f"matrix must be (C, C) with C >= 2, got {cosines.shape}")
    if ax is None:
        ax = plt.subplots(figsize=(4.8, 5.4), layout="constrained")[1]
    ideal = -1 / (num_classes - 1) if ideal is None else ideal
    if counts is not None:
        order = np.argsort(-np.asarray(counts), kind="stable")
        cosines = cosines.iloc[order, order]
    pairs = cosines.to_numpy(dtype=float, copy=True)
    np.fill_diagonal(pairs, np.nan)
    colors = colormaps["RdBu_r"].with_extremes(bad=RULE)
    image = ax.imshow(pairs, cmap=colors, norm=Normalize(ideal - limit, ideal + limit))
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ticks, labels, what = class_ticks(list(cosines.index))
    rotation = 90 if max(map(len, labels)) > 3 else 0
    ax.set_xticks(ticks, labels, rotation=rotation)
    ax.set_yticks(ticks, labels)
    ax.tick_params(length=0)
    what = "class" if counts is None else what  # in the order given, which is no rank
    ax.set(xlabel=what, ylabel=what)
    if counts is not None:
        _mark_splits(ax, np.asarray(counts)[order])
    gap = f"mean |cos − ideal| = {np.nanmean(np.abs(pairs - ideal)):.3f}"
    note_above(ax, f"{name}\n{gap}" if name else gap)
    if colorbar is not False:
        beside = [ax] if colorbar is True else list(colorbar)
        _draw_colorbar(image, ideal, limit, beside)
    return ax


def _mark_splits(ax: Axes, counts: np.ndarray) -> None:
    for name, (start, end) in split_spans(counts).items():
        if start > 0:
            ax.axvline(start, color=INK, linewidth=0.8)
            ax.axhline(start, color=INK, linewidth=0.8)
        middle, beside = (1.0, (start + end) / 2), ("axes fraction", "data")
        text = write(ax, name, middle, within=beside, shift=(7, 0), align=("center", "baseline"))
        text.set(rotation=-90, rotation_mode="anchor")


def _draw_colorbar(image: AxesImage, ideal: float, limit: float, beside: list[Axes]) -> None:
    bar = beside[0].figure.colorbar(
        image, ax=beside, extend="both", location="bottom", shrink=0.9, aspect=30, pad=0.03
    )
    values = ideal + limit * np.array([-1, -0.5, 0, 0.5, 1])
    labels = [f"{value:+.2f}".replace("-", "−") for value in values]
    labels[2] += "\nideal"
    bar.set_ticks(list(values), labels=labels)
    bar.set_label("cosine between class means")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
