"""Signals that ask a run to stop: it saves first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ltlib.runs import RunError


class Stopped(RunError):
    """A signal asked the run to stop; its state is saved."""


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into an event; the second one acts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
