"""Pictures of where each loss puts free vectors.

Captions and alternative texts are written from the data, so that they can be read alone.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from pandas.io.formats.style import Styler
from torch import Tensor

from ltlib import geometry, plots
from ltlib.figures import show
from ltlib.plots import SavedFigure
from ltlib.plots.parts import legend_above
from ltlib.plots.style import GREY, INK
from ltlib.unconstrained import looks
from ltlib.unconstrained.objectives import Parametric
from ltlib.unconstrained.vectors import Arrangement, simplex_loss


def spheres(arrangements: Mapping[str, Arrangement], folder: Path, name: str) -> SavedFigure:
    """Show four classes in three dimensions, one sphere per loss.

    Each sphere is turned so that its nearest simplex stands alike, the first class on top.

    Args:
        arrangements: By display name, of the same four classes, D = 3.
        folder: Where the figure goes.
        name: Of its file.
    """
    figure, axs = looks.panels(len(arrangements), columns=3, height=2.8, projection="3d")
    frames = []
    for ax, (loss, arrangement) in zip(axs, arrangements.items(), strict=True):
        vectors, means, ideal = _upright(arrangement)
        plots.plot_simplex(vectors, means, ideal, view=(14, 195), ax=ax)
        tips = means[["x", "y", "z"]].to_numpy()
        faces = Poly3DCollection([tips[list(face)] for face in combinations(range(4), 3)])
        faces.set(facecolor=INK, alpha=0.06, edgecolor="none", zorder=1.5)
        assert isinstance(ax, Axes3D), "3-D panels"
        ax.add_collection3d(faces)
        looks.title(ax, loss, arrangement)
        frames.append(vectors.assign(loss=loss))
    told = looks.gaps(arrangements)
    return plots.save_figure(
        figure,
        folder / name,
        pd.concat(frames, ignore_index=True),
        alt=f"One sphere per loss, with an arrow to each of four class means and the regular "
        f"simplex. Gap to the simplex: {told}.",
        caption=f"Class means (arrows; 1 is the largest class) where each loss puts them, the body "
        f"they span (grey), and the nearest regular simplex (dashed). Gap: mean |cos − ideal| over "
        f"the pairs of classes. {looks.facts(arrangements)}",
    )


def cosine_matrices(
    arrangements: Mapping[str, Arrangement], folder: Path, name: str = "cosine_matrices"
) -> SavedFigure:
    """Show the cosines between class means, one matrix per loss."""
    figure, axs = looks.panels(len(arrangements), columns=3, height=2.9)
    frames = []
    for ax, (loss, arrangement) in zip(axs, arrangements.items(), strict=True):
        matrix = arrangement.cosines.numpy()
        classes = range(1, len(matrix) + 1)
        frame = pd.DataFrame(matrix, index=classes, columns=classes)
        plots.plot_cosine_matrix(frame, ax=ax, colorbar=axs if ax is axs[-1] else False)
        looks.title(ax, loss, arrangement)
        ax.label_outer()
        frames.append(looks.pairs(arrangement).assign(loss=loss))
    return plots.save_figure(
        figure,
        folder / name,
        pd.concat(frames, ignore_index=True),
        alt=f"Cosine between every two class means, one matrix per loss. Gap to the simplex: "
        f"{looks.gaps(arrangements)}.",
        caption=f"Cosines between class means, from most to fewest vectors: white as in the "
        f"simplex, red too close, blue too far. Gap: mean |cos − ideal|. "
        f"{looks.facts(arrangements)}",
    )


def losses_against_simplex(
    balanced: Mapping[str, Arrangement], long_tailed: Mapping[str, Arrangement], folder: Path
) -> SavedFigure:
    """Show by how much each loss gets below its value at the simplex.

    PaCo is left out: its centers may have any length, so the simplex has no one loss.
    """
    data = _results(balanced, long_tailed).dropna(subset="simplex_loss")
    data["excess"] = data["loss"] - data["simplex_loss"]
    names = list(dict.fromkeys(data["method"]))
    figure, ax = plt.subplots(figsize=(looks.WIDTH, 1.5 + 0.42 * len(names)), layout="constrained")
    ax.axvline(0, color=INK, linewidth=1, zorder=1)
    handles = [
        _mark(ax, data, names, "balanced", marker="o", size=13, filled=False),
        _mark(ax, data, names, "long-tailed", marker="D", size=7, filled=True),
    ]
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel="loss reached − loss of the simplex (nats)")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.margins(x=0.08)
    legend_above(ax, handles, "left of 0, something else is better than the simplex")
    tail = data[data["counts"] == "long-tailed"]
    told = "; ".join(
        f"{row.method} {looks.number(row.excess, 4)}" for row in tail.itertuples(index=False)
    )
    bound = tail.set_index("method")["simplex_loss"]["BCL, per class"]
    return plots.save_figure(
        figure,
        folder / "losses_against_simplex",
        data,
        alt=f"Loss reached minus loss of the simplex, one row per loss. On balanced counts all are "
        f"at 0; on long-tailed ones: {told}.",
        caption=f"How far each loss gets below its value at the regular simplex, on balanced and "
        f"on long-tailed counts. BCL's value there is its lower bound, {bound:.4f}. Long-tailed: "
        f"{told}; for ProCo, where it comes to rest. {looks.facts(long_tailed)}",
    )


def results_table(
    balanced: Mapping[str, Arrangement], long_tailed: Mapping[str, Arrangement]
) -> Styler:
    """Show each loss, its value at the simplex, and the extreme cosines."""
    table = _results(balanced, long_tailed)
    ideal = -1 / (len(next(iter(balanced.values())).class_counts) - 1)
    headings = {name: name.replace("_", " ") for name in table}
    headings |= {"simplex_loss": "loss of the simplex", "agreeing": "starts that agree"}
    table["counts"] = table["counts"].str.replace("-", "\N{NON-BREAKING HYPHEN}")
    caption = (
        f"Losses in nats. In the simplex every cosine is {looks.number(ideal, 4)}, and BCL's loss "
        f"is its lower bound. {looks.facts(balanced, counts=False).capitalize()}"
    )
    return show(table.rename(columns=headings), caption=caption, precision=4)


def _results(
    balanced: Mapping[str, Arrangement], long_tailed: Mapping[str, Arrangement]
) -> pd.DataFrame:
    rows = []
    for counts, arrangements in (("balanced", balanced), ("long-tailed", long_tailed)):
        for name, end in arrangements.items():
            cosines = looks.pairs(end)["cosine"]
            parametric = isinstance(end.method, Parametric)
            at_simplex = (end.method, end.class_counts, end.embeddings.shape[1])
            rows.append(
                {
                    "method": name,
                    "counts": counts,
                    "loss": end.loss,
                    "simplex_loss": np.nan if parametric else simplex_loss(*at_simplex),
                    "lowest_cosine": cosines.min(),
                    "highest_cosine": cosines.max(),
                    "agreeing": f"{end.agreeing} of {end.starts}",
                }
            )
    return pd.DataFrame(rows)


def _mark(
    ax: Axes,
    data: pd.DataFrame,
    names: list[str],
    counts: str,
    *,
    marker: str,
    size: int,
    filled: bool,
) -> Line2D:
    """Draw one marker per loss; return the legend entry."""

    def draw(x: list[float], y: list[int], color: str) -> Line2D:
        face = color if filled else "white"
        line = Line2D(x, y, marker=marker, markersize=size, linestyle="none")
        line.set(markeredgecolor=color, markerfacecolor=face, markeredgewidth=1.6, zorder=3)
        return line

    for row in data[data["counts"] == counts].itertuples(index=False):
        ax.add_line(draw([row.excess], [names.index(row.method)], looks.LOOKS[row.method].color))
    ax.autoscale_view()
    handle = draw([], [], GREY)
    handle.set_label(f"{counts} counts")
    return handle


def _upright(arrangement: Arrangement) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Turn an arrangement so that its nearest simplex has its first corner on top.

    Returns:
        Vectors and class means, as ``plots.plot_simplex`` takes them, and the simplex, (4, 3).
    """
    corners, nearest = geometry.simplex(4, 3), geometry.nearest_simplex(arrangement.means)
    up = corners[0]
    front = F.normalize(corners[1] - (corners[1] @ up) * up, dim=0)
    # A simplex is a tight frame, S^T S = 4/3: nearest^T corners is 4/3 of the turn between them.
    turn = 3 / 4 * nearest.T @ corners
    turn = turn @ torch.stack([front, torch.linalg.cross(up, front), up], dim=1)
    counts = torch.tensor(arrangement.class_counts)
    means = F.normalize(arrangement.means, dim=1)
    return (
        _points(arrangement.embeddings @ turn, arrangement.targets, counts),
        _points(means @ turn, torch.arange(len(counts)), counts),
        (nearest @ turn).numpy(),
    )


def _points(vectors: Tensor, classes: Tensor, counts: Tensor) -> pd.DataFrame:
    frame = pd.DataFrame(vectors.numpy(), columns=["x", "y", "z"])
    return frame.assign(**{"class": classes.numpy() + 1, "train_count": counts[classes].numpy()})
