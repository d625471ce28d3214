"""Hand a table's missing runs to SLURM as a job array, or to background processes of this machine.

submitit (extra ``slurm``) writes the job files and asks SLURM to requeue what it preempts; a
requeued job resumes its run from the checkpoint. A run on several machines is a script of its own:
``ltlib slurm`` prints a template.
"""

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltlib.reproduce import train_run
from ltlib.runs import RunError
from ltlib.trainer import Stopped

if TYPE_CHECKING:
    from submitit import Job


def submit(
    run_dirs: Sequence[Path],
    executor: str,
    *,
    data_root: Path | str | None = None,
    num_processes: int = 1,
    logs_dir: Path | str = "runs/jobs",
    settings: Mapping[str, object] | None = None,
) -> "list[Job]":
    """Submit one job per run and return at once.

    Args:
        run_dirs: From ``reproduce.missing_runs``.
        executor: "slurm", or "local" for background processes, all of them at the same time.
        data_root: Folder searched first for the data set.
        num_processes: Processes of each training, all on one machine.
        logs_dir: Folder of the jobs' scripts and output.
        settings: Of submitit, such as ``{"timeout_min": 720, "gpus_per_node": 1,
            "slurm_partition": "gpu", "slurm_array_parallelism": 8}``; digits become numbers.

    Returns:
        submitit's jobs, whose ``job_id`` SLURM knows and whose ``wait()`` waits.

    Raises:
        RunError: If submitit is not installed.
        ValueError: If the executor or a setting is unknown, or there is no SLURM.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise RunError("submitit is not installed: pip install 'ltlib[slurm]'") from None

    if executor not in ("slurm", "local"):
        raise ValueError(f"runs are submitted to slurm or local, not to {executor!r}")
    numbered = {
        name: int(value) if isinstance(value, str) and value.isdigit() else value
        for name, value in (settings or {}).items()
    }
    try:
        queue = submitit.AutoExecutor(folder=str(logs_dir), cluster=executor)
        queue.update_parameters(name="ltlib", **numbered)
    except (RuntimeError, NameError) as error:
        raise ValueError(str(error)) from None
    with queue.batch():
        return [queue.submit(Training(run, data_root, num_processes)) for run in run_dirs]


class Training:
    """One run as a job: resumed where it was stopped, handed back to SLURM when its time is up.

    Args:
        run_dir: From ``runs.open_run``.
        data_root: Folder searched first for the data set.
        num_processes: Processes of the training.
    """

    def __init__(self, run_dir: Path, data_root: Path | str | None, num_processes: int) -> None:
        # Jobs start in another folder.
        self.run_dir = Path(run_dir).absolute()
        self.data_root = Path(data_root).absolute() if data_root else None
        self.num_processes = num_processes

    def __call__(self) -> str:
        """Train; what submitit runs on the machine of the job."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        try:
            train_run(self.run_dir, self.data_root, self.num_processes)
        except Stopped as stopped:
            # SLURM's warning, which the training has turned into a checkpoint, goes on to
            # submitit: it requeues. Other signals, such as scancel's, end the job.
            if stopped.number == signal.SIGUSR2:
                os.kill(os.getpid(), signal.SIGUSR2)
            raise
        return str(self.run_dir)

    def checkpoint(self) -> object:
        """Tell submitit what the requeued job does: the same, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
