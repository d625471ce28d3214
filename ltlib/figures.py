"""What every table's notebook shows: runs -> captioned, saved figures and tables.

``plots`` draws one Axes from one frame; here runs are read, Axes are composed, and captions and
alternative texts are written from the data, so that they can be read alone and cannot go stale.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from torch import Tensor
from torch.nn.functional import normalize

from ltlib import geometry, plots
from ltlib.config import DataConfig
from ltlib.data import load_dataset
from ltlib.plots import METHOD_NAMES, SavedFigure
from ltlib.runs import load_arrays, load_history, load_per_class, load_shots, read_json

MEASURES = {
    "within_class_variability": "NC1 within-class variability",
    "equinorm": "NC2 equinorm",
    "equiangularity": "NC2 equiangularity",
    "simplex_gap": "NC2 gap to the simplex",
    "self_duality": "NC3 self-duality",
    "nearest_mean_disagreement": "NC4 nearest-mean disagreement",
}
"""Neural-collapse measures by heading; each is 0 for a perfect simplex."""


def class_counts(
    configs: Sequence[DataConfig],
    folder: Path,
    *,
    data_root: Path | str | None = None,
    watermark: str | None = None,
) -> SavedFigure:
    """Show how many training images each class keeps under some long tails."""
    frames = []
    for config in configs:
        images = load_dataset(config, Path(data_root) if data_root else None, train=True)
        frames.append(
            pd.DataFrame(
                {
                    "dataset": config.dataset,
                    "imbalance_factor": config.imbalance_factor,
                    "class": images.class_names,
                    "train_count": images.class_counts,
                }
            )
        )
    data = pd.concat(frames, ignore_index=True)
    totals = data.groupby("imbalance_factor", sort=False)["train_count"].agg(["sum", "max", "min"])
    told = "; ".join(
        f"IF {factor:g}: {row['sum']:,} images, {row['max']} to {row['min']} a class"
        for factor, row in totals.iterrows()
    )
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    plots.plot_class_counts(data, ax)
    return plots.save_figure(
        figure,
        folder / "class_counts",
        data,
        alt=f"Training images per class on a log scale, falling exponentially. {told}.",
        caption=f"Training images per class of {configs[0].dataset}. {told}.",
        watermark=watermark,
    )


def per_class_accuracy(
    runs: pd.DataFrame, folder: Path, *, watermark: str | None = None
) -> SavedFigure:
    """Show the accuracy of every class against its number of training images."""
    data = load_per_class(runs)
    ends = data.groupby("method", sort=False).apply(_head_and_tail, include_groups=False)
    told = "; ".join(
        f"{METHOD_NAMES.get(method, method)} {100 * head:.0f} % and {100 * tail:.0f} %"
        for method, (head, tail) in ends.items()
    )
    figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
    plots.plot_per_class_accuracy(data, ax)
    return plots.save_figure(
        figure,
        folder / "per_class_accuracy",
        data,
        alt=f"Accuracy of each class, most to fewest training images. Largest and smallest fifth "
        f"of the classes: {told}.",
        caption=f"Test accuracy of each class, from most to fewest training images. {_facts(runs)}",
        watermark=watermark,
    )


def shot_accuracy(
    runs: pd.DataFrame,
    folder: Path,
    *,
    reference: pd.DataFrame | None = None,
    watermark: str | None = None,
) -> SavedFigure:
    """Show accuracy over all, many-, medium- and few-shot classes."""
    data = load_shots(runs)
    means = data[data["split"] == "all"].groupby("method", sort=False)["accuracy"].mean()
    told = ", ".join(f"{METHOD_NAMES.get(m, m)} {100 * mean:.1f} %" for m, mean in means.items())
    figure, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
    plots.plot_shot_accuracy(data, reference, ax)
    return plots.save_figure(
        figure,
        folder / "shot_accuracy",
        data,
        alt=f"Accuracy by split and method. Over all classes: {told}.",
        caption=f"Test accuracy over all classes and by split. {_facts(runs)}",
        watermark=watermark,
    )


def history(
    runs: pd.DataFrame,
    folder: Path,
    *,
    reference: pd.DataFrame | None = None,
    watermark: str | None = None,
) -> SavedFigure:
    """Show test accuracy and training loss by epoch.

    Args:
        runs: Finished runs.
        folder: Where the figure goes.
        reference: The authors' own curve, see ``plots.plot_history``.
        watermark: Marks the figure as no result.
    """
    data = load_history(runs)
    figure, axs = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    plots.plot_history(data, y="all", reference=reference, ax=axs[0])
    plots.plot_history(data, y="loss", ax=axs[1])
    epochs = int(data["epoch"].max()) + 1
    return plots.save_figure(
        figure,
        folder / "history",
        data,
        alt=f"Test accuracy and training loss of each method over {epochs} epochs.",
        caption=f"Test accuracy (left) and training loss, each method's own and so not comparable "
        f"in height (right), by epoch. {_facts(runs)}",
        watermark=watermark,
    )


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
        f"most to fewest training images; ideal {ideal[0, 1]:.3f} everywhere. Mean distance from it: "
        f"{told}. {_facts(shown)}",
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
        f"means span; dashed: the nearest regular simplex. {_facts(shown)}",
        watermark=watermark,
    )


def geometry_table(runs: pd.DataFrame) -> Styler:
    """Show the neural-collapse measures of the test features, mean over seeds."""
    rows = [
        {"method": METHOD_NAMES.get(run.method, run.method)}
        | {title: float(arrays[name]) for name, title in MEASURES.items()}
        for run in runs.itertuples()
        for arrays in [load_arrays(run.run_dir / "geometry.npz")]
    ]
    table = pd.DataFrame(rows).groupby("method", sort=False).mean().reset_index()
    caption = f"Features of the test images; 0 is a perfect simplex. {_facts(runs)}"
    return show(table, caption=caption, precision=2)


def provenance_table(runs: pd.DataFrame) -> Styler:
    """Show where each run was made, by what, and how long it took."""
    rows = []
    for run in runs.itertuples():
        facts = read_json(run.run_dir / "provenance.json")
        rows.append(
            {
                "run": f"{run.recipe}/{run.run_dir.name}",
                "commit": facts.get("commit"),
                "torch": facts.get("versions", {}).get("torch"),
                "device": facts.get("device"),
                "precision": facts.get("precision"),
                "processes": facts.get("processes"),
                "seconds": facts.get("seconds"),
            }
        )
    return show(pd.DataFrame(rows), precision=0)


def show(table: pd.DataFrame, *, caption: str = "", precision: int = 1) -> Styler:
    """Dress a table: numbers right-aligned, empty cells for what is missing.

    Rows whose column ``comparable`` is False are greyed.
    """
    numbers = list(table.select_dtypes("number").columns)
    style = table.style.format(precision=precision, na_rep="").hide(axis="index")
    style = style.set_caption(caption).set_properties(numbers, **{"text-align": "right"})
    style = style.set_table_styles(
        {name: [{"selector": "th", "props": [("text-align", "right")]}] for name in numbers},
        overwrite=False,
    )
    if "comparable" in table:
        style = style.apply(
            lambda row: ["color: #8a909c" if row["comparable"] is False else ""] * len(row), axis=1
        )
    return style


def _facts(runs: pd.DataFrame) -> str:
    """Say on what the runs were made: data set, tail, seeds, epoch."""
    datasets = " and ".join(map(str, runs["dataset"].unique()))
    factors = " and ".join(f"{factor:g}" for factor in runs["imbalance_factor"].unique())
    epochs = " or ".join(str(number) for number in runs["epochs"].unique())
    seeds = runs.groupby("recipe")["seed"].nunique()
    n = str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return f"Data: {datasets}, imbalance factor {factors}, n = {n}, last of {epochs} epochs."


def _head_and_tail(data: pd.DataFrame) -> tuple[float, float]:
    """Return the mean accuracy of the largest and of the smallest fifth of the classes."""
    classes = data.groupby("class")[["train_count", "accuracy"]].mean().sort_values("train_count")
    fifth = max(1, len(classes) // 5)
    return classes["accuracy"].iloc[-fifth:].mean(), classes["accuracy"].iloc[:fifth].mean()


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
