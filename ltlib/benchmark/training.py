"""ProCo's training step as the suite computes it and the plain way, each in a process of its own.

Threads that wait by spinning must be had or avoided before torch starts, and peak memory belongs
to a process: hence the processes. They take turns, step by step; the one whose turn it is not is
stopped, workers included, so that nothing is prepared in the other's time.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from types import TracebackType
from typing import Any, Self

import pandas as pd

from ltlib.benchmark.measuring import Report
from ltlib.benchmark.sides import PLAIN_WORKERS
from ltlib.data import load_dataset
from ltlib.execution import Execution
from ltlib.recipes import get_recipe
from ltlib.runs import RunError

logger = logging.getLogger(__name__)

STAGES = ("data", "forward", "loss", "backward", "optimiser")

_EVALUATIONS = 1
_SERVE = "import sys; from ltlib.benchmark.sides import serve; serve(sys.argv[1:])"
# The package makes OpenMP's threads wait passively, unless torch has started them before.
_SERVE_PLAIN = f"import torch; {_SERVE}"


def benchmark_training(
    *,
    steps: int | None = None,
    quick: bool = False,
    data_root: Path | None = None,
    device: str | None = None,
) -> Report:
    """Measure ProCo's three views through ResNet-32 at batch 256, plain and ours in turns.

    Plain is float32, channels first, one PIL image after another in two workers, and threads that
    wait as OpenMP has it; ours is what ``Execution.choose`` decides for this machine. An epoch is
    all its steps, views included, and the evaluation of 10,000 test images.

    Args:
        steps: Timed steps of each side, after one that warms up; by default a whole epoch.
        quick: The recipe of digits, a small ResNet-8, for a look at the table.
        data_root: Folder of CIFAR-100; without it, as many random images stand in.
        device: See ``Execution.choose``.

    Returns:
        One row per quantity: milliseconds of each stage, medians over the steps (of data, what
        the training waits), images per second, seconds of an epoch and of the very first step,
        which compiles or starts workers, and megabytes at the peak of the GPU, else of the whole
        training process without its workers. ``times better`` is above 1 where ours is faster or
        smaller.

    Raises:
        ValueError: If steps < 1 or the device does not exist.
        FileNotFoundError: If CIFAR-100 is not in ``data_root``.
        RunError: If one of the processes ends early.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    config = get_recipe("proco-digits-if50" if quick else "proco-cifar100-if100")
    Execution.choose(device)
    if data_root is not None:
        load_dataset(config.data, data_root, train=False)  # complains here, not in a process
    shared = (config.model_dump(mode="json"), 10 if quick else 100, device)
    settings = [*shared, str(data_root) if data_root else None]
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(_Process(name, code, settings))
            for name, code in (("plain", _SERVE_PLAIN), ("ltlib", _SERVE))
        }
        machine, plain = (sides[name].ask("describe") for name in ("ltlib", "plain"))
        size = sides["ltlib"].ask("size")
        steps = steps or size["steps"]
        laps = _in_turns(sides, "step", steps)
        evaluations = _in_turns(sides, "evaluate", _EVALUATIONS)
        peaks = {name: process.ask("memory")["MB"] for name, process in sides.items()}

    table = pd.DataFrame(
        {
            name: _quantities(laps[name], evaluations[name], config.optim.batch_size, size)
            | {"peak memory (MB)": peaks[name]}
            for name in sides
        }
    )
    is_rate = table.index.str.contains("/s)", regex=False)
    ratio = table["plain"] / table["ltlib"]
    table["times better"] = ratio.where(~is_rate, 1 / ratio)
    facts = {
        "batch": f"{config.optim.batch_size} images, {len(config.data.views)} views",
        "images": f"{config.data.dataset} in {data_root}" if data_root else "random",
        "steps": steps,
        "plain": f"{plain['precision']}, PIL in {PLAIN_WORKERS} workers, channels first, "
        "spinning threads",
    }
    return Report(machine | facts, table.rename_axis("quantity").reset_index())


class _Process:
    """A side, stopped unless it is answering; its workers are in its process group."""

    def __init__(self, name: str, code: str, settings: list[Any]) -> None:
        self.name = name
        environment = dict(os.environ)
        if name == "plain":
            environment.pop("OMP_WAIT_POLICY", None)  # which importing this package has set
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps([name, *settings])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def ask(self, request: str) -> dict[str, Any]:
        """Let the side run until it has answered a request."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            stdin.write(f"{request}\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RunError(f"the {self.name} side ended early; its error is above")
        os.killpg(self.process.pid, signal.SIGSTOP)
        return json.loads(answer)


def _in_turns(
    sides: dict[str, _Process], request: str, repeats: int
) -> dict[str, list[dict[str, float]]]:
    """Ask every side again and again; the first answers warm up."""
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        logger.info("%s %d of %d", request, repeat, repeats)
        for name, process in sides.items():
            answers[name].append(process.ask(request))
    return answers


def _quantities(
    laps: list[dict[str, float]],
    evaluations: list[dict[str, float]],
    batch_size: int,
    size: dict[str, int],
) -> dict[str, float]:
    first, *steps = (sum(lap.values()) for lap in laps)
    step, image = median(steps), median(answer["image"] for answer in evaluations[1:])
    return (
        {f"{stage} (ms)": 1e3 * median(lap[stage] for lap in laps[1:]) for stage in STAGES}
        | {"step (ms)": 1e3 * step}
        | {"training (images/s)": batch_size / step}
        | {"evaluation (images/s)": 1 / image}
        | {"epoch (s)": size["steps"] * mean(steps) + size["tests"] * image}
        | {"first step (s)": first}
    )
