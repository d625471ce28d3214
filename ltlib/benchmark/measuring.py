"""Seconds and peak bytes of a step's stages, and the report that the measurements end in.

A step is a generator that yields after each of its stages, so the same code is timed, weighed
and compared with another way of computing the same numbers.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from ltlib.runs import write_json

MEGABYTE = 1e6

_STAGE = "ltlib stage"


class Stage(NamedTuple):
    """A part of a step that has just ended."""

    name: str
    results: tuple[Tensor, ...]


Step = Callable[[], Iterator[Stage]]


class Stopwatch:
    """Seconds between laps, by the name of the lap that ends them.

    Args:
        device: Waited for at each lap if it is a GPU, which computes while the host goes on.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Forget all laps and begin the next."""
        self.seconds: dict[str, float] = {}
        self._start = self._now()

    def lap(self, name: str) -> None:
        """End a lap and begin the next."""
        self.seconds[name] = self._now() - self._start
        self._start = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def stage_seconds(step: Step, device: torch.device) -> dict[str, float]:
    """Run a step and time each stage."""
    watch = Stopwatch(device)
    for stage in step():
        watch.lap(stage.name)
    return watch.seconds


def stage_peaks(step: Step) -> dict[str, int]:
    """Run a step and return the most bytes that its tensors held at once during each stage.

    Counted from what is allocated when the step begins: its inputs are not in it, what an earlier
    stage left for a later one is. The allocator itself is listened to, so temporaries inside a
    kernel count as well.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else the profiler talks on stderr
    names: list[str] = []
    stages = step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        while True:
            with record_function(_STAGE):
                stage = next(stages, None)
            if stage is None:
                break
            names.append(stage.name)
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = profiler.profiler.kineto_results.events()
    live, peaks = 0, []
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == _STAGE:
            peaks.append(live)
        elif event.name() == "[memory]":
            live += event.nbytes()
            peaks[-1] = max(peaks[-1], live)
    return dict(zip(names, peaks, strict=False))  # the last mark is the generator's end


@dataclass(frozen=True)
class Report:
    """Measurements and where they were taken."""

    machine: dict[str, object]
    """From ``execution.describe``, and what else holds for every row."""
    table: pd.DataFrame

    def __str__(self) -> str:
        width = max(map(len, self.machine))
        lines = [f"{name:<{width}}  {_in_words(value)}" for name, value in self.machine.items()]
        table = self.table.to_string(index=False, na_rep="", float_format=_three_digits)
        return "\n".join([*lines, "", table])

    def write(self, file: Path) -> None:
        """Write JSON: ``machine``, and ``rows`` with null where nothing was measured."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        write_json(file, {"machine": self.machine, "rows": rows})


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
