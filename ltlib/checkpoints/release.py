"""A released network: read from the authors' file, saved as safetensors with a JSON card."""

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12 on

from ltlib.checkpoints.assembly import Network, assemble
from ltlib.checkpoints.saving import export_weights
from ltlib.checkpoints.unpickling import read_pickle
from ltlib.runs import write_json

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"

AUTHORS_SCALE = 30.0
"""Of the cosine classifier in BCL's and ProCo's code, where it is a constant and not saved."""

# Under these names the authors save accuracies in percent.
_ACCURACIES = {
    "all": ("best_acc1", "acc"),
    "many": ("best_many",),
    "medium": ("best_med",),
    "few": ("best_few",),
}


class ReleaseInfo(TypedDict):
    """What a file says about its network, and what it is; the content of the JSON card."""

    family: str
    """One of proco, bcl, paco and gpaco."""
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
    """Linear or cosine."""
    classifier_scale: float | None
    """None for a linear classifier."""
    epoch: int | None
    """Epochs trained, where the file says so."""
    accuracy: dict[str, float]
    """On the authors' test or validation images, fractions: "all", "many", "medium" and "few" as
    far as the file has them, of the best epoch so far (PaCo, GPaCo: of this one)."""
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

    def describe(self) -> str:
        """Say in a few lines what the network is and what else its file held."""
        info = self.info
        epoch = "" if info["epoch"] is None else f", epoch {info['epoch']}"
        lines = [
            f"{info['family']}, from {info['source']}{epoch}",
            f"backbone    {info['backbone']}, features of {info['feature_dim']:,}",
            f"projector   embeddings of {info['embedding_dim']:,}",
            f"classifier  {info['classifier']}, {info['num_classes']:,} classes",
            *(f"set aside   {name}: {what}" for name, what in info["set_aside"].items()),
            *(f"unmatched   {key}" for key in info["unmatched"]),
        ]
        return "\n".join(lines)


def load_release(path: Path | str) -> Release:
    """Read a network that the authors of ProCo, BCL, PaCo or GPaCo released.

    Family, backbone, projector and classifier are inferred from keys and shapes. Keys that find no
    place are counted by a warning in the log and named in ``info["unmatched"]``.

    Args:
        path: The authors' file, or a ``.safetensors`` of ``save_release`` with its card beside it.

    Raises:
        FileNotFoundError: If the file, or the card of a ``.safetensors``, is not there.
        ValueError: If the file is damaged, asks for code, or is of an unknown layout, or if a key
            is missing or has another shape.
    """
    path = Path(path)
    return _load_saved(path) if path.suffix == SUFFIX else _load_original(path)


def save_release(release: Release, file: Path | str) -> Path:
    """Write a network as safetensors, and what is known of it as a JSON card beside it.

    Args:
        release: From ``load_release``.
        file: The suffix ``.safetensors`` is added where it lacks; folders are made.

    Returns:
        The file of weights, which ``load_release`` reads again.
    """
    file = Path(file)
    if file.suffix != SUFFIX:
        file = file.with_name(f"{file.name}{SUFFIX}")
    file.parent.mkdir(parents=True, exist_ok=True)
    export_weights(release, file)
    write_json(file.with_suffix(".json"), release.info)
    return file


def _load_original(path: Path) -> Release:
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no state dict but a {type(content).__name__}")
    network = _assemble(path, dense_state(path, content), AUTHORS_SCALE)
    epoch = content.get("epoch")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    info: ReleaseInfo = {
        "family": network.family,
        "source": path.name,
        "sha256": sha256,
        "backbone": network.backbone_name,
        "feature_dim": network.feature_dim,
        "embedding_dim": network.embedding_dim,
        "num_classes": network.num_classes,
        "classifier": "linear" if network.scale is None else "cosine",
        "classifier_scale": network.scale,
        "epoch": epoch if isinstance(epoch, int) else None,
        "accuracy": {
            split: percent / 100
            for split, names in _ACCURACIES.items()
            for name in names
            if (percent := _number(content.get(name))) is not None
        },
        "set_aside": network.set_aside,
        "unmatched": network.unmatched,
    }
    return Release(network.backbone, network.projector, network.classifier, info)


def _load_saved(path: Path) -> Release:
    card = path.with_suffix(".json")
    try:
        state, info = load_file(path), TypeAdapter(ReleaseInfo).validate_json(card.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{card} is damaged: {where} {problem['msg']}".strip()) from None
    network = _assemble(path, state, info["classifier_scale"] or AUTHORS_SCALE)
    return Release(network.backbone, network.projector, network.classifier, info)


def dense_state(path: Path, content: dict) -> dict[str, Tensor]:
    """Return the tensors of a file's content by key, without DataParallel's ``module.``.

    Raises:
        ValueError: If it holds anything else under those keys.
    """
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(map(_is_weight, state, state.values())):
        raise ValueError(f"{path} holds no state dict of dense tensors")
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return state


def _assemble(path: Path, state: Mapping[str, Tensor], scale: float) -> Network:
    try:
        network = assemble(state, scale)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if network.unmatched:
        count = len(network.unmatched)
        logger.warning("%s: keys without a place: %d, named in info['unmatched']", path, count)
    return network


def _is_weight(key: object, tensor: object) -> bool:
    """Tell whether an entry of a state dict is one: a name and a dense, real tensor in memory."""
    return (
        isinstance(key, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_complex())
        and tensor.numel() > 0
    )


def _number(value: object) -> float | None:
    """Return a finite number saved as such or, like PaCo's accuracy, as a tensor of one element."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return value if isinstance(value, int | float) and math.isfinite(value) else None
