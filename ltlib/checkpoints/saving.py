"""A run's own checkpoints, and the export of weights as safetensors."""

import io
import logging
import os
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save
from torch import nn

from ltlib.checkpoints.unpickling import read_pickle
from ltlib.runs import replacing

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


def save_checkpoint(run_dir: Path, state: dict[str, object]) -> None:
    """Write a run's state, keeping the one before; a crash at any instant leaves one whole.

    Args:
        run_dir: The run's folder.
        state: Tensors, numbers, text, and lists and dicts of them.
    """
    newest = run_dir / CHECKPOINT
    content = io.BytesIO()  # torch.save turns a full disk into an error that does not say so
    torch.save(state, content)
    with replacing(newest) as file:
        file.write(content.getbuffer())
        if newest.exists():
            os.replace(newest, run_dir / PREVIOUS)


def load_checkpoint(run_dir: Path) -> dict | None:
    """Read a run's newest whole checkpoint, or None; a damaged one is passed over."""
    for name in (CHECKPOINT, PREVIOUS):
        file = run_dir / name
        if not file.exists():
            continue
        try:
            return cast(dict, read_pickle(file))
        except (ValueError, OSError) as error:
            logger.warning("%s is damaged and passed over: %s", file, error)
    return None


def remove_checkpoints(run_dir: Path) -> None:
    """Delete a finished run's checkpoints."""
    for name in (CHECKPOINT, PREVIOUS):
        (run_dir / name).unlink(missing_ok=True)


def export_weights(module: nn.Module, file: Path) -> None:
    """Write a module's ``state_dict`` as safetensors, atomically."""
    tensors = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    with replacing(file) as new:
        new.write(save(tensors))
