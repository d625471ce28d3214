"""What the losses share: full precision, masks of pairs, and checks of arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def in_full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run without autocast, every floating tensor in the dtype of the first, float32 at least."""
    signature = inspect.signature(loss)

    @functools.wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        first = next(iter(bound.arguments.values()))
        dtype = torch.promote_types(first.dtype, torch.float32)
        for name, value in bound.arguments.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                bound.arguments[name] = value.to(dtype)
        with torch.autocast(first.device.type, enabled=False):
            return loss(*bound.args, **bound.kwargs)

    return wrapper


def pair_masks(targets: Tensor, column_targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks (rows, columns): same class, the row itself (columns start with the rows), positive."""
    same = targets[:, None] == column_targets
    itself = torch.eye(*same.shape, dtype=torch.bool, device=same.device)
    return same, itself, same & ~itself


def masked(logits: Tensor, mask: Tensor) -> Tensor:
    """Take entries out of a logsumexp; finite, so that a row with no entry left has a gradient."""
    return logits.masked_fill(mask, torch.finfo(logits.dtype).min)


def check_shape(name: str, tensor: Tensor, *expected: int | None) -> None:
    """Raise unless the sizes are as expected; None stands for any."""
    shape = tuple(tensor.shape)
    if len(shape) != len(expected) or any(
        want not in (None, size) for want, size in zip(expected, shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"{name} must have shape ({wanted}), got {shape}")


def check_targets(targets: Tensor, num_rows: int, num_classes: int | None = None) -> None:
    check_shape("targets", targets, num_rows)
    if not num_rows:
        raise ValueError("targets must have at least one row, got an empty batch")
    # On a GPU this would make the host wait; indexing with a wrong target fails there by itself.
    if num_classes is not None and targets.device.type == "cpu":
        low, high = (int(bound) for bound in targets.aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"targets must be in [0, {num_classes}), got {low} to {high}")


def check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be > 0, got {value}")
