"""What outlives a batch, in buffers: class statistics, a queue of keys, a momentum encoder.

``state_dict`` is all there is to save: a resumed run continues exactly. Nothing here
communicates; what is handed in is already gathered, so every rank holds the same memory.

ProCo (arXiv:2403.06726) keeps the statistics, PaCo (arXiv:2107.12028) the queue and the encoder,
GPaCo (arXiv:2209.12400) the queue alone.
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltlib import vmf

_INITIAL_LENGTH = 0.9  # of the random means before a class is seen, as in ProCo's code


class ClassStatistics(nn.Module):
    """Mean of the unit embeddings of each class, and the vMF parameters it implies.

    The mean starts in a random direction at length 0.9 and is replaced by the first embeddings
    of its class. After m new ones with mean zbar it is (n mean + m zbar) / (n + m).

    Two sets are kept, as in ProCo's code: those behind the logits, and those of this epoch alone,
    which take over at the next ``on_epoch_start``.

    Args:
        num_classes: C.
        dim: D, width of the embeddings, >= 2.
        estimator: What stands behind the logits: the last epoch's embeddings and those of this
            epoch so far ("online", the authors' code), the last epoch's ("frozen", the paper), or
            an exponential average over steps ("ema"), which begins as a running mean.
        concentration: How kappa follows from the mean's length, see ``vmf.concentration``.
        ema_decay: Weight of the past at each step of "ema", in [0, 1).

    Raises:
        ValueError: If an argument is out of range.
    """

    mean: Tensor
    """Behind the logits, (C, D); not of unit length."""
    count: Tensor
    """Embeddings behind each mean, (C,), int64; 0 marks a random direction."""
    epoch_mean: Tensor
    """As ``mean``, of this epoch alone."""
    epoch_count: Tensor
    seed: Tensor
    """Of the next random directions, scalar, int64."""

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        estimator: Literal["online", "frozen", "ema"] = "online",
        concentration: Literal["authors", "banerjee", "exact"] = "authors",
        ema_decay: float = 0.99,
    ) -> None:
        super().__init__()
        if estimator not in ("online", "frozen", "ema"):
            raise ValueError(f"estimator must be 'online', 'frozen' or 'ema', got {estimator!r}")
        if concentration not in ("authors", "banerjee", "exact"):
            raise ValueError(
                f"concentration must be 'authors', 'banerjee' or 'exact', got {concentration!r}"
            )
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {ema_decay}")
        self.estimator = estimator
        self.concentration_method = concentration
        self.ema_decay = ema_decay
        # Differs: the authors draw from the global generator at every epoch. Drawing from a seed
        # in a buffer makes a resumed run, and every rank, draw the same directions.
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("mean", torch.empty(num_classes, dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("epoch_mean", torch.empty(num_classes, dim))
        self.register_buffer("epoch_count", torch.zeros(num_classes, dtype=torch.int64))
        self._forget(self.mean, self.count)
        self._forget(self.epoch_mean, self.epoch_count)

    @property
    def mean_direction(self) -> Tensor:
        """Unit vectors mu, (C, D), a copy."""
        return F.normalize(self.mean, dim=1)

    @property
    def concentration(self) -> Tensor:
        """Concentrations kappa, (C,), in [0, 1e5]."""
        # float64, because kappa grows like 1 / (1 - R).
        length = torch.linalg.vector_norm(self.mean, dim=1, dtype=torch.float64)
        kappa = vmf.concentration(length, self.mean.shape[1], self.concentration_method)
        return kappa.to(self.mean.dtype)

    @torch.no_grad()
    def update(self, embeddings: Tensor, targets: Tensor) -> None:
        """Add a batch to the means.

        Args:
            embeddings: Unit vectors of all ranks, (B, D).
            targets: Class of each, (B,), int64 in [0, C).

        Raises:
            ValueError: If a shape disagrees.
        """
        _check_rows(embeddings, targets, self.mean.shape[1])
        embeddings = embeddings.to(self.mean.dtype)
        if self.estimator == "ema":
            _add_to_means(self.mean, self.count, embeddings, targets, 1 - self.ema_decay)
            return
        _add_to_means(self.epoch_mean, self.epoch_count, embeddings, targets)
        if self.estimator == "online":
            _add_to_means(self.mean, self.count, embeddings, targets)

    @torch.no_grad()
    def on_epoch_start(self) -> None:
        """Put the finished epoch's statistics behind the logits and begin new ones."""
        if self.estimator == "ema":
            return
        self.mean.copy_(self.epoch_mean)
        self.count.copy_(self.epoch_count)
        self._forget(self.epoch_mean, self.epoch_count)

    def _forget(self, mean: Tensor, count: Tensor) -> None:
        generator = torch.Generator().manual_seed(int(self.seed))
        directions = F.normalize(torch.randn(mean.shape, generator=generator), dim=1)
        mean.copy_(_INITIAL_LENGTH * directions)
        count.zero_()
        self.seed.copy_(torch.randint(2**62, (), generator=generator))


class FeatureQueue(nn.Module):
    """The last K keys and their targets, first in, first out.

    Concatenate or clone ``keys`` before ``enqueue``, which writes in place.

    Args:
        size: K >= 0; 0 is an empty queue.
        dim: D, width of a key.
        num_classes: Random initial targets in [0, C), as in the authors' code, where they are
            spurious positives for the first K keys; None makes them -1, which matches nobody.
        init: Random initial keys normalised along the queue ("authors"), which leaves each at a
            length near sqrt(D / K), or each to unit length ("unit").

    Raises:
        ValueError: If an argument is out of range.
    """

    keys: Tensor
    """(K, D)."""
    targets: Tensor
    """(K,), int64."""
    pointer: Tensor
    """Where the next key goes, scalar, int64."""

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        num_classes: int | None = None,
        init: Literal["authors", "unit"] = "authors",
    ) -> None:
        super().__init__()
        if size < 0:
            raise ValueError(f"size must be >= 0, got {size}")
        if init not in ("authors", "unit"):
            raise ValueError(f"init must be 'authors' or 'unit', got {init!r}")
        # Faithful: normalised along the queue (axis 0), not along the embedding.
        keys = F.normalize(torch.randn(size, dim), dim=0 if init == "authors" else 1)
        if num_classes is None:
            targets = torch.full((size,), -1)
        else:
            targets = torch.randint(num_classes, (size,))
        self.register_buffer("keys", keys)
        self.register_buffer("targets", targets)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, targets: Tensor) -> None:
        """Replace the oldest keys; of more than K, the last K stay.

        Args:
            keys: (B, D).
            targets: Class of each, (B,), int64.

        Raises:
            ValueError: If a shape disagrees.
        """
        _check_rows(keys, targets, self.keys.shape[1])
        size, batch = len(self.keys), len(keys)
        kept = min(size, batch)
        if not kept:
            return
        newest = torch.arange(batch - kept, batch, device=self.pointer.device)
        slots = (self.pointer + newest) % size
        self.keys[slots] = keys[batch - kept :].to(self.keys.dtype)
        self.targets[slots] = targets[batch - kept :]
        self.pointer.add_(batch).remainder_(size)


class MomentumEncoder(nn.Module):
    """A copy of a module that follows it slowly and takes no gradient.

    Args:
        module: Copied, not registered.
        momentum: Share of the copy kept at each update, in [0, 1].

    Raises:
        ValueError: If momentum is out of range.
    """

    def __init__(self, module: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.encoder = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move every parameter towards the module's: momentum * own + (1 - momentum) * other."""
        # Faithful: buffers are not averaged. Batch norm in the copy runs on what the copy sees.
        pairs = zip(self.encoder.parameters(), module.parameters(), strict=True)
        for own, other in pairs:
            own.lerp_(other, 1 - self.momentum)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """Pass through the copy."""
        return self.encoder(*inputs)


def _add_to_means(
    mean: Tensor, count: Tensor, embeddings: Tensor, targets: Tensor, least_share: float = 0.0
) -> None:
    """Fold a batch into running means, in place, touching only the rows of its classes.

    Args:
        mean: (C, D).
        count: (C,).
        embeddings: (B, D).
        targets: (B,).
        least_share: The batch's part of the new mean is its part of the count, but at least this.
    """
    in_batch = torch.zeros_like(count).index_add_(0, targets, torch.ones_like(targets))
    count += in_batch
    in_batch = in_batch[targets]
    share = (in_batch / count[targets]).clamp_min(least_share) / in_batch
    mean.index_add_(0, targets, (embeddings - mean[targets]) * share[:, None])


def _check_rows(rows: Tensor, targets: Tensor, dim: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != dim or targets.shape != rows.shape[:1]:
        raise ValueError(
            f"need rows (B, {dim}) and targets (B,), "
            f"got {tuple(rows.shape)} and {tuple(targets.shape)}"
        )
