"""Table rows: a recipe, and where its published number stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from ltlib.recipes.published import published_results
from ltlib.recipes.settings import CIFAR_METHODS, look_up


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
