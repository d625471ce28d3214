"""How a run ends, and the word it leaves in ``status.json``: one sentence, by whoever knows it."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from ltlib.distributed import any_rank, is_lost_process, is_main, world_size
from ltlib.runs import RunError, lock_run, read_json, write_status
from ltlib.trainer.signals import Stopped

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite."""


class LostProcessError(RunError):
    """Another process of the run was killed."""


class OtherProcessError(RunError):
    """The run ended for a reason that another of its processes has told."""


@contextmanager
def responsible_for(run_dir: Path) -> Iterator[None]:
    """Hold the run, and leave word of what became of it.

    Raises:
        RunLockedError: If another process holds it.
        OtherProcessError: Instead of this process's error, which is what another's led to.
    """
    elsewhere = OtherProcessError(f"{run_dir}: another process says what happened")
    with lock_run(run_dir) if is_main() else nullcontext():
        if is_main():
            write_status(run_dir, "running", process=os.getpid(), machine=os.uname().nodename)
        try:
            any_rank(False)  # no process speaks for the run before the main process holds it
        except RuntimeError as error:
            raise elsewhere from error
        try:
            yield
        except BaseException as error:
            if world_size() > 1:
                of_all = isinstance(error, Stopped | NonFiniteLossError)
                told = read_json(run_dir / "status.json").get("state") == "failed"
                if of_all:
                    # All leave together, the main process having saved: torchrun ends the others
                    # when one ends.
                    with suppress(RuntimeError):
                        any_rank(False)
                if told or (of_all and not is_main()):
                    raise elsewhere from error
                if is_lost_process(error):
                    lost = LostProcessError(f"a process of {run_dir} was killed; start it again")
                    _leave_word(run_dir, lost)
                    raise lost from error
            _leave_word(run_dir, error)
            raise


def with_plain_errors(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Yield a loader's batches; of a ValueError in one of its workers only the sentence is left."""
    try:
        yield from loader
    except ValueError as error:
        # It arrives as the text of a traceback, whose last line is the sentence.
        last_line = str(error).strip().rpartition("\n")[2]
        raise ValueError(last_line.removeprefix("ValueError: ")) from error


def _leave_word(run_dir: Path, error: BaseException) -> None:
    state = "preempted" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"
    clear = isinstance(error, ValueError | OSError | RunError | KeyboardInterrupt)
    why = str(error) if clear else f"{type(error).__name__}: {error}"
    try:
        write_status(run_dir, state, why=why)
    except OSError as failure:
        logger.warning("%s", failure)
