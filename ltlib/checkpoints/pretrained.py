"""ImageNet weights that a backbone starts from, read from a file that is already there."""

import hashlib
import os
import re
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from ltlib.checkpoints.release import dense_state
from ltlib.checkpoints.unpickling import read_pickle
from ltlib.models import build_backbone

VARIABLE = "LTLIB_PRETRAINED"
"""Environment variable that names the file of weights."""


def read_pretrained(
    name: str, root: Path | str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read torchvision's first ImageNet weights of a backbone (``IMAGENET1K_V1``).

    The variable ``LTLIB_PRETRAINED`` names the file. Without it, a file of torchvision's name is
    looked for in the data root, else in the folder of ``LTLIB_DATA`` and ``data``, and where
    torchvision keeps its downloads. Nothing is downloaded, and the better weights that torchvision
    hands out today are not taken: GPaCo (arXiv:2209.12400) started from the first.

    Args:
        name: A key of ``models.BACKBONES``.
        root: The data root.

    Returns:
        The backbone's ``state_dict``, and the file's name and SHA-256 for the provenance.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is damaged, asks for code, or is of another backbone.
    """
    path = _find(name, root)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    # torchvision's files bear the first digits of their digest.
    digits = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if digits and not sha256.startswith(digits[1]):
        raise ValueError(f"{path} is damaged: its SHA-256 starts with {sha256[:8]}; copy it again")
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no state dict but a {type(content).__name__}")
    state = dense_state(path, content)
    with torch.device("meta"):
        expected = build_backbone(name)[0].state_dict()
    # Files of before 2018 lack the counters of batch norm, which then start at zero.
    for key, tensor in expected.items():
        if key not in state and not key.endswith("num_batches_tracked"):
            raise ValueError(f"{path} does not fit {name}: {key} is missing")
        if key in state and state[key].shape != tensor.shape:
            shapes = f"{tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
            raise ValueError(f"{path} does not fit {name}: {key} is {shapes}")
    weights = {key: state[key] for key in expected if key in state}
    return weights, {"file": path.name, "sha256": sha256}


def _find(name: str, root: Path | str | None) -> Path:
    if named := os.environ.get(VARIABLE):
        if Path(named).is_file():
            return Path(named)
        raise FileNotFoundError(f"{named}, which {VARIABLE} names, is not there")
    try:
        url = get_model_weights(name)["IMAGENET1K_V1"].url
    except ValueError:
        raise FileNotFoundError(
            f"torchvision has no weights of {name}; name a file of them by the variable {VARIABLE}"
        ) from None
    folders = [Path(root)] if root else [Path(os.environ.get("LTLIB_DATA", "data")), Path("data")]
    folders.append(Path(torch.hub.get_dir()) / "checkpoints")
    file_name = url.rpartition("/")[2]
    for folder in folders:
        if (folder / file_name).is_file():
            return folder / file_name
    searched = " or ".join(dict.fromkeys(str(folder.absolute()) for folder in folders))
    raise FileNotFoundError(
        f"{file_name}, the ImageNet weights to start from, is not in {searched}; put it there "
        f"from {url}, or name it by the variable {VARIABLE}"
    )
