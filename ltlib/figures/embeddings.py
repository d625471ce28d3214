"""Where the embeddings of the classes lie: cosine matrices and spheres."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

from ltlib import geometry, plots
from ltlib.figures.tables import facts
from ltlib.plots import METHOD_NAMES, SavedFigure
from ltlib.runs import load_arrays


def cosine_matrices(
    runs: pd.DataFrame, folder: Path, *, watermark: str | None = None
) -> SavedFigure:
    """Show the cosines between class means of the embeddings, beside the ideal simplex's."""
    shown = _one_per_recipe(runs)
    cosines = {run.method: _cosines(run.run_dir) for run in shown.itertuples()}
    num_classes = len(next(iter(cosines.values())))
    ideal = np.full((num_classes, num_classes), -1 / (num_classes - 1))
    np.fill_diagonal(ideal, 1)
    panels = {METHOD_NAMES.get(m, m): matrix for m, matrix in cosines.items()} | {"ideal": ideal}
    figure, axs = _grid(len(panels), width=2.6, height=3.2)
    for position, (ax, (title, matrix)) in enumerate(zip(axs, panels.items(), strict=True)):
        last = position == len(panels) - 1
        plots.plot_cosine_matrix(matrix, ax=ax, colorbar=axs if last else False)
        ax.set_title(title)
        ax.label_outer()
    data = pd.concat(
        [_tidy(matrix).assign(method=method) for method, matrix in cosines.items()],
        ignore_index=True,
    )
    gaps = data.groupby("method", sort=False)["cosine"].agg(
        lambda x: (x - ideal[0, 1]).abs().mean()
    )
    told = ", ".join(f"{METHOD_NAMES.get(m, m)} {gap:.2f}" for m, gap in gaps.items())
    return plots.save_figure(
        figure,
        folder / "cosine_matrices",
        data,
        alt="Cosine between every two class means, a matrix per method and the ideal one. Mean "
        f"distance from the ideal {ideal[0, 1]:.3f}: {told}.",
        caption="Cosines between the centred class means of the test embeddings, classes from "
        f"most to fewest training images; ideal {ideal[0, 1]:.3f}. Mean distance from it: "
        f"{told}. {facts(shown)}",
        watermark=watermark,
    )


def spheres(
    runs: pd.DataFrame,
    folder: Path,
    *,
    methods: Sequence[str] | None = None,
    watermark: str | None = None,
) -> SavedFigure:
    """Show the two largest and two smallest classes on the sphere that their means span.

    Four points always lie in three dimensions, so the directions of the centred class means are
    drawn without loss; a perfect simplex is a regular tetrahedron.
    """
    shown = _one_per_recipe(runs)
    shown = shown[shown["method"].isin(methods or shown["method"].unique())]
    figure, axs = _grid(len(shown), width=2.9, height=3.1, projection="3d")
    frames = []
    for ax, run in zip(axs, shown.itertuples(), strict=True):
        samples, means, ideal = _tetrahedron(load_arrays(run.run_dir / "geometry.npz"))
        plots.plot_simplex(samples, means, ideal, ax=ax)
        ax.set_title(METHOD_NAMES.get(run.method, run.method))
        frames += [
            samples.assign(method=run.method, what="sample"),
            means.assign(method=run.method, what="class mean"),
        ]
    data = pd.concat(frames, ignore_index=True)
    names = list(dict.fromkeys(means["class"]))
    return plots.save_figure(
        figure,
        folder / "spheres",
        data,
        alt=f"Test embeddings of classes {names} on a sphere, their means as arrows, and a regular "
        "tetrahedron, one sphere per method.",
        caption=f"Test embeddings (points) and class means (arrows) of the two largest and the two "
        f"smallest classes, {', '.join(map(str, names))}, in the three dimensions that the four "
        f"means span; dashed: the nearest regular simplex. {facts(shown)}",
        watermark=watermark,
    )


def _one_per_recipe(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the first seed of each recipe: a picture shows one network, not a mean of several."""
    return runs.drop_duplicates("recipe")


def _cosines(run_dir: Path) -> np.ndarray:
    """Return the cosines between class means, (C, C), classes from many to few."""
    arrays = load_arrays(run_dir / "geometry.npz")
    order = np.argsort(-arrays["class_counts"], kind="stable")
    return geometry.cosine_matrix(torch.from_numpy(arrays["embedding_means"][order])).numpy()


def _tidy(matrix: np.ndarray) -> pd.DataFrame:
    row, column = np.nonzero(~np.eye(len(matrix), dtype=bool))
    return pd.DataFrame({"class": row, "other_class": column, "cosine": matrix[row, column]})


def _tetrahedron(arrays: dict[str, np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Project four classes to the space of their centred means: samples, means, ideal."""
    order = np.argsort(-arrays["class_counts"], kind="stable")
    classes = torch.from_numpy(np.concatenate([order[:2], order[-2:]]).copy())
    means = torch.from_numpy(arrays["embedding_means"]).double()[classes]  # (4, D)
    center = means.mean(dim=0)
    _, _, axes = torch.linalg.svd(means - center, full_matrices=False)
    basis = axes[:3].T  # (D, 3); the fourth singular value of four centred points is zero
    targets = torch.from_numpy(arrays["sample_targets"])
    chosen = torch.isin(targets, classes)
    samples = torch.from_numpy(arrays["sample_embeddings"]).double()[chosen]
    directions = normalize((means - center) @ basis, dim=1)
    counts = arrays["class_counts"]
    return (
        _points((samples - center) @ basis, targets[chosen], counts),
        _points(directions, classes, counts),
        geometry.nearest_simplex(directions).numpy(),
    )


def _points(vectors: Tensor, targets: Tensor, counts: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(normalize(vectors, dim=1).numpy(), columns=["x", "y", "z"])
    return frame.assign(**{"class": targets.numpy(), "train_count": counts[targets.numpy()]})


def _grid(
    number: int, *, width: float, height: float, projection: str | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of that many panels, at most four in a row."""
    columns = min(4, number)
    rows = -(-number // columns)
    figure = plt.figure(figsize=(width * columns, height * rows), layout="constrained")
    places = range(1, number + 1)
    return figure, [figure.add_subplot(rows, columns, n, projection=projection) for n in places]
