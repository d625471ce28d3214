"""Weights on disk: a run's own checkpoints, the authors' released weights, and ImageNet's.

A run saves and resumes with ``save_checkpoint`` and ``load_checkpoint`` and exports safetensors;
``load_release`` turns the authors' files of ProCo (arXiv:2403.06726), BCL (arXiv:2207.09052), PaCo
(arXiv:2107.12028) and GPaCo (arXiv:2209.12400) into this package's modules; ``read_pretrained``
reads what a backbone starts from. Nothing that a file asks to run is run, and nothing is
downloaded.
"""

from ltlib.checkpoints.pretrained import read_pretrained
from ltlib.checkpoints.release import Release, ReleaseInfo, load_release, save_release
from ltlib.checkpoints.saving import (
    CHECKPOINT,
    PREVIOUS,
    export_weights,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)

__all__ = [
    "CHECKPOINT",
    "PREVIOUS",
    "Release",
    "ReleaseInfo",
    "export_weights",
    "load_checkpoint",
    "load_release",
    "read_pretrained",
    "remove_checkpoints",
    "save_checkpoint",
    "save_release",
]
