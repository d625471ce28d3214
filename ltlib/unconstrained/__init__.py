"""Unconstrained features: vectors as free as a perfect network would make them, under each loss.

A network that could put every image anywhere would leave the loss alone to decide where the
embeddings go. Here unit vectors, one per sample, are trained without a network, which shows what
each loss wants: whether its optimum is the regular simplex, and what a long tail makes of it. The
losses are those of ``ltlib.losses`` and the settings those of ``ltlib.config``, so that what is
seen is what trains.

SCL (Khosla et al. 2020, arXiv:2004.11362; its optimum on balanced data: Graf et al. 2021,
arXiv:2102.08817), BCL (Zhu et al. 2022, arXiv:2207.09052), ProCo (Du et al. 2024,
arXiv:2403.06726), PaCo (Cui et al. 2021, arXiv:2107.12028).
"""

from ltlib.unconstrained.changes import batches, steps, temperatures, trained_networks
from ltlib.unconstrained.looks import provenance
from ltlib.unconstrained.objectives import LADDER_TO_BCL, ladder, lower_bound, parts
from ltlib.unconstrained.optima import (
    cosine_matrices,
    losses_against_simplex,
    results_table,
    spheres,
)
from ltlib.unconstrained.vectors import (
    Arrangement,
    descend,
    draw_batches,
    measures,
    minimize,
    simplex_loss,
)

__all__ = [
    "LADDER_TO_BCL",
    "Arrangement",
    "batches",
    "cosine_matrices",
    "descend",
    "draw_batches",
    "ladder",
    "losses_against_simplex",
    "lower_bound",
    "measures",
    "minimize",
    "parts",
    "provenance",
    "results_table",
    "simplex_loss",
    "spheres",
    "steps",
    "temperatures",
    "trained_networks",
]
