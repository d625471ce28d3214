"""The report of ``benchmark_scaling`` as a figure: what grows from left to right, time over memory.

Apart from the measuring, which processes import whose memory is measured.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from ltlib import plots
from ltlib.benchmark.measuring import MEGABYTE, Report
from ltlib.plots import METHOD_NAMES, SavedFigure
from ltlib.plots.parts import legend_above, write
from ltlib.plots.style import GREY, INK, MARKER_EDGE, SMALL, MethodStyle, method_styles

_BYTES = 4  # of a float32
_NUMBERS = FuncFormatter(lambda value, _: f"{value:,.4g}")
_DASHES, _DOTS = (0, (4, 2)), (0, (1, 1.5))
_IDEAL: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": _DASHES}
_SIZE: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": _DOTS}
_DEFAULT: dict[str, Any] = {
    **{"color": INK, "marker": "*", "markersize": 11, "linestyle": "none", "zorder": 3},
    **MARKER_EDGE,
}


def save_scaling(report: Report, folder: Path, *, watermark: str | None = None) -> SavedFigure:
    """Draw the table of ``benchmark_scaling``; write ``scaling.png`` and ``scaling.csv``.

    Args:
        report: From ``benchmark_scaling``.
        folder: Where the figure goes.
        watermark: Marks the figure as no result.
    """
    machine, table = report.machine, report.table
    batch, processes, classes = (
        table[table["against"] == what] for what in ("batch", "processes", "classes")
    )
    figure, axs = plt.subplots(2, 3, figsize=(13, 7.8), sharex="col", layout="constrained")
    _draw_batch(axs[:, 0], batch, machine)
    _draw_classes(axs[:, 1], classes, machine)
    _draw_processes(axs[:, 2], processes, batch, machine)
    where = f"{machine['device']}, {machine['threads']} threads, {machine['precision']}, "
    where += f"not compiled; medians of {machine['repeats']} steps, their middle half shaded"
    figure.suptitle(where, x=0.01, ha="left", fontsize=SMALL, color=GREY)
    told = " ".join(_in_words(batch, processes, classes))
    return plots.save_figure(
        figure,
        folder / "scaling",
        table,
        alt=f"Time, above, and memory, below, against batch, classes and processes. {told}",
        caption=f"Time and peak memory of ProCo's training step ({machine['step']}) against batch "
        "and processes, and of the losses alone against the number of classes. Dashed: a straight "
        "line through the peaks; the time of one process shared by as many as have a core, and "
        "the memory of one with the same share of the batch. Dotted: float32 tensors of ProCo's "
        f"sizes, of which the plain way makes several. {told} {where}.",
        watermark=watermark,
    )


def _draw_batch(axs: np.ndarray, rows: pd.DataFrame, machine: dict[str, object]) -> None:
    style = method_styles(rows["method"])["proco"]
    x, peaks = rows["batch"], rows["peak (MB)"]
    _draw_times(axs[0], rows, "batch", style, per=x)
    axs[1].plot(x, peaks, **_look(style))
    each, alone = np.polyfit(x, peaks, 1)
    batches = np.geomspace(x.min(), x.max(), 50)
    axs[1].plot(batches, alone + each * batches, **_IDEAL)
    _log_x(axs[1], x, base=2)
    _log_y(axs[1], steps=(1, 2, 5))
    axs[0].set(ylim=(0, None), ylabel="time per image (ms)")
    axs[1].set(xlabel="batch B (images)", ylabel=f"peak memory of the {machine['memory of']} (MB)")
    fit = Line2D([], [], label=f"{alone:,.0f} MB + {each:.1f} MB an image", **_IDEAL)
    legend_above(axs[0], [_handle(style), fit], f"one step: {machine['step']}")


def _draw_classes(axs: np.ndarray, rows: pd.DataFrame, machine: dict[str, object]) -> None:
    styles = method_styles(rows["method"])
    for (method, way), part in rows.groupby(["method", "way"], sort=False):
        style, plain = styles[str(method)], way == "plain"
        _draw_times(axs[0], part, "classes", style, plain=plain)
        axs[1].plot(part["classes"], part["peak (MB)"], **_look(style, plain))
    dims, batch = machine["dimensions"], int(rows["batch"].iloc[0])
    assert isinstance(dims, dict)
    _log_x(axs[1], rows["classes"])
    for ax in axs:
        _log_y(ax)
    _draw_sizes(axs[1], rows["classes"], batch, dims["proco"])
    axs[0].set_ylabel("time of loss and backward (ms)")
    axs[1].set(xlabel="classes C", ylabel="peak memory above the inputs (MB)")
    handles = [_handle(style) for style in styles.values()]
    handles.append(_handle(MethodStyle("the plain way", GREY, "o"), plain=True))
    legend_above(axs[0], handles, f"the losses alone, batch {batch}")


def _draw_sizes(ax: Axes, classes: pd.Series, batch: int, dim: int) -> None:
    """Draw what one float32 tensor of ProCo's takes, the plain way's and those of ours."""
    low, high = ax.get_ylim()
    ends = np.array([classes.min(), classes.max()])
    for label, floats, along in (
        ("B × C × D floats", batch * dim, 0.5),
        ("(B + D) × C floats", batch + dim, 0.65),
    ):
        each = floats * _BYTES / MEGABYTE
        ax.plot(ends, ends * each, **_SIZE)
        beside = ends[0] ** (1 - along) * ends[1] ** along
        place = (beside, beside * each)
        write(ax, label, place, shift=(4, -4), align=("left", "top"), color=INK)
    ax.set_ylim(low, high)


def _draw_processes(
    axs: np.ndarray, rows: pd.DataFrame, batches: pd.DataFrame, machine: dict[str, object]
) -> None:
    style = method_styles(rows["method"])["proco"]
    x, batch = rows["processes"], rows["batch"].iloc[0]
    _draw_times(axs[0], rows, "processes", style)
    axs[0].plot(x, rows["ideal (ms)"], **_IDEAL)
    axs[1].plot(x, rows["peak (MB)"], **_look(style))
    shares = batches.set_index("batch")["peak (MB)"].reindex(batch // x)
    axs[1].plot(x, shares, **_IDEAL)
    default = Line2D([1], batches.loc[batches["batch"] == batch, "median (ms)"], **_DEFAULT)
    default.set_label(f"one process, {machine['threads']} threads")
    axs[0].add_line(default)
    for ax in axs:
        ax.set_ylim(0, None)
        ax.yaxis.set_major_formatter(_NUMBERS)
    _log_x(axs[1], x, base=2)
    axs[0].set_ylabel("time per step (ms)")
    axs[1].set(xlabel="processes", ylabel=f"peak memory of each {machine['memory of']} (MB)")
    handles = [_handle(style, label="one thread each"), Line2D([], [], label="ideal", **_IDEAL)]
    legend_above(axs[0], [*handles, default], f"a batch of {batch}, shared by all processes")


def _draw_times(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    style: MethodStyle,
    *,
    per: pd.Series | int = 1,
    plain: bool = False,
) -> None:
    low, high = rows["lower quartile (ms)"] / per, rows["upper quartile (ms)"] / per
    ax.fill_between(rows[x], low, high, color=style.color, alpha=0.2, linewidth=0)
    ax.plot(rows[x], rows["median (ms)"] / per, **_look(style, plain))


def _look(style: MethodStyle, plain: bool = False) -> dict[str, Any]:
    look: dict[str, Any] = {"color": style.color, "marker": style.marker}
    if plain:
        hollow = {"markerfacecolor": "white", "markeredgecolor": style.color}
        return look | hollow | {"linestyle": _DASHES, "markeredgewidth": 1.2}
    return look | MARKER_EDGE


def _handle(style: MethodStyle, *, label: str = "", plain: bool = False) -> Line2D:
    return Line2D([], [], label=label or style.label, **_look(style, plain))


def _log_x(ax: Axes, values: pd.Series, base: int = 10) -> None:
    """Mark the values that were measured."""
    ax.set_xscale("log", base=base)
    ticks = sorted(set(values))
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.xaxis.minorticks_off()


def _log_y(ax: Axes, steps: tuple[int, ...] = (1,)) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=steps))
    ax.yaxis.set_major_formatter(_NUMBERS)
    ax.yaxis.minorticks_off()


def _in_words(batch: pd.DataFrame, processes: pd.DataFrame, classes: pd.DataFrame) -> Iterator[str]:
    """Tell the ends of each curve."""
    for row in (batch.iloc[0], batch.iloc[-1]):
        yield (
            f"Batch {row['batch']}: {row['median (ms)'] / row['batch']:.1f} ms an image and "
            f"{row['peak (MB)']:,.0f} MB."
        )
    for (method, way), rows in classes.groupby(["method", "way"], sort=False):
        row = rows.iloc[-1]
        yield (
            f"{METHOD_NAMES[str(method)]}'s loss, {way}, {row['classes']:,} classes: "
            f"{row['median (ms)']:,.1f} ms and {row['peak (MB)']:,.1f} MB."
        )
    row = processes.iloc[-1]
    faster = processes["median (ms)"].iloc[0] / row["median (ms)"]
    yield f"{row['processes']} processes of one thread: {faster:.1f} times as fast as one."
