"""Tidy DataFrame -> Axes: the suite's figures, one look for all of them.

Every ``plot_*`` takes one tidy frame (one row per observation), draws on ``ax`` or on a new
figure, and returns the Axes. Accuracy is a fraction in the frame and percent on the axis.
Spread over seeds is drawn whenever there is one, and n is always stated. An empty frame draws
"not run". ``save_figure`` writes the PNG and, beside it, the CSV of what was drawn.

Torch is not imported, so that reports render in seconds.
"""

from ltlib.plots.accuracy import plot_per_class_accuracy, plot_shot_accuracy
from ltlib.plots.cosines import plot_cosine_matrix
from ltlib.plots.counts import plot_class_counts
from ltlib.plots.history import plot_history
from ltlib.plots.saving import SavedFigure, add_watermark, save_figure
from ltlib.plots.sphere import plot_simplex
from ltlib.plots.style import METHOD_COLORS, METHOD_MARKERS, METHOD_NAMES, set_style

__all__ = [
    "METHOD_COLORS",
    "METHOD_MARKERS",
    "METHOD_NAMES",
    "SavedFigure",
    "add_watermark",
    "plot_class_counts",
    "plot_cosine_matrix",
    "plot_history",
    "plot_per_class_accuracy",
    "plot_shot_accuracy",
    "plot_simplex",
    "save_figure",
    "set_style",
]
