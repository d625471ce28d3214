"""Pictures of what changes the geometry: steps, temperature, batches, and a real network.

Captions and alternative texts are written from the data, so that they can be read alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from ltlib import plots
from ltlib.figures import MEASURES
from ltlib.plots import METHOD_NAMES, SavedFigure
from ltlib.plots.parts import legend_above, not_run, note_above, write
from ltlib.plots.style import INK, MARKER_EDGE, RULE, method_styles
from ltlib.runs import load_arrays, read_config
from ltlib.unconstrained import looks
from ltlib.unconstrained.vectors import Arrangement, measures

_PANELS = (
    "within_class_variability",
    "simplex_gap",
    "self_duality",
    "nearest_mean_disagreement",
)
"""One measure of each of NC1 to NC4."""

_COLLAPSED = 1e-6
"""Where the axis of NC1 ends."""


def steps(ways: Mapping[str, tuple[Arrangement, pd.DataFrame]], folder: Path) -> SavedFigure:
    """Show NC1 to NC4 along gradient descent, one line per loss.

    Args:
        ways: What ``descend`` returns, by display name.
        folder: Where the figure goes.
    """
    data = pd.concat([way.assign(method=name) for name, (_, way) in ways.items()])
    # By definition nearly 0: ProCo's class vectors are the class means.
    data.loc[data["method"] == "ProCo", "self_duality"] = np.nan
    figure, axs = looks.panels(len(_PANELS), columns=2, height=2.6)
    for ax, measure in zip(axs, _PANELS, strict=True):
        for name, way in data[data["step"] > 0].groupby("method", sort=False):
            look = looks.LOOKS[str(name)]
            ax.plot(way["step"], way[measure], color=look.color, linestyle=look.line)
        ax.set(xscale="log", xlabel="step")
        note_above(ax, MEASURES[measure])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:g}"))
    axs[0].set(yscale="log", ylim=(_COLLAPSED, None))
    handles = [
        Line2D([], [], color=looks.LOOKS[name].color, linestyle=looks.LOOKS[name].line, label=name)
        for name in ways
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    ends = {name: end for name, (end, _) in ways.items()}
    return plots.save_figure(
        figure,
        folder / "steps",
        data.reset_index(drop=True),
        alt=f"NC1 to NC4 by step of gradient descent, one line per loss. Gap to the simplex after "
        f"the last step: {looks.gaps(ends)}.",
        caption=f"Neural collapse along gradient descent; 0 is a perfect simplex. NC3 and NC4 need "
        f"class vectors, which SCL has not; ProCo's are the class means, so that its NC3 is left "
        f"out. Gap after the last step: {looks.gaps(ends)}. {looks.facts(ends)}",
    )


def temperatures(
    sweep: Mapping[str, Sequence[Arrangement]], folder: Path, *, recipe: float
) -> SavedFigure:
    """Show how far the optimum is from the simplex at several temperatures.

    Args:
        sweep: By display name, one arrangement per temperature.
        folder: Where the figure goes.
        recipe: Temperature of BCL's recipes, which is marked.
    """
    data = pd.DataFrame(
        [
            {"method": name, "temperature": end.method.temperature, "gap": end.gap}
            for name, ends in sweep.items()
            for end in sorted(ends, key=lambda end: end.method.temperature)
        ]
    )
    figure, ax = plt.subplots(figsize=(looks.WIDTH, 4), layout="constrained")
    handles = []
    for name, rows in data.groupby("method", sort=False):
        look = looks.LOOKS[str(name)]
        handles += ax.plot(
            rows["temperature"],
            rows["gap"],
            color=look.color,
            linestyle=look.line,
            marker=look.marker,
            label=name,
            **MARKER_EDGE,
        )
    ticks = sorted(set(data["temperature"]))
    ax.set(xscale="log", xlabel="temperature", ylabel="gap: mean |cos − ideal|")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.axvline(recipe, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    side, top = ("data", "axes fraction"), (recipe, 1.0)
    write(ax, "BCL's recipe", top, within=side, shift=(4, 0), align=("left", "top"))
    legend_above(ax, handles, "distance of the optimum from the regular simplex")
    told = "; ".join(
        f"{name} {looks.number(rows['gap'].iloc[0], 3)} to {looks.number(rows['gap'].iloc[-1], 3)}"
        for name, rows in data.groupby("method", sort=False)
    )
    ends = {name: arrangements[0] for name, arrangements in sweep.items()}
    return plots.save_figure(
        figure,
        folder / "temperatures",
        data,
        alt=f"Gap to the simplex by temperature, one line per loss, from {ticks[0]:g} to "
        f"{ticks[-1]:g}: {told}.",
        caption=f"Gap to the simplex at temperatures from {ticks[0]:g} to {ticks[-1]:g}: {told}. "
        f"Dotted: {recipe:g}, the temperature of BCL's recipes. "
        f"{looks.facts(ends, temperature=False)}",
    )


def batches(
    whole: Mapping[str, Arrangement], parts: Mapping[str, Arrangement], folder: Path, *, size: int
) -> SavedFigure:
    """Show every pairwise cosine when no class is missing from a batch, and when some are.

    Args:
        whole: Arrangements by display name, all vectors in one batch.
        parts: The same losses in small batches.
        folder: Where the figure goes.
        size: Vectors in a small batch.
    """
    groups = {"all vectors in one batch": whole, f"batches of {size}": parts}
    names = list(whole)
    figure, ax = plt.subplots(figsize=(looks.WIDTH, 1.5 + 0.5 * len(names)), layout="constrained")
    ideal = -1 / (len(whole[names[0]].class_counts) - 1)
    ax.axvline(ideal, color=INK, linewidth=1, zorder=1)
    frames, handles = [], []
    for (group, ends), color, marker, shift in zip(
        groups.items(), (INK, looks.SECOND), "oD", (-0.15, 0.15), strict=True
    ):
        for position, (name, end) in enumerate(ends.items()):
            found = looks.pairs(end)
            frames.append(found.assign(method=name, batches=group))
            x = found["cosine"].sort_values()
            y = np.full(len(x), position + shift)
            ax.plot(x, y, color=color, marker=marker, markersize=6.5, linewidth=0.8, **MARKER_EDGE)
        handle = Line2D([], [], color=color, marker=marker, linewidth=0.8, **MARKER_EDGE)
        handle.set_label(group)
        handles.append(handle)
    for edge in range(1, len(names)):
        ax.axhline(edge - 0.5, color=RULE, linewidth=0.5)
    ax.grid(False)
    ax.set_yticks(range(len(names)), [fill(name, 22) for name in names])
    ax.set(xlim=(-1, 1), ylim=(len(names) - 0.5, -0.5), xlabel="cosine between two class means")
    side, top = ("data", "axes fraction"), (ideal, 1.0)
    write(ax, "simplex", top, within=side, shift=(3, -1), align=("left", "top"))
    legend_above(ax, handles, "each marker is a pair of classes")
    told = "; ".join(
        f"{name} {looks.number(whole[name].gap, 2)} and {looks.number(parts[name].gap, 2)}"
        for name in names
    )
    return plots.save_figure(
        figure,
        folder / "batches",
        pd.concat(frames, ignore_index=True),
        alt=f"Cosine of every pair of classes, one row per loss, in one batch and in batches of "
        f"{size}. Gap to the simplex: {told}.",
        caption=f"Every pair of classes, when one batch holds all vectors and when batches of "
        f"{size} miss some classes. Gap, mean |cos − ideal|, one batch and small batches: {told}. "
        f"{looks.facts(whole)}",
    )


def trained_networks(runs: pd.DataFrame, folder: Path) -> SavedFigure:
    """Show the same measures of the test embeddings of trained networks.

    Args:
        runs: Finished runs; those of methods without a projector are left out.
        folder: Where the figure goes.
    """
    runs = runs[[hasattr(read_config(run_dir).method, "projector") for run_dir in runs["run_dir"]]]
    if runs.empty:
        figure, ax = plt.subplots(figsize=(looks.WIDTH, 2), layout="constrained")
        told = "No finished run of a contrastive method was found: run notebooks/start_here.ipynb."
        not_run(ax)
        return plots.save_figure(figure, folder / "trained_networks", runs, alt=told, caption=told)
    data = pd.DataFrame(
        [
            {"method": run.method, "seed": run.seed} | _network_measures(run.run_dir)
            for run in runs.itertuples()
        ]
    )
    styles = method_styles(data["method"])
    figure, axs = looks.panels(len(_PANELS), columns=2, height=0.9 + 0.27 * len(styles))
    for ax, measure in zip(axs, _PANELS, strict=True):
        for position, (method, style) in enumerate(styles.items()):
            values = data.loc[data["method"] == method, measure].dropna()
            at = np.full(len(values), position)
            ax.plot(values, at, style.marker, color=style.color, **MARKER_EDGE)
        ax.set_yticks(range(len(styles)), [style.label for style in styles.values()])
        ax.set(ylim=(len(styles) - 0.5, -0.5), xlim=(0, 1.05 * data[measure].max()))
        ax.set_xlabel(MEASURES[measure])
        ax.grid(axis="both")
    means = data.groupby("method", sort=False)["simplex_gap"].mean()
    told = ", ".join(f"{METHOD_NAMES[str(name)]} {gap:.2f}" for name, gap in means.items())
    seeds = " or ".join(map(str, sorted(set(data.groupby("method")["seed"].nunique()))))
    data_set = " and ".join(runs["dataset"].unique())
    factors = " and ".join(f"{factor:g}" for factor in runs["imbalance_factor"].unique())
    return plots.save_figure(
        figure,
        folder / "trained_networks",
        data,
        alt=f"NC1 to NC4 of test embeddings, one marker per run. Gap to the simplex: {told}.",
        caption=f"Test embeddings of trained networks, one marker per run; 0 is a perfect simplex. "
        f"NC3 and NC4 need class vectors among the embeddings, which BCL and ProCo have. Gap "
        f"to the simplex: {told}. Data: {data_set}, imbalance factor {factors}; n = {seeds}; "
        "last epoch.",
    )


def _network_measures(run_dir: Path) -> dict[str, float]:
    arrays = load_arrays(run_dir / "geometry.npz")
    vectors = arrays.get("class_vectors")
    return measures(
        torch.from_numpy(arrays["sample_embeddings"]).double(),
        torch.from_numpy(arrays["sample_targets"]),
        None if vectors is None else torch.from_numpy(vectors).double(),
    )
