"""Figures over classes and splits: how many images each has, and how accurate each is."""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ltlib.plots.parts import (
    NAMED_CLASSES,
    class_axis,
    draw_splits,
    legend_above,
    mean_and_std,
    method_handles,
    new_axes,
    not_run,
    percent_axis,
    require,
    seeds_note,
    write,
)
from ltlib.plots.style import (
    INK,
    MARKER_EDGE,
    RULE,
    SPLIT_RANGES,
    SPLIT_TINTS,
    MethodStyle,
    method_styles,
)


def plot_per_class_accuracy(data: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of every class, many to few, one line per method.

    Up to twenty classes are drawn one by one, with the standard deviation over seeds as
    whiskers. More are faint points under a running mean over classes, whose band is the
    standard deviation of that running mean over seeds.

    Args:
        data: One row per method, seed and class: method, seed, class, train_count, accuracy
            (fraction; NaN for a class without test samples).
        ax: Where to draw; a new figure by default.

    Returns:
        The Axes: classes from many to few against accuracy in percent.

    Raises:
        ValueError: If a column is missing.
    """
    ax = new_axes(ax)
    if data.empty:
        return not_run(ax)
    require(data, "method", "seed", "class", "train_count", "accuracy")
    classes = data.drop_duplicates("class")[["class", "train_count"]]
    classes = classes.sort_values("train_count", ascending=False, kind="stable", ignore_index=True)
    ranks = pd.Series(classes.index, index=classes["class"])
    ranked = data.assign(rank=data["class"].map(ranks).astype(int))
    styles = method_styles(data["method"])
    note = seeds_note(data)
    if len(classes) <= NAMED_CLASSES:
        _draw_each_class(ax, ranked, styles)
    else:
        window = max(3, len(classes) // 10) | 1
        _draw_running_mean(ax, ranked, styles, window)
        note += f"; points are classes, lines their running mean of {window}"
    class_axis(ax, classes, show_counts=True)
    draw_splits(ax, classes["train_count"].to_numpy())
    percent_axis(ax)
    ax.set(ylim=(0, 1.14), ylabel="accuracy (%)")  # room for the splits' names above 100 %
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.spines["left"].set_bounds(0, 1)
    legend_above(ax, method_handles(data, styles), note)
    return ax


def _draw_each_class(ax: Axes, data: pd.DataFrame, styles: dict[str, MethodStyle]) -> None:
    for offset, (method, style) in zip(_dodge(len(styles), 0.6), styles.items(), strict=True):
        stats = mean_and_std(data[data["method"] == method], "rank", "accuracy")
        ax.errorbar(
            stats.index + offset,
            stats["mean"],
            yerr=stats["std"],
            color=style.color,
            marker=style.marker,
            markersize=7 if len(styles) < 5 else 6,
            linewidth=0.9,
            elinewidth=1.2,
            **MARKER_EDGE,
        )


def _draw_running_mean(
    ax: Axes, data: pd.DataFrame, styles: dict[str, MethodStyle], window: int
) -> None:
    for method, style in styles.items():
        rows = data[data["method"] == method]
        points = mean_and_std(rows, "rank", "accuracy")["mean"]
        ax.scatter(points.index, points, s=9, color=style.color, alpha=0.3, linewidth=0)
        seeds = [
            seed.set_index("rank")["accuracy"] for _, seed in rows.groupby("seed", dropna=False)
        ]
        by_rank = pd.concat(seeds, axis=1).sort_index()
        smooth = by_rank.rolling(window, center=True, min_periods=1).mean()
        mean, std = smooth.mean(axis=1), smooth.std(axis=1)
        ax.fill_between(mean.index, mean - std, mean + std, color=style.color, alpha=0.2, lw=0)
        ax.plot(
            mean.index,
            mean,
            color=style.color,
            marker=style.marker,
            markevery=max(1, len(mean) // 9),
            linewidth=2,
            **MARKER_EDGE,
        )


def plot_shot_accuracy(
    data: pd.DataFrame, reference: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the accuracy over all, many-, medium- and few-shot classes, methods side by side.

    Markers are means over seeds, whiskers standard deviations, faint points the seeds. A split
    without classes says so; it is not zero.

    Args:
        data: One row per method, seed and split: method, seed, split ("all", "many", "medium",
            "few"), accuracy (fraction; NaN where the split is empty).
        reference: Reported values, drawn as dark bars: method, split, accuracy (fraction),
            source. A method that is only here is labelled "not run".
        ax: Where to draw; a new figure by default.

    Returns:
        The Axes: splits against accuracy in percent.

    Raises:
        ValueError: If a column is missing.
    """
    ax = new_axes(ax)
    ours = _measured(data, "method", "seed", "split", "accuracy")
    reported = _measured(reference, "method", "split", "accuracy", "source")
    if ours.empty and reported.empty:
        return not_run(ax)
    styles = method_styles([*ours["method"], *reported["method"]])
    places = {split: float(place) for place, split in enumerate(["all", *SPLIT_RANGES])}
    _draw_groups(ax, places)
    for split in places.keys() - {*ours["split"], *reported["split"]}:
        was_measured = not data.empty and split in set(data["split"])
        text = "no classes" if was_measured else "no value"
        write(ax, text, (places[split], 0.5), within=("data", "axes fraction"))
    for offset, (method, style) in zip(_dodge(len(styles), 0.76), styles.items(), strict=True):
        at = {split: place + offset for split, place in places.items()}
        bars = reported[reported["method"] == method].set_index("split")["accuracy"]
        x, half = bars.index.map(at).to_numpy(float), min(0.34 / len(styles), 0.12)
        ax.hlines(bars, x - half, x + half, color=INK, linewidth=2)
        rows = ours[ours["method"] == method]
        stats = _draw_method(ax, rows, at, style)
        if len(styles) <= 3:  # more would not leave room for numbers
            _write_means(ax, stats, bars, at)
    ax.margins(y=0.14)
    percent_axis(ax)
    ax.set_ylabel("accuracy (%)")
    handles, note = method_handles(ours, styles, line=False), seeds_note(ours)
    if not reported.empty:
        handles.append(Line2D([], [], color=INK, linewidth=2, label="reported"))
        sources = ", ".join(reported["source"].drop_duplicates())
        note += "\n" + fill(f"reported: {sources}", width=72)
    legend_above(ax, handles, note)
    return ax


def _measured(data: pd.DataFrame | None, *columns: str) -> pd.DataFrame:
    """Return the rows with a value; of no frame at all, an empty one with those columns."""
    if data is None or data.empty:
        return pd.DataFrame(columns=list(columns))
    require(data, *columns)
    return data.dropna(subset="accuracy")


def _draw_groups(ax: Axes, places: dict[str, float]) -> None:
    for split, place in places.items():
        ax.axvspan(place - 0.5, place + 0.5, color=SPLIT_TINTS[split], linewidth=0, zorder=0)
    ax.axvline(0.5, color=RULE, linewidth=0.8, zorder=1)
    labels = ["all", *(f"{split}\n{bounds}" for split, bounds in SPLIT_RANGES.items())]
    ax.set_xticks(list(places.values()), labels)
    ax.set(xlim=(-0.5, len(places) - 0.5), xlabel="split, by training images per class")


def _draw_method(
    ax: Axes, data: pd.DataFrame, at: dict[str, float], style: MethodStyle
) -> pd.DataFrame:
    stats = mean_and_std(data, "split", "accuracy")
    x, y = data["split"].map(at), data["accuracy"]
    ax.scatter(x, y, s=14, color=style.color, alpha=0.4, linewidth=0)
    ax.errorbar(
        stats.index.map(at),
        stats["mean"],
        yerr=stats["std"],
        color=style.color,
        marker=style.marker,
        markersize=8,
        linestyle="none",
        elinewidth=1.6,
        **MARKER_EDGE,
    )
    return stats


def _write_means(ax: Axes, stats: pd.DataFrame, bars: pd.Series, at: dict[str, float]) -> None:
    """Write each mean over its whisker, or under it where a reported value lies over it."""
    for split, mean, std in stats.fillna({"std": 0}).itertuples():
        side = -1 if bars.get(split, 0) > mean else 1
        align = ("center", "bottom" if side > 0 else "top")
        end = (at[split], mean + side * std)
        write(ax, f"{100 * mean:.1f}", end, shift=(0, 6 * side), align=align, color=INK)


def _dodge(number: int, width: float) -> np.ndarray:
    """Return where, around 0, that many methods stand side by side."""
    return (np.arange(number) - (number - 1) / 2) * width / number
