"""Free unit vectors under a loss: where it puts them, the way there, and how regular they are."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ltlib import geometry
from ltlib.config import (
    BalancedContrastConfig,
    ProbabilisticContrastConfig,
    SupervisedContrastConfig,
)
from ltlib.unconstrained.objectives import Contrast, Parametric, objective, statistics

_AT_REST = 1e-8
"""Largest gradient of a single vector's loss that counts as zero."""


class Arrangement(NamedTuple):
    """Unit vectors where a loss has put them."""

    method: Contrast
    embeddings: Tensor
    """Unit vectors, (N, D), float64, class after class."""
    targets: Tensor
    """Class of each, (N,)."""
    class_vectors: Tensor | None
    """BCL's prototypes and ProCo's mean directions, unit; PaCo's centers, any length; (C, D)."""
    loss: float
    """In nats; PaCo's with the decay of its centers."""
    starts: int = 1
    """Random starts of which this one ended best."""
    agreeing: int = 1
    """Starts that ended at this loss, to 1e-6."""

    @property
    def class_counts(self) -> list[int]:
        """Vectors per class, (C,)."""
        return torch.bincount(self.targets).tolist()

    @property
    def means(self) -> Tensor:
        """Class means, (C, D)."""
        return geometry.class_means(self.embeddings, self.targets, len(self.class_counts))

    @property
    def cosines(self) -> Tensor:
        """Cosines between the class means as they are, not centred, (C, C)."""
        return geometry.cosine_matrix(self.means, center=False)

    @property
    def gap(self) -> float:
        """Mean distance of the cosines from those of the simplex."""
        return geometry.simplex_gap(self.means, center=False)


def minimize(
    method: Contrast,
    class_counts: Sequence[int],
    dim: int,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    batches: Sequence[Tensor] | None = None,
) -> Arrangement:
    """Let unit vectors go where a method's contrastive loss is smallest.

    All starts are one problem for L-BFGS, which costs little more than a single start. One free
    vector stands for each sample, and beside them:

    * SCL: nothing.
    * BCL: one prototype per class, also of unit length.
    * ProCo: its class statistics. They are constants to the gradient, so there is no minimum;
      the vectors come to rest where they agree with the statistics made of them. That point is
      sought by ``descend`` with the statistics of the current vectors, which is what an epoch's
      become at a small learning rate.
    * PaCo, GPaCo: one center per class, of any length, whose dot products with the vectors are
      the center logits, and whose weight decay is that of the recipes. There is neither queue nor
      key: all vectors are in the batch.

    Args:
        method: The loss and its settings.
        class_counts: Vectors per class, (C,), each >= 1; 2 is one image in two views.
        dim: D.
        seeds: One random start each; the best end is returned.
        batches: Indices of vectors, each (B,): the loss is then the mean over these batches, in
            which classes may be absent. By default all vectors are one batch.

    Raises:
        ValueError: If the method does not contrast, or an argument is out of range.
    """
    targets = _targets(class_counts)
    loss = objective(method, class_counts)
    if isinstance(method, ProbabilisticContrastConfig):
        if batches is not None:
            raise ValueError("proco's statistics outlive a batch; leave batches out")
        return _best(
            descend(method, class_counts, dim, steps=1000, rate=1.0, seed=seed)[0] for seed in seeds
        )
    chosen = [torch.arange(len(targets))] if batches is None else batches

    def mean_loss(vectors: Tensor, classes: Tensor) -> Tensor:
        embeddings = F.normalize(vectors, dim=1)
        return torch.stack([loss(embeddings[i], targets[i], classes) for i in chosen]).mean()

    losses_of = torch.func.vmap(mean_loss)
    if len(seeds) == 1:  # a third faster without vmap

        def losses_of(vectors: Tensor, classes: Tensor) -> Tensor:
            return mean_loss(vectors[0], classes[0])[None]

    starts = zip(*(_start(class_counts, dim, seed) for seed in seeds), strict=True)
    vectors, classes = (torch.stack(part).requires_grad_() for part in starts)
    optimizer = torch.optim.LBFGS(
        [vectors, classes],
        max_iter=500,
        history_size=50,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = losses_of(vectors, classes).sum()
        total.backward()
        return total

    optimizer.step(closure)
    with torch.no_grad():
        losses = losses_of(vectors, classes).tolist()
    ends = zip(vectors.detach(), classes.detach(), losses, strict=True)
    return _best(_arrangement(method, z, w, targets, end) for z, w, end in ends)


def descend(
    method: Contrast,
    class_counts: Sequence[int],
    dim: int,
    *,
    steps: int = 400,
    rate: float = 0.1,
    seed: int = 0,
) -> tuple[Arrangement, pd.DataFrame]:
    """Follow the gradient from a random start, on the sphere, as slow training would.

    Args:
        method: As in ``minimize``.
        class_counts: As in ``minimize``.
        dim: As in ``minimize``.
        steps: How many; those after everything has come to rest are not computed.
        rate: Length of a step per unit of gradient of a single vector's own loss, at temperature
            1; it shrinks with the temperature.
        seed: Of the start.

    Returns:
        The end, and the way there: columns step, loss and those of ``measures``, at steps spread
        evenly in log(step).
    """
    targets = _targets(class_counts)
    loss = objective(method, class_counts)
    vectors, classes = _start(class_counts, dim, seed)
    rows = []
    for step in range(steps + 1):
        vectors.requires_grad_()
        classes.requires_grad_()
        value = loss(F.normalize(vectors, dim=1), targets, classes)
        # The loss is a mean over N vectors: N times its gradient is that of each one's own loss.
        gradients = torch.autograd.grad(
            value * len(targets), [vectors, classes], materialize_grads=True
        )
        vectors, classes = vectors.detach(), classes.detach()
        at_rest = max(float(gradient.abs().max()) for gradient in gradients) < _AT_REST
        if _is_recorded(step) or at_rest or step == steps:
            here = _arrangement(method, vectors, classes, targets, float(value.detach()))
            found = measures(here.embeddings, targets, here.class_vectors)
            rows.append({"step": step, "loss": here.loss} | found)
        if at_rest:
            rows.append(rows[-1] | {"step": steps})
            break
        scale = rate * method.temperature
        vectors = F.normalize(vectors - scale * gradients[0], dim=1)
        classes = classes - scale * gradients[1]
    return here, pd.DataFrame(rows).drop_duplicates("step")


def measures(
    embeddings: Tensor, targets: Tensor, class_vectors: Tensor | None = None
) -> dict[str, float]:
    """Measure unit vectors: the extreme cosines, and neural collapse NC1 to NC4.

    Cosines and NC2 are of the class means as they are, because the losses of unit vectors are not
    invariant to a shift. NC4 is the disagreement between the largest dot product with a class
    vector and the nearest mean.

    Args:
        embeddings: Unit vectors, (N, D).
        targets: Class of each, (N,), every class present.
        class_vectors: The method's own vector of each class, (C, D); without, NC3 and NC4 are NaN.

    Returns:
        lowest_cosine, highest_cosine, and the names of ``figures.MEASURES``.
    """
    num_classes = int(targets.max()) + 1
    means = geometry.class_means(embeddings, targets, num_classes)
    cosines = geometry.cosine_matrix(means, center=False)
    pairs = cosines[~torch.eye(num_classes, dtype=torch.bool)]
    duality = disagreement = math.nan
    if class_vectors is not None:
        duality = geometry.self_duality(means, class_vectors)
        predictions = (embeddings @ class_vectors.T).argmax(dim=1)
        disagreement = geometry.nearest_mean_disagreement(embeddings, predictions, means)
    variability = geometry.within_class_variability(embeddings, targets, num_classes)
    return {
        "lowest_cosine": float(pairs.min()),
        "highest_cosine": float(pairs.max()),
        "within_class_variability": variability,
        "equinorm": geometry.equinorm(means, center=False),
        "equiangularity": geometry.equiangularity(means, center=False),
        "simplex_gap": geometry.simplex_gap(means, center=False),
        "self_duality": duality,
        "nearest_mean_disagreement": disagreement,
    }


def simplex_loss(method: Contrast, class_counts: Sequence[int], dim: int) -> float:
    """Return the loss of the simplex: every vector, and prototype, on its class's corner.

    For BCL this is ``lower_bound``, whatever the counts.

    Args:
        method: SCL, BCL or ProCo. PaCo's centers have no length of their own.
        class_counts: Vectors per class, (C,).
        dim: D >= C-1.

    Raises:
        ValueError: If the method is another, or D < C-1.
    """
    if isinstance(method, Parametric):
        raise ValueError(f"{method.name}'s centers may have any length; there is no one simplex")
    targets = _targets(class_counts)
    corners = geometry.simplex(len(class_counts), dim)
    return float(objective(method, class_counts)(corners[targets], targets, corners))


def draw_batches(class_counts: Sequence[int], size: int, number: int, seed: int) -> list[Tensor]:
    """Draw batches of vectors, each without replacement, in which rare classes may be absent.

    Returns:
        Indices for ``minimize``, ``number`` times (size,).
    """
    generator = torch.Generator().manual_seed(seed)
    total = sum(class_counts)
    return [torch.randperm(total, generator=generator)[:size] for _ in range(number)]


def _targets(class_counts: Sequence[int]) -> Tensor:
    counts = torch.tensor(list(class_counts))
    if len(counts) < 2 or counts.min() < 1:
        raise ValueError(f"class_counts must be two or more numbers >= 1, got {counts.tolist()}")
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def _start(class_counts: Sequence[int], dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw vectors and class vectors, uniform on the sphere; the same for every method."""
    generator = torch.Generator().manual_seed(seed)
    rows = sum(class_counts) + len(class_counts)
    drawn = F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)
    return drawn[: -len(class_counts)], drawn[-len(class_counts) :]


def _arrangement(
    method: Contrast, vectors: Tensor, classes: Tensor, targets: Tensor, loss: float
) -> Arrangement:
    embeddings = F.normalize(vectors, dim=1)
    class_vectors: Tensor | None = classes
    match method:
        case SupervisedContrastConfig() | BalancedContrastConfig(class_complement=False):
            class_vectors = None
        case BalancedContrastConfig():
            class_vectors = F.normalize(classes, dim=1)
        case ProbabilisticContrastConfig():
            class_vectors, _ = statistics(method, embeddings, targets, len(classes))
    return Arrangement(method, embeddings, targets, class_vectors, loss)


def _best(candidates: Iterable[Arrangement]) -> Arrangement:
    ends = list(candidates)
    best = min(ends, key=lambda end: end.loss)
    agreeing = sum(end.loss < best.loss + 1e-6 for end in ends)
    return best._replace(starts=len(ends), agreeing=agreeing)


def _is_recorded(step: int) -> bool:
    """Choose steps 0, 1, 2, ... and from about 10 on ten in every power of ten."""
    return step == 0 or step == round(10 ** (round(10 * math.log10(step)) / 10))
