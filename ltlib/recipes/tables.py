"""Table rows: a recipe, and where its published number stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from ltlib.recipes.cifar import CIFAR_METHODS
from ltlib.recipes.published import published_results
from ltlib.recipes.settings import look_up


@dataclass(frozen=True)
class Row:
    """One row of a table: a recipe, and where its published number stands in the data file."""

    recipe: str
    published: Mapping[str, object] = field(default_factory=dict)
    """Column values that single out the row of ``published_results()``; empty: not published."""


@dataclass(frozen=True)
class Table:
    """Rows that one notebook reproduces."""

    title: str
    paper: str
    """arXiv id."""
    protocol: str
    rows: tuple[Row, ...]


def _cifar_rows(method: str, paper: str, table: str, name: str, epochs: int) -> tuple[Row, ...]:
    suffix = "-400ep" if method == "proco" and epochs == 400 else ""
    return tuple(
        Row(
            f"{method}-{dataset}-if{factor}{suffix}",
            {
                "paper": paper,
                "table": table,
                "dataset": title,
                "imbalance_factor": factor,
                "method": name,
                "epochs": epochs,
                "split": "all",
            },
        )
        for dataset, title in (("cifar100", "CIFAR-100-LT"), ("cifar10", "CIFAR-10-LT"))
        for factor in (100, 50, 10)
    )


_RERUN = {
    "ce": "CE",
    "ldam": "LDAM",
    "ce_drw": "CE-DRW",
    "ldam_drw": "LDAM-DRW",
    "la": "Balanced Softmax",
}
"""What DBM (AAAI 2025) trained again under the papers' augmentation, and its names for it."""

_LADDER = ("ce", "focal", "cb", "ldam", "ce_drw", "ldam_drw", "mixup", "la", "kcl", "scl")


def _baseline_rows(method: str) -> tuple[Row, ...]:
    # A baseline's own paper crops and flips, which on CIFAR-100 is worth 6 points: no comparison.
    title = _RERUN.get(method, "")
    rows = _cifar_rows(method, "third-party rerun", "DBM controlled rerun (CIFAR)", title, 200)
    return rows if title else tuple(Row(row.recipe) for row in rows)


_DATASETS = {
    "imagenet_lt": "ImageNet-LT",
    "inaturalist18": "iNaturalist2018",
    "places_lt": "Places-LT",
    "imagenet": "ImageNet-1K(full)",
}
_BACKBONES = {
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet152": "ResNet-152",
    "resnet200": "ResNet-200",
    "resnext50": "ResNeXt-50",
    "resnext101": "ResNeXt-101",
}
_PAPERS = {"bcl": "BCL", "proco": "ProCo", "paco": "PaCo", "gpaco": "GPaCo"}


def _large_row(recipe: str, table: str) -> Row:
    """A row of a data set of 224 pixels, published in a paper's table of results.csv."""
    method, dataset, backbone, *variant = recipe.split("-")
    published: dict[str, object] = {
        "paper": _PAPERS[method],
        "table": table,
        "dataset": _DATASETS[dataset],
        "backbone": _BACKBONES[backbone] + "(ImageNet-pretrained)" * (dataset == "places_lt"),
        "method": _PAPERS[method],
        "split": "all",
    }
    if method == "bcl" and variant:
        published["views_or_aug"] = "-".join(variant)
    if method == "proco":
        published["epochs"] = 180 if variant else 90
    return Row(recipe, published)


TABLES: dict[str, Table] = {
    "start_here": Table(
        title="Seven losses on a long tail of digits",
        paper="",
        protocol="digits, imbalance factor 50, ResNet-8, last epoch",
        rows=tuple(Row(f"{method}-digits-if50") for method in CIFAR_METHODS),
    ),
    "bcl_cifar_lt": Table(
        title="Balanced Contrastive Learning on CIFAR-LT",
        paper="2207.09052",
        protocol="ResNet-32, 200 epochs, top-1 accuracy on the balanced test set",
        rows=_baseline_rows("ce")
        + _baseline_rows("la")
        + _cifar_rows("bcl", "BCL", "BCL CIFAR-LT table (as quoted by third parties)", "BCL", 200),
    ),
    "proco_cifar_lt": Table(
        title="Probabilistic Contrastive Learning on CIFAR-LT",
        paper="2403.06726",
        protocol="ResNet-32, 200 or 400 epochs, top-1 accuracy on the balanced test set; "
        "the paper reports the best epoch on the test set of one run",
        rows=_cifar_rows("proco", "ProCo", "README supervised", "ProCo", 200)
        + _cifar_rows("proco", "ProCo", "README supervised", "ProCo", 400)[:1],
    ),
    "paco_cifar_lt": Table(
        title="Parametric Contrastive Learning on CIFAR-100-LT",
        paper="2107.12028",
        protocol="ResNet-32, 400 epochs, top-1 accuracy on the balanced test set",
        rows=_cifar_rows("paco", "PaCo", "CIFAR-100-LT table (as quoted)", "PaCo", 400)[:3],
    ),
    "baselines_cifar_lt": Table(
        title="The baselines below BCL, ProCo and PaCo on CIFAR-LT",
        paper="",
        protocol="ResNet-32, 200 epochs, BCL's augmentation and schedule, top-1 accuracy on the "
        "balanced test set; published: DBM's controlled rerun, where it has the method",
        rows=tuple(row for method in _LADDER for row in _baseline_rows(method)),
    ),
    "bcl_imagenet_lt": Table(
        title="Balanced Contrastive Learning on ImageNet-LT",
        paper="2207.09052",
        protocol="90 epochs, top-1 accuracy on the balanced test set; CE and LA: the same without "
        "contrast; the paper's epoch is the best on the validation set",
        rows=(
            Row("ce-imagenet_lt-resnet50"),
            Row("la-imagenet_lt-resnet50"),
            _large_row("bcl-imagenet_lt-resnet50", "ImageNet-LT 90 epochs (as quoted)"),
            Row("ce-imagenet_lt-resnext50"),
            Row("la-imagenet_lt-resnext50"),
            _large_row("bcl-imagenet_lt-resnext50-sim-sim", "README results"),
            _large_row("bcl-imagenet_lt-resnext50-sim-rand", "README results"),
            _large_row("bcl-imagenet_lt-resnext50-rand-rand", "README results"),
        ),
    ),
    "proco_imagenet_lt": Table(
        title="Probabilistic Contrastive Learning on ImageNet-LT",
        paper="2403.06726",
        protocol="90 or 180 epochs, top-1 accuracy on the balanced test set; the paper's epoch is "
        "the best on the validation set",
        rows=(
            _large_row("proco-imagenet_lt-resnet50", "README supervised"),
            _large_row("proco-imagenet_lt-resnet50-180ep", "README supervised"),
            _large_row("proco-imagenet_lt-resnext50", "README supervised"),
        ),
    ),
    "paco_imagenet_lt": Table(
        title="Parametric Contrastive Learning, PaCo and GPaCo, on ImageNet-LT",
        paper="2107.12028",
        protocol="400 epochs, top-1 accuracy on the balanced test set; the paper's epoch is the "
        "best on the test set",
        rows=tuple(
            _large_row(f"{method}-imagenet_lt-{backbone}", "README ImageNet-LT")
            for method in ("paco", "gpaco")
            for backbone in ("resnet50", "resnext50", "resnext101")
        ),
    ),
    "inaturalist18": Table(
        title="Contrastive methods on iNaturalist 2018",
        paper="",
        protocol="90 (ProCo), 100 (BCL) or 400 epochs, top-1 accuracy on the validation set, on "
        "which the papers choose the epoch as well",
        rows=(
            _large_row("bcl-inaturalist18-resnet50", "iNat 100 epochs (as quoted)"),
            _large_row("proco-inaturalist18-resnet50", "README supervised"),
            _large_row("paco-inaturalist18-resnet50", "README iNat"),
            _large_row("paco-inaturalist18-resnet152", "README iNat"),
            _large_row("gpaco-inaturalist18-resnet50", "README iNat"),
            _large_row("gpaco-inaturalist18-resnet152", "README iNat"),
        ),
    ),
    "places_lt": Table(
        title="Parametric Contrastive Learning on Places-LT",
        paper="2107.12028",
        protocol="ResNet-152 from ImageNet weights, 30 epochs, top-1 accuracy; the paper's is the "
        "best epoch's on the validation set",
        rows=(
            _large_row("paco-places_lt-resnet152", "README Places-LT"),
            _large_row("gpaco-places_lt-resnet152", "README Places-LT"),
        ),
    ),
    "paco_imagenet": Table(
        title="Parametric Contrastive Learning on full ImageNet",
        paper="2107.12028",
        protocol="400 epochs, top-1 accuracy on the validation set",
        rows=(
            _large_row("paco-imagenet-resnet50", "README full ImageNet"),
            _large_row("paco-imagenet-resnet101", "README full ImageNet"),
            _large_row("paco-imagenet-resnet200", "README full ImageNet"),
            _large_row("gpaco-imagenet-resnet50", "README full ImageNet & OOD"),
        ),
    ),
}


def get_table(name: str) -> Table:
    """Look a table up.

    Raises:
        ValueError: If there is none of that name.
    """
    return look_up(TABLES, name, "table")


def published_row(row: Row) -> pd.Series | None:
    """Find the published number of a table row, or None if nobody published one.

    Raises:
        ValueError: If the row's key does not single out one number.
    """
    if not row.published:
        return None
    results = published_results()
    for column, value in row.published.items():
        results = results[results[column] == value]
    if len(results) != 1:
        raise ValueError(f"{len(results)} published numbers match {row.recipe}, want exactly one")
    return results.iloc[0]
