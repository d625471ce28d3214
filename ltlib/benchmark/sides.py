"""One side of the training benchmark: a process that makes a step whenever it is told to.

It reads a request a line, ``describe``, ``size``, ``step``, ``evaluate`` or ``memory``, and answers
each with a line of JSON.
"""

import json
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ltlib.benchmark.measuring import MEGABYTE, Stopwatch
from ltlib.config import ExperimentConfig
from ltlib.data import (
    EpochBatches,
    ImageSet,
    load_dataset,
    long_tailed_counts,
    test_loader,
    train_loader,
)
from ltlib.distributed import rank, world_size
from ltlib.execution import Execution, describe
from ltlib.methods import build_method
from ltlib.trainer import build_optimizer, evaluate, prepare
from ltlib.views import build_view

PLAIN_WORKERS = 2

_LARGEST_CLASS = 500  # of CIFAR-100
_TEST_IMAGES = 10_000


class Side:
    """One method in training, on this process's share of each batch.

    Args:
        config: The experiment.
        execution: How it is computed; a ``PlainExecution`` has plain loaders too.
        train_set: At least one batch of images.
        test_set: What ``evaluate`` answers.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        execution: Execution,
        train_set: ImageSet,
        test_set: ImageSet,
    ) -> None:
        torch.manual_seed(config.seed)
        load = _plain_loaders if isinstance(execution, PlainExecution) else _loaders
        train_batches, self.tests = load(config, execution, train_set, test_set)
        self.batches = _endless(train_batches)
        self.sizes = {"steps": len(train_batches), "tests": len(test_set)}
        self.method = build_method(config, train_set.class_counts.tolist())
        self.step_module, self.execution = prepare(
            self.method, config, len(train_batches), execution
        )
        self.optimizer = build_optimizer(self.method, config.optim, execution)
        self.watch = Stopwatch(execution.device)
        # The classifier is the last of the network that a contrastive method runs.
        self.method.classifier.register_forward_hook(lambda *_: self.watch.lap("forward"))

    def describe(self) -> dict[str, object]:
        """Return the facts about machine and execution."""
        return describe(self.execution)

    def size(self) -> dict[str, int]:
        """Return the steps and the test images of an epoch."""
        return self.sizes

    def step(self) -> dict[str, float]:
        """Make one training step; return the seconds of its stages."""
        self.method.train()
        self.watch.restart()
        loaded, targets = next(self.batches)
        views = [self.execution.place(view) for view in loaded]
        targets = targets.to(self.execution.device, non_blocking=True)
        self.watch.lap("data")
        with self.execution.autocast():
            output = self.step_module(views, targets)
        self.watch.lap("loss")
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        self.watch.lap("backward")
        self.optimizer.step()
        self.watch.lap("optimiser")
        return self.watch.seconds

    def evaluate(self) -> dict[str, float]:
        """Answer the test images; return the seconds of one."""
        watch = Stopwatch(self.execution.device)
        evaluate(self.method, self.tests, self.execution)
        watch.lap("image")
        return {"image": watch.seconds["image"] / self.sizes["tests"]}

    def memory(self) -> dict[str, float]:
        """Return the most megabytes so far: of the GPU, else of this process without workers."""
        if self.execution.device.type == "cuda":
            return {"MB": torch.cuda.max_memory_allocated(self.execution.device) / MEGABYTE}
        return {"MB": _peak_resident_bytes() / MEGABYTE}


class PlainExecution(Execution):
    """Float32 and channels first, whatever the machine could do better."""

    def place(self, images: Tensor) -> Tensor:
        return images.to(self.device)

    def prepare(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)


class PlainImages(Dataset):
    """One image at a time, through PIL.

    Args:
        image_set: N images.
        show: From RGB image to what the network sees of it.
    """

    def __init__(self, image_set: ImageSet, show: Callable[[Image.Image], Any]) -> None:
        self.image_set, self.show = image_set, show

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.image_set.images[index])
        return self.show(image), int(self.image_set.targets[index])


def random_images(counts: np.ndarray, seed: int) -> ImageSet:
    """Draw uniform noise of CIFAR's size; ``counts`` are the images of each class, (C,)."""
    generator = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(counts)), counts)
    images = generator.integers(256, size=(len(targets), 32, 32, 3), dtype=np.uint8)
    names = tuple(map(str, range(len(counts))))
    return ImageSet(images, targets, names, (0.5,) * 3, (0.29,) * 3)


def serve(arguments: list[str]) -> None:
    """Build a side and answer requests until there are none.

    Args:
        arguments: Side, experiment and its number of classes, device and data root, as JSON.
    """
    name, tree, num_classes, device, data_root = json.loads(arguments[0])
    config = ExperimentConfig.model_validate(tree)
    execution = Execution.choose(device)
    if name == "plain":
        execution = PlainExecution(execution.device, False, PLAIN_WORKERS, "pil", compiled=False)
    if data_root is None:
        factor = config.data.imbalance_factor
        train_set = random_images(long_tailed_counts(_LARGEST_CLASS, factor, num_classes), seed=0)
        test_set = random_images(np.full(num_classes, _TEST_IMAGES // num_classes), seed=1)
    else:
        train_set = load_dataset(config.data, Path(data_root), train=True)
        test_set = load_dataset(config.data, Path(data_root), train=False)
    side = Side(config, execution, train_set, test_set)
    for request in sys.stdin:
        sys.stdout.write(json.dumps(getattr(side, request.strip())()) + "\n")
        sys.stdout.flush()


def _loaders(
    config: ExperimentConfig, execution: Execution, train_set: ImageSet, test_set: ImageSet
) -> tuple[DataLoader, DataLoader]:
    batches = train_loader(
        train_set,
        config.data.views,
        batch_size=config.optim.batch_size,
        seed=config.seed,
        drop_last=True,
        num_workers=execution.num_workers,
        device=execution.device if execution.views == "batched" else None,
        rank=rank(),
        world_size=world_size(),
    )
    return batches, test_loader(test_set)


def _plain_loaders(
    config: ExperimentConfig, execution: Execution, train_set: ImageSet, test_set: ImageSet
) -> tuple[DataLoader, DataLoader]:
    pixel_format = train_set.pixel_format
    views = [build_view(name, pixel_format) for name in config.data.views]
    workers: dict[str, Any] = {"num_workers": execution.num_workers, "persistent_workers": True}
    batches = DataLoader(
        PlainImages(train_set, partial(_show_all, views)),
        config.optim.batch_size,
        shuffle=True,
        drop_last=True,
        **workers,
    )
    tests = PlainImages(test_set, build_view("test", pixel_format))
    return batches, DataLoader(tests, config.optim.batch_size, **workers)


def _show_all(views: list[Callable[[Image.Image], Tensor]], image: Image.Image) -> list[Tensor]:
    return [view(image) for view in views]


def _endless(loader: DataLoader) -> Iterator[tuple[list[Tensor], Tensor]]:
    for epoch in count():
        if isinstance(loader.batch_sampler, EpochBatches):
            loader.batch_sampler.set_epoch(epoch)
        yield from loader


def _peak_resident_bytes() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: a process inherits the peak of the one that started it.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * float(lines["VmHWM"].removesuffix("kB"))
    scale = 1 if sys.platform == "darwin" else 1024
    return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
