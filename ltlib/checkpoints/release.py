"""A released network: read from the authors' file, saved as safetensors with a JSON card."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ltlib.checkpoints.assembly import assemble, find_layout
from ltlib.checkpoints.saving import export_weights
from ltlib.checkpoints.unpickling import read_pickle
from ltlib.models import CosineClassifier
from ltlib.runs import write_json

logger = logging.getLogger(__name__)

AUTHORS_SCALE = 30.0
"""Of the cosine classifier in BCL's and ProCo's code, where it is a constant and not saved."""

# Under these names the authors save accuracies in percent.
_ACCURACIES = {
    "all": ("best_acc1", "acc"),
    "many": ("best_many",),
    "medium": ("best_med",),
    "few": ("best_few",),
}
_WRAPPER = "module."


class ReleaseInfo(TypedDict):
    """What a file says about its network, and what it is; the content of the JSON card."""

    family: str
    """"proco", "bcl", "paco" or "gpaco"."""
    source: str
    """Name of the authors' file."""
    sha256: str
    """Of the authors' file."""
    backbone: str
    """A key of ``models.BACKBONES``."""
    feature_dim: int
    embedding_dim: int
    num_classes: int
    classifier: str
    """"linear" or "cosine"."""
    classifier_scale: float | None
    """None for a linear classifier."""
    epoch: int | None
    """Epochs trained, where the file says so."""
    accuracy: dict[str, float]
    """The authors' best on their test or validation images, fractions: "all", "many", "medium",
    "few", as far as the file has them."""
    set_aside: dict[str, str]
    """Parts of the file that only training needs, with what they are."""
    unmatched: list[str]
    """Keys of the file that found no place."""


class Release(nn.Module):
    """A released network, in evaluation mode.

    Args:
        backbone: Images (B, 3, H, W) to features (B, F).
        projector: Features to unit-length embeddings (B, D).
        classifier: Features to logits (B, C).
        info: What the file says.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, classifier: nn.Module, info: ReleaseInfo
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.classifier = classifier
        self.info = info
        self.eval()

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits of test images, (B, 3, H, W) -> (B, C); argmax is the prediction."""
        return self.classifier(self.backbone(images))


def load_release(path: Path | str) -> Release:
    """Read a network that the authors of ProCo, BCL, PaCo or GPaCo released.

    Family, backbone, projector and classifier are inferred from keys and shapes. Keys that find no
    place are logged as a warning and listed in ``info["unmatched"]``.

    Args:
        path: The authors' file, or a ``.safetensors`` of ``save_release`` with its card beside it.

    Raises:
        FileNotFoundError: If the file, or the card of a ``.safetensors``, is not there.
        ValueError: If the file is damaged, asks for code, or is of an unknown layout, or if one of
            its keys is missing or has another shape.
    """
    path = Path(path)
    converted = path.suffix == ".safetensors"
    state, facts = _read_converted(path) if converted else _read_original(path)
    try:
        layout = find_layout(state)
        scale = facts.get("classifier_scale") or AUTHORS_SCALE
        network = assemble(state, layout, scale)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for key in network.unmatched:
        logger.warning("%s: %s has no place in the network and is left out", path, key)
    cosine = isinstance(network.classifier, CosineClassifier)
    present = {key.partition(".")[0] for key in state}
