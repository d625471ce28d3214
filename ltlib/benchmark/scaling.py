"""How the time and the memory of training grow with the batch, the classes and the processes.

Batches and processes are steps of ProCo as the suite runs them, data and optimiser included, but
never compiled: compiling takes a minute for each size. Classes are what a method adds to its
network, the loss and its class statistics, the suite's way and the plain way.

Peak memory belongs to a process, so each size of batch has processes of its own. They are forked
from one that has imported everything and computed nothing, which saves seconds for each.
"""

import logging
import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ltlib.benchmark.losses import SIDES, Case, bcl, paco, proco
from ltlib.benchmark.measuring import MEGABYTE, Report, stage_peaks, stage_seconds
from ltlib.benchmark.sides import Side, random_images
from ltlib.config import ExperimentConfig, override
from ltlib.data import long_tailed_counts
from ltlib.distributed import process_group
from ltlib.execution import Execution, describe
from ltlib.recipes import get_recipe
from ltlib.runs import RunError

logger = logging.getLogger(__name__)

COLUMNS = [
    *("against", "method", "way", "batch", "classes", "processes", "threads"),
    *("lower quartile (ms)", "median (ms)", "upper quartile (ms)", "ideal (ms)", "peak (MB)"),
]

_WARM_UPS = 2  # the second step of several processes still arranges their messages
_LARGEST_CLASS = 500  # images, of CIFAR-100
_PLAIN_PROCO_FLOATS = 3e8  # of its largest tensor, B x C x D; it makes several

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    recipe: str
    num_classes: int
    """Of the recipe's data set."""
    batches: tuple[int, ...]
    """Images of a step."""
    processes: tuple[int, ...]
    """That share the recipe's batch, from 1."""
    classes: tuple[int, ...]
    dims: dict[str, int]
    """Embedding dimension D of each method."""
    queue: int
    """Keys that PaCo contrasts with."""


FULL = Sizes(
    recipe="proco-cifar100-if100",
    num_classes=100,
    batches=(32, 64, 128, 256, 512),
    processes=(1, 2, 4),
    classes=(10, 100, 365, 1000, 8142),  # CIFAR-10 and -100, Places, ImageNet, iNaturalist 2018
    dims={"proco": 1024, "bcl": 1024, "paco": 128},  # as for the last three
    queue=8192,
)
QUICK = Sizes(
    recipe="proco-digits-if50",
    num_classes=10,
    batches=(16, 32),
    processes=(1, 2),
    classes=(5, 50),
    dims={"proco": 16, "bcl": 16, "paco": 8},
    queue=32,
)


def benchmark_scaling(
    *, quick: bool = False, repeats: int = 10, device: str | None = None
) -> Report:
    """Measure ProCo's step at several batches and processes, and the losses at several classes.

    The step is ResNet-32 on three views of random images. Several processes share a batch; each
    has one thread, or one GPU, and its own batch norm. One process with all threads, the suite's
    default, is the row of that batch. The dimension of the embeddings stays while the classes
    change, so that nothing else grows. Six gigabytes of memory are enough.

    Args:
        quick: The recipe of digits and small sizes, for a look at table and figure.
        repeats: Timed steps of each size, after those that warm up.
        device: See ``Execution.choose``.

    Returns:
        One row per size. ``against`` ("batch", "processes", "classes") says what changes, ``way``
        is "ltlib" or "plain". Milliseconds are of a step, or of the loss, its backward and its
        memory (classes); ``ideal`` is a process alone, its time shared by all processes that have
        a core. Megabytes are the peak, of the largest process or GPU, or above the loss's inputs
        (classes). The plain way of ProCo ends where its tensors would fill a workstation.

    Raises:
        ValueError: If repeats < 1 or the device does not exist.
        RunError: If a process ends early, as it does for want of memory.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    execution = Execution.choose(device, compiled=False)
    on_gpu = execution.device.type == "cuda"
    sizes = QUICK if quick else FULL
    rows = [
        *_against_batch(sizes, execution, repeats),
        *_against_processes(sizes, execution, repeats),
        *_against_classes(sizes, execution.device, repeats),
    ]
    config = get_recipe(sizes.recipe)
    facts: dict[str, object] = {
        "cores": len(os.sched_getaffinity(0)),
        "step": f"{config.model.backbone}, {len(config.data.views)} views of random images",
        "memory of": "GPU" if on_gpu else "process",
        "dimensions": sizes.dims,
        "queue": sizes.queue,
        "repeats": repeats,
    }
    return Report(describe(execution) | facts, pd.DataFrame(rows, columns=COLUMNS))


@dataclass(frozen=True)
class Training:
    """A few steps of an experiment on random images, by processes that share each batch."""

    config: ExperimentConfig
    num_classes: int
    execution: Execution
    repeats: int
    threads: int
    """Of each process."""
    processes: int = 1
    port: int = 0
    """Where they meet."""

    def measure(self) -> Row:
        """Let new processes train; return what a row says of their steps."""
        batch = self.config.optim.batch_size
        logger.info("measuring a batch of %d, processes: %d", batch, self.processes)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        try:
            with ProcessPoolExecutor(self.processes, context, _end_with_caller) as pool:
                answers = [pool.submit(take_steps, self, rank) for rank in range(self.processes)]
                seconds, peaks = zip(*(answer.result() for answer in answers), strict=True)
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise RunError(
                f"a process ended early at a batch of {batch} images, as it does when memory is "
                "short; free some, or try --quick"
            ) from error
        row: Row = {"method": self.config.method.name, "way": "ltlib", "batch": batch}
        row |= {"classes": self.num_classes, "processes": self.processes, "threads": self.threads}
        # A step has ended when it has in every process.
        return row | _measures(np.max(seconds, axis=0).tolist(), max(peaks))

    def environment(self, rank: int) -> dict[str, str]:
        """Return the variables that torchrun would set."""
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.processes)}
        return place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port)}


def take_steps(training: Training, rank: int) -> tuple[list[float], float]:
    """Be one of the processes; return the seconds of each step, and the megabytes at the peak."""
    torch.set_num_threads(training.threads)
    if training.processes > 1:
        os.environ |= training.environment(rank)
    with process_group():
        factor = training.config.data.imbalance_factor
        counts = long_tailed_counts(_LARGEST_CLASS, factor, training.num_classes)
        images = random_images(counts, seed=0)
        side = Side(training.config, training.execution, images, images)
        laps = [sum(side.step().values()) for _ in range(_WARM_UPS + training.repeats)]
        return laps[_WARM_UPS:], side.memory()["MB"]


def _against_batch(sizes: Sizes, execution: Execution, repeats: int) -> Iterator[Row]:
    for batch in sizes.batches:
        config = override(get_recipe(sizes.recipe), {"optim.batch_size": batch})
        threads = torch.get_num_threads()
        training = Training(config, sizes.num_classes, execution, repeats, threads)
        yield {"against": "batch", **training.measure()}


def _against_processes(sizes: Sizes, execution: Execution, repeats: int) -> Iterator[Row]:
    on_gpu = execution.device.type == "cuda"
    parallel = torch.cuda.device_count() if on_gpu else len(os.sched_getaffinity(0))
    training = Training(get_recipe(sizes.recipe), sizes.num_classes, execution, repeats, threads=1)
    alone = 0.0
    for number in sizes.processes:
        if on_gpu and number > parallel:
            break
        if number > 1:
            own = replace(execution, device=torch.device(execution.device.type))  # each its GPU
            training = replace(training, execution=own, processes=number, port=_free_port())
        row = training.measure()
        alone = alone or float(row["median (ms)"])
        yield {"against": "processes", **row, "ideal (ms)": alone / min(number, parallel)}


def _against_classes(sizes: Sizes, device: torch.device, repeats: int) -> Iterator[Row]:
    """Measure the losses, the suite's way and the plain way in turns."""
    batch = get_recipe(sizes.recipe).optim.batch_size
    for num_classes in sizes.classes:
        for method in sizes.dims:
            logger.info("measuring the loss of %s with %d classes", method, num_classes)
            case = _case(method, num_classes, batch, sizes, device)
            peaks = {way: max(stage_peaks(step).values()) for way, step in case.sides.items()}
            laps: dict[str, list[float]] = {way: [] for way in case.sides}
            for _ in range(repeats):
                for way, step in case.sides.items():
                    laps[way].append(sum(stage_seconds(step, device).values()))
            for way in case.sides:
                row: Row = {"against": "classes", "method": method, "way": way, "batch": batch}
                row |= {"classes": num_classes, "processes": 1}
                row |= {"threads": torch.get_num_threads()}
                yield row | _measures(laps[way], peaks[way] / MEGABYTE)


def _case(method: str, num_classes: int, batch: int, sizes: Sizes, device: torch.device) -> Case:
    generator, dim = torch.Generator().manual_seed(0), sizes.dims[method]
    if method == "paco":
        return paco(batch, num_classes, dim, sizes.queue, generator, device)
    if method == "bcl":
        return bcl(batch, num_classes, dim, generator, device)
    fits = batch * num_classes * dim <= _PLAIN_PROCO_FLOATS
    sides = SIDES if fits else ("ltlib",)
    return proco(batch, num_classes, dim, generator, device, sides=sides)


def _measures(seconds: list[float], megabytes: float) -> Row:
    lower, median, upper = (1e3 * np.quantile(seconds, (0.25, 0.5, 0.75))).tolist()
    times = {"lower quartile (ms)": lower, "median (ms)": median, "upper quartile (ms)": upper}
    return {**times, "peak (MB)": megabytes}


def _end_with_caller() -> None:
    """Stop this process when the one that asked for it ends, however it ends."""
    # Not ``end_with_parent``: the parent is the process that forks, which waits for its children.
    caller = multiprocessing.parent_process()
    assert caller is not None

    def wait() -> None:
        caller.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
