"""Signals that ask a run to stop: it saves first."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ltlib.runs import RunError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Of users, of the system, and of SLURM before the time is up."""

_ONE_REQUEST = 1.0  # seconds: torchrun and SLURM both signal every process of a run


class Stopped(RunError):
    """A signal asked the run to stop; its state is saved.

    Args:
        message: What the user reads.
        number: The signal, if it arrived in this process.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """The first signal that has arrived, if any."""

    number: int | None = None

    def is_set(self) -> bool:
        """Tell whether a signal has arrived."""
        return self.number is not None


@contextmanager
def stop_signals(forward: Callable[[int], object] | None = None) -> Iterator[StopRequest]:
    """Turn the signals of ``SIGNALS`` into a request; one more, a second later, acts at once.

    Args:
        forward: Takes each signal instead of that, for a process that waits for others.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    asked = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        again = stop.is_set() and time.monotonic() - asked > _ONE_REQUEST
        if not stop.is_set():
            stop.number, asked = number, time.monotonic()
        if forward:
            forward(number)
        elif again:
            raise KeyboardInterrupt("stopped at once, nothing more saved; start again to resume")

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
