"""What every table's notebook shows: runs -> captioned, saved figures and tables.

``plots`` draws one Axes from one frame; here runs are read, Axes are composed, and captions and
alternative texts are written from the data, so that they can be read alone and cannot go stale.
"""

from ltlib.figures.accuracy import class_counts, history, per_class_accuracy, shot_accuracy
from ltlib.figures.bessel import recurrence_error
from ltlib.figures.embeddings import cosine_matrices, spheres
from ltlib.figures.tables import MEASURES, facts, geometry_table, provenance_table, show

__all__ = [
    "MEASURES",
    "class_counts",
    "cosine_matrices",
    "facts",
    "geometry_table",
    "history",
    "per_class_accuracy",
    "provenance_table",
    "recurrence_error",
    "shot_accuracy",
    "show",
    "spheres",
]
