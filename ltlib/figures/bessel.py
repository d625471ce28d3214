"""Where the recurrence of ProCo's released code stops being right."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from ltlib import plots, vmf
from ltlib.plots import SavedFigure


def recurrence_error(
    folder: Path, *, dims: Sequence[int] = (128, 1024), watermark: str | None = None
) -> SavedFigure:
    """Show the authors' Bessel functions against ours, up to the concentration they clip at.

    Args:
        folder: Where the figure goes.
        dims: Embedding dimensions, even; the papers have 128 and 1,024.
        watermark: Marks the figure as no result.
    """
    kappa = torch.logspace(1, 5, 161, dtype=torch.float64)
    frames = []
    for dim in dims:
        log_normalizer, ratio = vmf.truncated_recurrence(kappa, dim)
        frames.append(
            pd.DataFrame(
                {
                    "dim": dim,
                    "kappa": kappa,
                    "error": (log_normalizer - vmf.log_normalizer(kappa, dim)).abs(),
                    "ratio_released": ratio,
                    "ratio_exact": vmf.bessel_ratio(kappa, dim),
                }
            )
        )
    data = pd.concat(frames, ignore_index=True)
    wrong = data[data["error"] > ACCEPTABLE].groupby("dim")["kappa"].min().to_dict()
    told = "; ".join(
        f"{dim} dimensions: from κ = {wrong[dim]:,.0f} on"
        if dim in wrong
        else f"{dim} dimensions: nowhere"
        for dim in dims
    )
    figure, axs = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
    for dim, rows in data.groupby("dim"):
        # Errors below 1e-12 are rounding, of either side.
        axs[0].plot(rows["kappa"], rows["error"].clip(lower=1e-12), label=f"{dim} dimensions")
        axs[1].plot(rows["kappa"], rows["ratio_released"] / rows["ratio_exact"])
    axs[0].axhline(ACCEPTABLE, color="0.4", linestyle="--", linewidth=1)
    axs[0].set(xscale="log", yscale="log", ylabel="error of the log-normaliser (nats)")
    axs[1].set(xscale="log", ylabel="Bessel ratio, released over exact")
    for ax in axs:
        ax.set_xlabel("concentration κ")
    axs[0].legend()
    return plots.save_figure(
        figure,
        folder / "recurrence_error",
        data,
        alt=f"Error of the released recurrence against concentration. Wrong by more than "
        f"{ACCEPTABLE:g}: {told}.",
        caption="The recurrence of ProCo's released code, which starts at order D − 2 whatever "
        f"κ, against the exact functions. Wrong by more than {ACCEPTABLE:g} nats (dashed): {told}. "
        "A class seen once has κ = 100,000, where the code clips; it also clips the ratio at 1.",
        watermark=watermark,
    )


ACCEPTABLE = 1e-3
"""Nats; what single precision leaves of a log-normaliser of 10,000."""
