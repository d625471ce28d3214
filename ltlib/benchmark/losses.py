"""The losses of the suite and the plain way: time, peak memory, and how far the numbers differ."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ltlib import losses
from ltlib.benchmark import plain
from ltlib.benchmark.measuring import MEGABYTE, Report, Stage, Step, stage_peaks, stage_seconds
from ltlib.data import class_prior
from ltlib.execution import Execution, describe
from ltlib.memory import ClassStatistics

logger = logging.getLogger(__name__)

SIDES = ("plain", "ltlib")
WHOLE = "step"
"""The row of all stages together."""

COLUMNS = [
    *("loss", "sizes", "stage", "dtype", "threads"),
    *("plain min (ms)", "plain median (ms)", "ltlib min (ms)", "ltlib median (ms)", "times faster"),
    *("plain peak (MB)", "ltlib peak (MB)", "times smaller", "difference"),
]

_EARLIER_BATCHES = 4  # of every class, so that no concentration is at its limit


@dataclass(frozen=True)
class Case:
    """One loss at one size, as each side computes it."""

    loss: str
    sizes: dict[str, int]
    sides: dict[str, Step]
    """By name; the plain side may be missing."""
    dtype: torch.dtype

    def __str__(self) -> str:
        return " ".join(f"{letter}={size}" for letter, size in self.sizes.items())


def benchmark_losses(*, quick: bool = False, repeats: int = 5, device: str | None = None) -> Report:
    """Measure ProCo, BCL and PaCo in float32, plain and ours in turns.

    Args:
        quick: Small sizes, for a look at the table.
        repeats: Timed steps of each side, after one that warms up and one that counts bytes.
        device: See ``Execution.choose``.

    Returns:
        One row per loss, size and stage: fastest and median milliseconds and megabytes above the
        inputs, how many times faster (by the fastest) and smaller ours is, and the largest
        difference between the two sides' results, relative to their largest entry. The plain way
        of ProCo is left out at the size of iNaturalist, where one of its tensors takes 8.5 GB.
        At the size of ImageNet-LT its gradient is 6e-5 away from that in float64, because a
        length of 2,000 leaves few digits in float32; ours is 1e-6 away.

    Raises:
        ValueError: If repeats < 1 or the device does not exist.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    execution = Execution.choose(device, "fp32", num_workers=0)
    rows: list[dict[str, str | int | float]] = []
    for case in cases(execution.device, quick=quick):
        logger.info("measuring %s at %s", case.loss, case)
        rows += _rows(case, _measure(case, repeats, execution.device))
    machine = describe(execution) | {"repeats": repeats}
    return Report(machine, pd.DataFrame(rows, columns=COLUMNS))


def cases(device: torch.device, *, quick: bool = False) -> Iterator[Case]:
    """Yield what is measured, one case at a time, as their inputs are large."""
    batch, imagenet, inaturalist = (8, 12, 20) if quick else (256, 1000, 8142)
    dim, paco_dim, queue = (16, 8, 32) if quick else (1024, 128, 8192)
    generator = torch.Generator().manual_seed(0)
    yield proco(batch, imagenet, dim, generator, device)
    yield proco(batch, inaturalist, dim, generator, device, sides=("ltlib",))
    for num_classes in (imagenet, inaturalist):
        yield bcl(batch, num_classes, dim, generator, device)
    yield paco(batch, imagenet, paco_dim, queue, generator, device)


def proco(
    batch: int,
    num_classes: int,
    dim: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    sides: tuple[str, ...] = SIDES,
) -> Case:
    """Update the class statistics with B embeddings, contrast them with C distributions."""
    centers = _unit(torch.randn(num_classes, dim, generator=generator), device)
    prior = _prior(num_classes, device)
    memory = ClassStatistics(num_classes, dim).to(device)
    for _ in range(_EARLIER_BATCHES):
        everyone = torch.arange(num_classes, device=device)
        memory.update(_near(centers, everyone, generator), everyone)
    targets = torch.randint(num_classes, (batch,), generator=generator).to(device)
    embeddings = _near(centers, targets, generator).requires_grad_()

    def step(
        update: Callable[[ClassStatistics, Tensor, Tensor], None], logits: Callable[..., Tensor]
    ) -> Step:
        own = copy.deepcopy(memory)

        def stages() -> Iterator[Stage]:
            update(own, embeddings.detach(), targets)
            yield Stage("update", (own.mean,))
            scores = logits(embeddings, own.mean_direction, own.concentration, temperature=0.07)
            loss = losses.logit_adjusted_cross_entropy(scores, targets, prior)
            yield Stage("forward", (loss,))
            yield Stage("backward", torch.autograd.grad(loss, (embeddings,)))

        return stages

    steps = {
        "plain": step(plain.update_statistics, plain.probabilistic_contrastive_logits),
        "ltlib": step(ClassStatistics.update, losses.probabilistic_contrastive_logits),
    }
    sizes = {"B": batch, "C": num_classes, "D": dim}
    return Case("ProCo", sizes, {side: steps[side] for side in sides}, embeddings.dtype)


def bcl(
    batch: int, num_classes: int, dim: int, generator: torch.Generator, device: torch.device
) -> Case:
    """Contrast two views of B images with each other and with C prototypes."""
    centers = _unit(torch.randn(num_classes, dim, generator=generator), device)
    targets = torch.randint(num_classes, (batch,), generator=generator).to(device).repeat(2)
    embeddings = _near(centers, targets, generator).requires_grad_()
    prototypes = centers.clone().requires_grad_()
    arguments = (embeddings, targets, prototypes, 0.1)
    sides = {
        side: _loss_step(partial(loss, *arguments), embeddings, prototypes)
        for side, loss in (
            ("plain", plain.balanced_contrastive_loss),
            ("ltlib", losses.balanced_contrastive_loss),
        )
    }
    return Case("BCL", {"B": batch, "C": num_classes, "D": dim}, sides, embeddings.dtype)


def paco(
    batch: int,
    num_classes: int,
    dim: int,
    queue: int,
    generator: torch.Generator,
    device: torch.device,
) -> Case:
    """Contrast B queries with each other, their keys, a queue and C class centers."""
    centers = _unit(torch.randn(num_classes, dim, generator=generator), device)
    targets = torch.randint(num_classes, (2 * batch + queue,), generator=generator).to(device)
    everything = _near(centers, targets, generator)
    anchors = everything[:batch].clone().requires_grad_()
    logits = torch.randn(batch, num_classes, generator=generator).to(device).requires_grad_()
    contrast, contrast_targets, targets = everything[batch:], targets[batch:], targets[:batch]
    arguments = (anchors, targets, contrast, contrast_targets, logits, _prior(num_classes, device))
    sides = {
        side: _loss_step(partial(loss, *arguments, alpha=0.05, temperature=0.2), anchors, logits)
        for side, loss in (
            ("plain", plain.parametric_contrastive_loss),
            ("ltlib", losses.parametric_contrastive_loss),
        )
    }
    sizes = {"B": batch, "C": num_classes, "D": dim, "K": queue}
    return Case("PaCo", sizes, sides, anchors.dtype)


def _loss_step(loss: Callable[[], Tensor], *leaves: Tensor) -> Step:
    def stages() -> Iterator[Stage]:
        value = loss()
        yield Stage("forward", (value,))
        yield Stage("backward", torch.autograd.grad(value, leaves))

    return stages


class _Measured(NamedTuple):
    """One stage on one side."""

    seconds: list[float]
    peak: int
    results: tuple[Tensor, ...]


def _measure(case: Case, repeats: int, device: torch.device) -> dict[str, dict[str, _Measured]]:
    """Measure every stage, and the whole step, of every side."""
    results = {
        side: {stage.name: tuple(r.detach().clone() for r in stage.results) for stage in step()}
        for side, step in case.sides.items()
    }
    peaks = {side: stage_peaks(step) for side, step in case.sides.items()}
    laps: dict[str, list[dict[str, float]]] = {side: [] for side in case.sides}
    for _ in range(repeats):
        for side, step in case.sides.items():
            laps[side].append(stage_seconds(step, device))
    measured = {
        side: {
            stage: _Measured([lap[stage] for lap in laps[side]], peak, results[side][stage])
            for stage, peak in peaks[side].items()
        }
        for side in case.sides
    }
    for side, stages in measured.items():
        total = [sum(lap.values()) for lap in laps[side]]
        stages[WHOLE] = _Measured(total, max(peaks[side].values()), ())
    return measured


def _rows(
    case: Case, sides: Mapping[str, Mapping[str, _Measured]]
) -> Iterator[dict[str, str | int | float]]:
    for stage in sides["ltlib"]:
        row: dict[str, str | int | float] = {"loss": case.loss, "sizes": str(case), "stage": stage}
        row |= {"dtype": str(case.dtype).removeprefix("torch."), "threads": torch.get_num_threads()}
        for side, stages in sides.items():
            seconds, peak, _ = stages[stage]
            row[f"{side} min (ms)"] = 1e3 * min(seconds)
            row[f"{side} median (ms)"] = 1e3 * median(seconds)
            row[f"{side} peak (MB)"] = peak / MEGABYTE
        if "plain" in sides:
            plainly, ours = sides["plain"][stage], sides["ltlib"][stage]
            row["times faster"] = min(plainly.seconds) / min(ours.seconds)
            row["times smaller"] = plainly.peak / ours.peak
            if stage != WHOLE:
                row["difference"] = _difference(plainly.results, ours.results)
        yield row


def _difference(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...]) -> float:
    """Return the largest deviation, relative to the largest entry of its tensor."""
    pairs = zip(expected, actual, strict=True)
    return max(((a - e).abs().max() / e.abs().max()).item() for e, a in pairs)


def _near(centers: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """Draw unit vectors at a cosine of about 0.7 to the centers (C, D) of their targets (B,)."""
    noise = torch.randn(len(targets), centers.shape[1], generator=generator)
    return F.normalize(centers[targets] + _unit(noise, centers.device), dim=1)


def _unit(rows: Tensor, device: torch.device) -> Tensor:
    return F.normalize(rows, dim=1).to(device)


def _prior(num_classes: int, device: torch.device) -> Tensor:
    """A tail of imbalance factor 100, (C,)."""
    return class_prior(torch.logspace(2, 0, num_classes)).to(device)
