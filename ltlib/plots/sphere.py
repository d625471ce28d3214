"""The sphere of embeddings: samples, class means, and where the simplex would have them."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d import Axes3D, proj3d
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from ltlib.plots.parts import not_run, note_above, require
from ltlib.plots.style import GRID, INK, RULE

_Colors = dict[object, tuple[float, float, float, float]]

_BACK, _FRONT = 0.18, 0.75
"""Opacity of samples on the far and on the near side of the sphere."""


def plot_simplex(
    data: pd.DataFrame,
    means: pd.DataFrame | None = None,
    ideal: np.ndarray | None = None,
    *,
    view: tuple[float, float] = (18, 30),
    ax: Axes3D | None = None,
) -> Axes3D:
    """Draw embeddings on the unit sphere, their class means as arrows, and the ideal simplex.

    Classes run from dark (first, or most training images) to light; what lies on the far side
    of the sphere is faint.

    Args:
        data: One row per sample: class, x, y, z (unit length); optionally train_count, which
            sorts the classes many to few.
        means: One row per class: class, x, y, z.
        ideal: Vertices of the ideal simplex, (C, 3), as ``geometry.nearest_simplex`` gives them.
        view: Elevation and azimuth of the eye, degrees.
        ax: 3-D Axes to draw on; a new figure by default.

    Returns:
        The Axes, without axes: an embedding's coordinates have neither name nor unit.

    Raises:
        ValueError: If a column is missing.
    """
    if ax is None:
        figure = plt.figure(figsize=(4.8, 4.8), layout="constrained")
        ax = figure.add_subplot(projection="3d")
    if data.empty:
        not_run(ax)
        return ax
    require(data, "class", "x", "y", "z")
    if "train_count" in data:
        data = data.sort_values("train_count", ascending=False, kind="stable")
    names = data["class"].drop_duplicates()
    shades = colormaps["viridis"](np.linspace(0.05, 0.85, len(names)))
    colors: _Colors = dict(zip(names, map(tuple, shades), strict=True))
    eye = _look(ax, view)
    _draw_sphere(ax, eye)
    _draw_samples(ax, data, colors, eye)
    notes = ["points: samples"]
    if means is not None:
        require(means, "class", "x", "y", "z")
        _draw_means(ax, means, colors, eye)
        notes.append("arrows: class means")
    if ideal is not None:
        _draw_ideal(ax, ideal)
        notes.append("dashed: ideal simplex")
    note_above(ax, ", ".join(notes))
    return ax


def _look(ax: Axes3D, view: tuple[float, float]) -> np.ndarray:
    """Point the eye at the sphere without perspective; return the direction to it, (3,)."""
    ax.set_axis_off()
    ax.set_proj_type("ortho")
    ax.computed_zorder = False  # what lies in front is decided here, point by point
    ax.view_init(*view)
    ax.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    ax.set_box_aspect((1, 1, 1), zoom=1.5)
    elevation, azimuth = np.radians(view)
    level = np.cos(elevation)
    return np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])


def _draw_sphere(ax: Axes3D, eye: np.ndarray) -> None:
    """Draw the sphere's outline, and its equator and two meridians, fainter behind."""
    across = np.cross(eye, [0, 0, 1])
    across /= np.linalg.norm(across)
    outline = Poly3DCollection([_circle(across, np.cross(eye, across))], zorder=0)
    outline.set(facecolor="#FAFAFB", edgecolor=RULE, linewidth=0.8)
    ax.add_collection3d(outline)
    for first, second in combinations(np.eye(3), 2):
        points = _circle(first, second)
        behind = points @ eye < 0
        for hidden, shade in ((~behind, GRID), (behind, RULE)):
            visible = np.where(hidden[:, None], np.nan, points)
            ax.plot(*visible.T, color=shade, linewidth=0.7, zorder=1)


def _circle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 181)[:, None]
    return np.cos(turn) * first + np.sin(turn) * second  # (181, 3)


def _draw_samples(ax: Axes3D, data: pd.DataFrame, colors: _Colors, eye: np.ndarray) -> None:
    points = data[["x", "y", "z"]].to_numpy(dtype=float)
    shades = np.array([colors[name] for name in data["class"]])
    depth = points @ eye
    shades[:, 3] = np.where(depth < 0, _BACK, _FRONT)
    order = np.argsort(depth)
    ax.scatter(*points[order].T, c=shades[order], s=11, linewidth=0, depthshade=False, zorder=2)


def _draw_means(ax: Axes3D, means: pd.DataFrame, colors: _Colors, eye: np.ndarray) -> None:
    for name, *tip in means[["class", "x", "y", "z"]].itertuples(index=False):
        vector = np.array(tip, dtype=float)
        color = to_rgb(colors.get(name, INK))
        ax.add_artist(_Arrow(vector, color, zorder=4 + vector @ eye))
        outward = vector - (vector @ eye) * eye  # as seen: a tip towards the eye has no room
        at = vector + 0.13 * outward / max(np.linalg.norm(outward), 1e-9)
        text = ax.text(*at, str(name), color=INK, weight="bold", ha="center", va="center")
        text.set(zorder=6, path_effects=[withStroke(linewidth=2.5, foreground="white")])


def _draw_ideal(ax: Axes3D, ideal: np.ndarray) -> None:
    for first, second in combinations(np.asarray(ideal, dtype=float), 2):
        x, y, z = np.stack([first, second], axis=1)
        ax.plot(x, y, z, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
    look = {"facecolor": "white", "edgecolor": INK, "linewidth": 0.9}
    ax.scatter(*np.transpose(ideal), s=22, depthshade=False, zorder=3.1, **look)


class _Arrow(FancyArrowPatch):
    """An arrow from the origin with a solid head, which matplotlib's 3-D quiver lacks."""

    def __init__(self, tip: np.ndarray, color: tuple[float, ...], zorder: float) -> None:
        super().__init__(
            (0, 0),
            (0, 0),
            arrowstyle="-|>,head_length=0.5,head_width=0.25",
            mutation_scale=14,
            shrinkA=0,
            shrinkB=0,
            linewidth=2.2,
            color=color,
            zorder=zorder,
        )
        self._tip = tip

    def do_3d_projection(self, renderer: RendererBase | None = None) -> float:
        ends = np.stack([np.zeros(3), self._tip])
        assert isinstance(self.axes, Axes3D), "drawn on 3-D Axes"
        x, y, z = proj3d.proj_transform(*ends.T, self.axes.get_proj())
        self.set_positions((x[0], y[0]), (x[1], y[1]))
        return float(np.min(z))
