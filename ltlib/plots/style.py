"""One look: palette, names and type sizes."""

from collections.abc import Iterable
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib.pyplot as plt

INK = "#222222"
GREY = "#6B7280"
RULE = "#9CA3AF"
GRID = "#E5E7EB"

METHOD_NAMES = {
    "ce": "CE",
    "focal": "Focal",
    "cb": "CB",
    "ldam": "LDAM",
    "ce_drw": "CE-DRW",
    "ldam_drw": "LDAM-DRW",
    "mixup": "Mixup",
    "la": "LA",
    "kcl": "KCL",
    "scl": "SCL",
    "bcl": "BCL",
    "proco": "ProCo",
    "paco": "PaCo",
    "gpaco": "GPaCo",
}
"""Display names, in the order in which every figure shows the methods."""

# Okabe and Ito's palette for the papers' methods. The baselines' colours were searched for: any two
# of the fourteen are at least 16 apart in CIELAB, as seen by normal, protan, deutan and tritan eyes
# (Machado et al. 2009, full severity).
METHOD_COLORS = {
    "ce": "#4D4D4D",
    "focal": "#601D5B",
    "cb": "#679B55",
    "ldam": "#2C2D83",
    "ce_drw": "#874C38",
    "ldam_drw": "#9FC259",
    "mixup": "#DCA9AD",
    "la": "#56B4E9",
    "kcl": "#812204",
    "scl": "#E69F00",
    "bcl": "#0072B2",
    "proco": "#D55E00",
    "paco": "#009E73",
    "gpaco": "#CC79A7",
}
METHOD_MARKERS = {
    "ce": "X",
    "focal": "<",
    "cb": ">",
    "ldam": "h",
    "ce_drw": "d",
    "ldam_drw": "H",
    "mixup": "*",
    "la": "v",
    "kcl": "8",
    "scl": "^",
    "bcl": "o",
    "proco": "s",
    "paco": "D",
    "gpaco": "P",
}
_FALLBACK_COLORS = ("#7B4FA3", "#8C564B", "#17A2B8", "#A6761D", "#B5477B", "#5B7F3A")
_FALLBACK_MARKERS = ("p", "o", "s", "^", "D", "v")

SPLIT_RANGES = {"many": "> 100", "medium": "20–100", "few": "< 20"}
"""The field's splits by training images per class; bounds as in ``metrics.shots``."""
MANY_SHOT, FEW_SHOT = 100, 20
SPLIT_TINTS = {"all": "#FFFFFF", "many": "#FFFFFF", "medium": "#F5F6F8", "few": "#EBEDF1"}
SPLIT_MARKERS = {"all": "D", "many": "o", "medium": "s", "few": "^"}

MARKER_EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5}
"""Parts markers that overlap."""

_TEXT, SMALL = 10.5, 9.5
"""The two type sizes, points: of labels and legends; of ticks, notes and text in figures. On a
phone 390 pixels wide they are 9 and 8 pixels high."""

_STYLE: dict[Any, Any] = {
    "figure.figsize": (6.4, 4.0),
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "font.size": _TEXT,
    "axes.titlesize": _TEXT,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.labelsize": _TEXT,
    "axes.labelpad": 6,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 7,
    "legend.fontsize": _TEXT,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "text.color": INK,
}


def set_style() -> None:
    """Set the suite's look for all figures that follow, once per notebook."""
    plt.rcParams.update(_STYLE)


class MethodStyle(NamedTuple):
    """How one method is drawn, everywhere."""

    label: str
    color: str
    marker: str


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Give every method its fixed name, colour and marker, in the suite's order.

    Unknown methods follow in order of appearance, under their own name.

    Args:
        methods: Method keys, repeats allowed.

    Returns:
        One style per method.
    """
    given = list(dict.fromkeys(methods))
    fallback = zip(cycle(_FALLBACK_COLORS), cycle(_FALLBACK_MARKERS), strict=False)
    known = {
        key: MethodStyle(METHOD_NAMES[key], METHOD_COLORS[key], METHOD_MARKERS[key])
        for key in METHOD_NAMES
        if key in given
    }
    unknown = [key for key in given if key not in known]
    return known | {key: MethodStyle(str(key), *next(fallback)) for key in unknown}
