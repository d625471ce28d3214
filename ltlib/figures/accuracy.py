"""Accuracy and training curves: counts, per class, by split, by epoch."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from ltlib import plots
from ltlib.config import DataConfig
from ltlib.data import load_dataset
from ltlib.figures.tables import facts
from ltlib.plots import METHOD_NAMES, SavedFigure
from ltlib.runs import load_history, load_per_class, load_shots


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
        caption=f"Test accuracy of each class, from most to fewest training images. {facts(runs)}",
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
        caption=f"Test accuracy over all classes and by split. {facts(runs)}",
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
        f"in height (right), by epoch. {facts(runs)}",
        watermark=watermark,
    )


def _head_and_tail(data: pd.DataFrame) -> tuple[float, float]:
    """Return the mean accuracy of the largest and of the smallest fifth of the classes."""
    classes = data.groupby("class")[["train_count", "accuracy"]].mean().sort_values("train_count")
    fifth = max(1, len(classes) // 5)
    return classes["accuracy"].iloc[-fifth:].mean(), classes["accuracy"].iloc[:fifth].mean()
