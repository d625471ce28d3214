"""Tables as notebooks show them, and the words that captions share."""

import pandas as pd
from pandas.io.formats.style import Styler

from ltlib.plots import METHOD_NAMES
from ltlib.runs import load_arrays, read_json

MEASURES = {
    "within_class_variability": "NC1 within-class variability",
    "equinorm": "NC2 equinorm",
    "equiangularity": "NC2 equiangularity",
    "simplex_gap": "NC2 gap to the simplex",
    "self_duality": "NC3 self-duality",
    "nearest_mean_disagreement": "NC4 nearest-mean disagreement",
}
"""Neural-collapse measures by heading; each is 0 for a perfect simplex."""


def geometry_table(runs: pd.DataFrame) -> Styler:
    """Show the neural-collapse measures of the test features, mean over seeds."""
    rows = [
        {"method": METHOD_NAMES.get(run.method, run.method)}
        | {title: float(arrays[name]) for name, title in MEASURES.items()}
        for run in runs.itertuples()
        for arrays in [load_arrays(run.run_dir / "geometry.npz")]
    ]
    table = pd.DataFrame(rows).groupby("method", sort=False).mean().reset_index()
    caption = f"Features of the test images; 0 is a perfect simplex. {facts(runs)}"
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

    Columns without any entry are left out; rows whose column ``comparable`` is False are greyed.
    """
    table = table.loc[:, (table.notna() & (table != "")).any()]
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


def facts(runs: pd.DataFrame) -> str:
    """Say on what the runs were made: data set, tail, seeds, epoch."""
    datasets = " and ".join(map(str, runs["dataset"].unique()))
    factors = " and ".join(f"{factor:g}" for factor in runs["imbalance_factor"].unique())
    epochs = " or ".join(str(number) for number in runs["epochs"].unique())
    seeds = runs.groupby("recipe")["seed"].nunique()
    n = str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return f"Data: {datasets}, imbalance factor {factors}, n = {n}, last of {epochs} epochs."
