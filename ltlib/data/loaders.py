"""Loaders: batches that depend on (seed, epoch, sample index) and on nothing else.

Neither the number of workers nor that of processes changes a batch, so a run can resume at any
step, on any number of devices.
"""

# ruff: noqa: PT028 (test_loader loads the test images; it is no test)
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, default_collate

from ltlib.data.images import EncodedImages, ImageSet
from ltlib.distributed import end_with_parent
from ltlib.views import BATCHED_VIEWS, BatchedViews, MultiView, derive_seed, preserved_rng


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """Permute the samples of an epoch, (N,), int64: a pure function of its arguments."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return torch.randperm(num_samples, generator=generator)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """This process's share of each global batch, as keys (epoch, sample index).

    The shares of all ranks, in the order of the ranks, are the batch of a single process; their
    sizes differ by at most one.

    Args:
        num_samples: N.
        batch_size: Images of one step over all processes.
        seed: Of the training.
        drop_last: Whether to leave out a last batch that is not full.
        rank: Of this process.
        world_size: Number of processes.

    Raises:
        ValueError: If an epoch has no batch, or a batch not one image per process.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        seed: int,
        drop_last: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if drop_last and num_samples < batch_size:
            raise ValueError(
                f"batch_size {batch_size} exceeds the {num_samples} training images; "
                "lower it or keep the last batch (drop_last false)"
            )
        last = batch_size if drop_last else num_samples % batch_size or batch_size
        if min(batch_size, last) < world_size:
            raise ValueError(
                f"a batch of {min(batch_size, last)} images cannot be shared by {world_size} "
                "processes; use fewer processes or another batch_size"
            )
        self.num_samples, self.batch_size = num_samples, batch_size
        self.seed, self.drop_last = seed, drop_last
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start_step = 0

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch that the next iteration yields, and its first step."""
        self.epoch, self.start_step = epoch, start_step

    def __len__(self) -> int:
        """Count the steps of a whole epoch, whatever ``start_step``."""
        spare = 0 if self.drop_last else self.batch_size - 1
        return (self.num_samples + spare) // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self.num_samples, self.seed, self.epoch).tolist()
        for step in range(self.start_step, len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            share = batch[_share(len(batch), self.rank, self.world_size)]
            yield [(self.epoch, index) for index in share]


def train_loader(
    image_set: ImageSet,
    view_names: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    drop_last: bool,
    num_workers: int = 0,
    device: torch.device | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Load augmented training batches; ``loader.batch_sampler.set_epoch`` chooses the epoch.

    Args:
        image_set: N images.
        view_names: Keys of ``views.VIEWS``, V of them.
        batch_size: Images of one step over all processes.
        seed: Of order and augmentation.
        drop_last: Whether to leave out a last batch that is not full.
        num_workers: Processes that augment; 0 augments in this one. Does not change a batch.
        device: If given, the images move there once and the views are computed there in batches,
            without workers; only where ``takes_batched_views``.
        rank: Of this process.
        world_size: Number of processes that share a batch.

    Returns:
        A loader of ``(views, targets)``: V tensors (B, 3, H, W), and (B,).
    """
    batches = EpochBatches(
        len(image_set),
        batch_size=batch_size,
        seed=seed,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    if device is not None:
        return _loader(_BatchedTrainBatches(image_set, view_names, seed, device), batches)
    multi_view = MultiView(view_names, image_set.pixel_format, seed)
    return _loader(_TrainBatches(image_set, multi_view), batches, num_workers)


def takes_batched_views(image_set: ImageSet, view_names: Sequence[str]) -> bool:
    """Tell whether the images are in memory and every view can be computed in batches."""
    in_memory = not isinstance(image_set.images, EncodedImages)
    return in_memory and all(name in BATCHED_VIEWS for name in view_names)


def test_loader(
    image_set: ImageSet,
    *,
    batch_size: int | None = None,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Load every image once, in order, in the ``test`` view; no sample is padded or repeated.

    Args:
        image_set: N images.
        batch_size: Images of one batch of this process; by default 500, or what 64 MiB hold.
        num_workers: Processes that decode; 0 decodes in this one, as do images in memory.
        rank: Of this process, which loads a contiguous share of the images.
        world_size: Number of processes.

    Returns:
        A loader of ``(images, targets)``: (B, 3, H, W), and (B,).
    """
    if batch_size is None:
        batch_size = min(500, 2**26 // (12 * image_set.pixel_format.size**2))
    if not isinstance(image_set.images, EncodedImages):
        num_workers = 0
    share = range(len(image_set))[_share(len(image_set), rank, world_size)]
    batches = BatchSampler(share, batch_size, drop_last=False)
    return _loader(_TestBatches(image_set), batches, num_workers)


class _TrainBatches(Dataset):
    def __init__(self, image_set: ImageSet, multi_view: MultiView) -> None:
        self.image_set, self.multi_view = image_set, multi_view

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[list[Tensor], Tensor]:
        with preserved_rng():
            views = [
                self.multi_view.draw(self.image_set.picture(index), epoch, index)
                for epoch, index in keys
            ]
        targets = self.image_set.targets[[index for _, index in keys]]
        return default_collate(views), torch.from_numpy(targets)


class _BatchedTrainBatches(Dataset):
    def __init__(
        self, image_set: ImageSet, view_names: Sequence[str], seed: int, device: torch.device
    ) -> None:
        assert isinstance(image_set.images, np.ndarray), "files have no batched views"
        self.views = BatchedViews(view_names, image_set.pixel_format, seed)
        self.pixels = torch.from_numpy(image_set.images).to(device)  # (N, H, W, 3)
        self.targets = torch.from_numpy(image_set.targets).to(device)

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[list[Tensor], Tensor]:
        epoch, indices = keys[0][0], np.array([index for _, index in keys])
        chosen = torch.from_numpy(indices).to(self.pixels.device, non_blocking=True)
        return self.views(self.pixels[chosen], epoch, indices), self.targets[chosen]


class _TestBatches(Dataset):
    def __init__(self, image_set: ImageSet) -> None:
        self.image_set = image_set

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        images = np.stack([self.image_set.images[index] for index in indices])
        pixels = self.image_set.pixel_format.to_tensor(images)  # (B, 3, H, W)
        return pixels, torch.from_numpy(self.image_set.targets[indices])


def _share(num_items: int, rank: int, world_size: int) -> slice:
    """Cut the items into contiguous shares that differ by at most one."""
    return slice(num_items * rank // world_size, num_items * (rank + 1) // world_size)


def _loader(dataset: Dataset, batches: Sampler, num_workers: int = 0) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_identity,
        pin_memory=torch.cuda.is_available() and not isinstance(dataset, _BatchedTrainBatches),
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker,
        # Else each epoch draws the workers' base seed from the caller's generator.
        generator=torch.Generator(),
    )


def _identity(batch: Any) -> Any:
    return batch


def _start_worker(worker_id: int) -> None:
    """Let only the main process stop a worker.

    A scheduler signals every process of a job, and a terminal its whole group; the workers must
    outlive that, because the main process finishes its step and saves before it stops.
    """
    torch.set_num_threads(1)
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if sys.platform == "linux":
        # Not ignored: at exit multiprocessing sends SIGTERM to its children and waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_main_process, daemon=True).start()


def _obey_main_process() -> None:
    main_process = multiprocessing.parent_process()
    assert main_process is not None, "only workers run this"
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main_process.pid:
        pass
    os._exit(0)
