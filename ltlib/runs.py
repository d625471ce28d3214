"""One run on disk: open, write, read back as DataFrames.

A run is the folder ``<runs_dir>/<recipe>/<config hash>-s<seed>/``. ``result.json`` is written
last and atomically: its presence means finished. The same recipe, config and seed give the same
folder, so starting a run again loads it, resumes it, or begins it.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from pydantic import ValidationError

from ltlib.config import ExperimentConfig, config_hash
from ltlib.metrics import SPLITS, per_class_accuracy, shot_accuracy

RESULT = "result.json"


class RunError(RuntimeError):
    """A run that cannot go on, said in one sentence."""


class RunLockedError(RunError):
    """Another process is training this run."""


def open_run(config: ExperimentConfig, recipe: str, runs_dir: Path | str = "runs") -> Path:
    """Return a run's folder, made if need be, with its ``config.json``.

    Args:
        config: The experiment, seed included.
        recipe: Name of the recipe that the experiment started from.
        runs_dir: Folder of all runs.

    Raises:
        ValueError: If the folder holds another experiment (a default changed since it was made).
        OSError: If the folder cannot be made.
    """
    run_dir = Path(runs_dir) / recipe / f"{config_hash(config)}-s{config.seed}"
    with _writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / "config.json"
    if not file.exists():
        write_json(file, config.model_dump(mode="json"))
    elif read_config(run_dir) != config:
        raise ValueError(f"{run_dir} holds another experiment; move that folder away to train here")
    return run_dir


@contextmanager
def lock_run(run_dir: Path) -> Iterator[None]:
    """Hold a run for this process; the system frees it when the process ends, however it ends.

    On a network file system the server frees it, for a machine that died after a minute or two.

    Raises:
        RunLockedError: If another process holds it.
        OSError: If the folder cannot be written.
    """
    with _writing(run_dir):
        file = (run_dir / ".lock").open("a+")
    with file:
        with _writing(run_dir):
            try:
                # Not flock, which children inherit: a killed run's workers would hold it a while.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.seek(0)
                raise RunLockedError(
                    f"{run_dir} is being trained by process {file.read().strip() or 'unknown'}; "
                    "wait for it or stop it"
                ) from None
        for leftover in run_dir.glob(".*.part"):
            leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote
        file.truncate(0)
        file.write(f"{os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield


def is_finished(run_dir: Path) -> bool:
    """Tell whether a run has its result."""
    return (run_dir / RESULT).exists()


def write_status(run_dir: Path, state: str, **details: object) -> None:
    """Record what became of a run: running, preempted, failed (with why) or finished."""
    write_json(run_dir / "status.json", {"state": state, **details})


def write_history(run_dir: Path, rows: list[dict[str, float]]) -> None:
    """Write one row an epoch; accuracies are fractions, ``seconds`` the epoch's wall time."""
    write_atomically(run_dir / "history.csv", pd.DataFrame(rows).to_csv(index=False).encode())


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Write JSON atomically; NaN becomes null, a byte of a path that is no UTF-8 an escape."""
    text = json.dumps(_without_nan(content), indent=2, ensure_ascii=False)
    write_atomically(file, (text + "\n").encode(errors="backslashreplace"))


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed NPZ atomically."""
    with replacing(file) as new:
        np.savez_compressed(new, **arrays)  # type: ignore[arg-type]


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file whole or not at all."""
    with replacing(file) as new:
        new.write(content)


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Open what becomes a file when the block ends well; till then the old one stays.

    Also when the machine stops midway: content and name are on the disk before this returns.

    Raises:
        OSError: If the folder cannot be written or the disk is full.
    """
    # Of each process of each machine its own: two that fail together both write the run's status.
    temporary = file.with_name(f".{file.name}.{os.uname().nodename}.{os.getpid()}.part")
    with _writing(file):
        try:
            with temporary.open("wb") as new:
                yield new
                new.flush()
                os.fsync(new.fileno())
            os.replace(temporary, file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_config(run_dir: Path) -> ExperimentConfig:
    """Read a run's experiment."""
    return ExperimentConfig.model_validate_json((run_dir / "config.json").read_text())


def read_json(file: Path) -> dict:
    """Read a JSON object; empty if the file is missing."""
    return json.loads(file.read_text()) if file.exists() else {}


def load_runs(runs_dir: Path | str = "runs", recipes: list[str] | None = None) -> pd.DataFrame:
    """List the runs below a folder, finished or not.

    Args:
        runs_dir: Folder of all runs.
        recipes: Only these, in this order; all of them by default.

    Returns:
        One row a run: recipe, method, dataset, imbalance_factor, epochs, seed, state, last-epoch
        accuracies all/many/medium/few and best_all (fractions; NaN while unfinished or where a
        split is empty), best_epoch, seconds, run_dir.
    """
    folders = [file.parent for file in sorted(Path(runs_dir).glob("*/*-s*/config.json"))]
    rows = [_summary(folder) for folder in folders]
    runs = pd.DataFrame([row for row in rows if row], columns=list(_COLUMNS))
    if recipes is not None:
        order = {recipe: position for position, recipe in enumerate(recipes)}
        runs = runs[runs["recipe"].isin(order)]
        runs = runs.sort_values(by=["recipe", "seed"], key=lambda column: column.replace(order))
    return runs.reset_index(drop=True)


def load_history(runs: pd.DataFrame) -> pd.DataFrame:
    """Read the training curves of some runs: ``history.csv`` with recipe, method and seed."""
    return _for_each(runs, lambda folder: pd.read_csv(folder / "history.csv"))


def load_per_class(runs: pd.DataFrame) -> pd.DataFrame:
    """Read the last epoch's accuracy of every class.

    Returns:
        Columns recipe, method, seed, class (name), train_count, accuracy (fraction).
    """
    return _for_each(runs, _per_class)


def load_shots(runs: pd.DataFrame) -> pd.DataFrame:
    """Read the last epoch's accuracy by split: recipe, method, seed, split, accuracy."""

    def shots(folder: Path) -> pd.DataFrame:
        table = _per_class(folder)
        accuracies = shot_accuracy(table["accuracy"].to_numpy(), table["train_count"].to_numpy())
        return pd.DataFrame({"split": list(accuracies), "accuracy": list(accuracies.values())})

    return _for_each(runs, shots)


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """Read an NPZ, ``predictions.npz`` or ``geometry.npz``."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


_COLUMNS = (
    *("recipe", "method", "dataset", "imbalance_factor", "epochs", "seed", "state"),
    *("all", "many", "medium", "few", "best_all", "best_epoch", "seconds", "run_dir"),
)


def _summary(run_dir: Path) -> dict[str, object] | None:
    try:
        config = read_config(run_dir)
    except ValidationError:
        return None  # a folder of another version is not ours to read
    result = read_json(run_dir / RESULT)
    last, best = result.get("last", {}), result.get("best", {})
    state = "finished" if result else read_json(run_dir / "status.json").get("state", "new")
    row: dict[str, object] = {
        "recipe": run_dir.parent.name,
        "method": config.method.name,
        "dataset": config.data.dataset,
        "imbalance_factor": config.data.imbalance_factor,
        "epochs": config.optim.epochs,
        "seed": config.seed,
        "state": state,
    }
    row |= {split: _number(last.get(split)) for split in ("all", *SPLITS)}
    row |= {"best_all": _number(best.get("all")), "best_epoch": best.get("epoch")}
    row["seconds"] = _number(read_json(run_dir / "provenance.json").get("seconds"))
    return row | {"run_dir": run_dir}


def _per_class(run_dir: Path) -> pd.DataFrame:
    predictions = load_arrays(run_dir / "predictions.npz")
    counts = predictions["class_counts"]
    accuracy = per_class_accuracy(
        predictions["predictions"], predictions["targets"], num_classes=len(counts)
    )
    return pd.DataFrame(
        {"class": predictions["class_names"], "train_count": counts, "accuracy": accuracy}
    )


def _for_each(runs: pd.DataFrame, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    tables = []
    for run in runs.itertuples():
        table = read(run.run_dir)
        table.insert(0, "recipe", run.recipe)
        table.insert(1, "method", run.method)
        table.insert(2, "seed", run.seed)
        tables.append(table)
    if not tables:
        raise ValueError("no finished run to read; train first")
    return pd.concat(tables, ignore_index=True)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another "
            "folder and start again, nothing saved before is lost"
        ) from error
