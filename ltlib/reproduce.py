"""Run what a table still lacks, and compare with the paper.

A run counts for a table only if its config equals the recipe's, seed aside; anything else is
shown and marked as not comparable.
"""

import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd

from ltlib.config import ExperimentConfig, flatten, override
from ltlib.recipes import Row, get_recipe, get_table, published_row, smoke
from ltlib.runs import (
    RunError,
    is_finished,
    load_runs,
    lock_run,
    open_run,
    read_config,
    read_json,
    write_status,
)

SMOKE = "-smoke"
"""Marks the recipe folders of smoke runs, which prove the code and are no results."""

_SECONDS_TO_SAVE = 60  # till torchrun kills processes that were asked to stop


def plan(
    table: str, *, preset: str = "paper", overrides: Mapping[str, object] | None = None
) -> dict[str, ExperimentConfig]:
    """List what a table runs, as recipe name to experiment, before anything expensive starts.

    Args:
        table: A key of ``TABLES``.
        preset: "paper", the recipes as published; "smoke", the same methods in seconds on digits.
        overrides: See ``config.override``; applied to every row.

    Raises:
        ValueError: If the table, the preset or an override is wrong.
    """
    if preset not in ("paper", "smoke"):
        raise ValueError(f"preset must be 'paper' or 'smoke', got {preset!r}")
    experiments = {}
    for row in get_table(table).rows:
        name, config = row.recipe, get_recipe(row.recipe)
        if preset == "smoke":
            name, config = f"{name}{SMOKE}", smoke(config)
        experiments[name] = override(config, overrides or {})
    return experiments


def reproduce(
    table: str,
    *,
    seeds: Iterable[int] = (0, 1, 2),
    preset: str = "paper",
    overrides: Mapping[str, object] | None = None,
    data_root: Path | str | None = None,
    runs_dir: Path | str = "runs",
    num_processes: int = 1,
    num_jobs: int = 1,
) -> pd.DataFrame:
    """Train what a table still lacks and return its runs; finished runs are only read.

    Args:
        table: A key of ``TABLES``.
        seeds: Training seeds of every row.
        preset: "paper" or "smoke", see ``plan``.
        overrides: See ``config.override``.
        data_root: Folder searched first for the data set.
        runs_dir: Folder of all runs.
        num_processes: Processes of each training; more than one starts torchrun.
        num_jobs: Runs trained at the same time, each with its share of the CPU's cores. Small
            networks gain more from it than from more cores each.

    Returns:
        The table's runs of these configs and seeds, as ``runs.load_runs`` gives them.

    Raises:
        ValueError: If the table, the preset or an override is wrong, before any training.
    """
    experiments = plan(table, preset=preset, overrides=overrides)
    folders = _open_runs(experiments, seeds, runs_dir)
    missing = _missing(folders)
    train_one = partial(train_run, data_root=data_root, num_processes=num_processes)
    if num_jobs == 1 or len(missing) < 2:
        for run_dir in missing:
            train_one(run_dir)
    else:
        context = multiprocessing.get_context("spawn")  # a forked child cannot use torch's threads
        with ProcessPoolExecutor(num_jobs, context, _start_job, (num_jobs,)) as jobs:
            for _ in jobs.map(train_one, missing):
                pass
    runs = load_runs(runs_dir, list(experiments))
    return runs[runs["run_dir"].isin(folders)].reset_index(drop=True)


def missing_runs(
    table: str,
    *,
    seeds: Iterable[int] = (0, 1, 2),
    preset: str = "paper",
    overrides: Mapping[str, object] | None = None,
    runs_dir: Path | str = "runs",
) -> list[Path]:
    """List the folders of the runs that ``reproduce`` would train; arguments as there."""
    experiments = plan(table, preset=preset, overrides=overrides)
    return _missing(_open_runs(experiments, seeds, runs_dir))


def train_run(run_dir: Path, data_root: Path | str | None, num_processes: int) -> None:
    """Train the run of a folder on this machine, in this process or under torchrun."""
    if num_processes > 1:
        launch(run_dir, num_processes, data_root=data_root)
    else:
        from ltlib.trainer import train  # torch takes seconds to import; reading runs needs none

        train(read_config(run_dir), run_dir, data_root=data_root)


def _open_runs(
    experiments: Mapping[str, ExperimentConfig], seeds: Iterable[int], runs_dir: Path | str
) -> list[Path]:
    return [
        open_run(override(config, {"seed": seed}), recipe, runs_dir)
        for seed in seeds
        for recipe, config in experiments.items()
    ]


def _missing(folders: list[Path]) -> list[Path]:
    return [run_dir for run_dir in folders if not is_finished(run_dir)]


def _start_job(num_jobs: int) -> None:
    import torch

    from ltlib.distributed import end_with_parent

    end_with_parent()
    torch.set_num_threads(max(1, torch.get_num_threads() // num_jobs))
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def launch(run_dir: Path, num_processes: int, **options: object) -> None:
    """Train a run under torchrun on this machine.

    Args:
        run_dir: From ``runs.open_run``.
        num_processes: Processes that share each batch.
        options: Keyword arguments of ``trainer.train``; None is left out.

    Raises:
        Stopped: If a signal arrived here; the run resumes when started again.
        RunError: If the run does not finish.
    """
    from ltlib.trainer.signals import Stopped, stop_signals

    if is_finished(run_dir):
        return
    with lock_run(run_dir):  # if another process trains it, this says so
        write_status(run_dir, "running")
    signals = "SIGTERM,SIGINT,SIGUSR1,SIGUSR2"
    command = [sys.executable, "-m", "ltlib.distributed", "--standalone"]
    command += [f"--signals-to-handle={signals}", f"--shutdown-timeout={_SECONDS_TO_SAVE}"]
    command += [f"--nproc-per-node={num_processes}", "-m", "ltlib.trainer"]
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            command += [f"--{flag}", str(value)]
    command.append(str(run_dir))
    threads = max(1, len(os.sched_getaffinity(0)) // num_processes)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    # In a session of its own: what a terminal sends to all reaches it once, from here.
    torchrun = subprocess.Popen(command, env=environment, start_new_session=True)
    with stop_signals(torchrun.send_signal) as stop:
        torchrun.wait()
    # torchrun's exit code is 1 even after a clean stop; the run's own word counts.
    if not is_finished(run_dir):
        status = read_json(run_dir / "status.json")
        why = status.get("why", "its processes ended without a word; start it again to resume")
        if stop.is_set() and status.get("state") == "preempted":
            raise Stopped(f"{run_dir}: {why}", stop.number)
        raise RunError(f"{run_dir}: {why}")


def compare(table: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Put the table's published numbers beside ours.

    Args:
        table: A key of ``TABLES``.
        runs: Runs from ``reproduce`` or ``load_runs``, finished or not.

    Returns:
        One row per recipe, and one per smoke or changed config among its runs: recipe, changed
        (the fields that differ from the recipe), paper (%) with its source and confidence, ours
        (%) with std and n at the last epoch, best on test (%), difference (points), machine (with
        precision), comparable.
        Cells of what was not run are empty.
    """
    lines = []
    for row in get_table(table).rows:
        ours = runs[runs["recipe"].isin([row.recipe, row.recipe + SMOKE])]
        by_change = _group_by_change(row.recipe, ours[ours["state"] == "finished"])
        if not by_change or "" in by_change:
            lines.append(_published(row) | _measured(by_change.pop("", None)))
        for change, group in by_change.items():
            name = {"recipe": group["recipe"].iloc[0], "changed": change}
            lines.append(name | _measured(group) | {"comparable": False})
    columns = ["recipe", "changed", "paper (%)", "source", "confidence", "ours (%)", "std", "n"]
    columns += ["best on test (%)", "difference", "machine", "comparable"]
    compared = pd.DataFrame(lines, columns=columns)
    reproduced = compared["comparable"] == True  # noqa: E712 (None is neither)
    compared["difference"] = (compared["ours (%)"] - compared["paper (%)"]).where(reproduced)
    return compared


def describe_recipes(table: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the settings in which a table's recipes differ from the default experiment, as text.

    Returns:
        The settings that all rows share (setting, value), and one row per recipe with those that
        they do not; empty where a method lacks the setting.
    """
    base = flatten(ExperimentConfig())
    recipes = {row.recipe: flatten(get_recipe(row.recipe)) for row in get_table(table).rows}
    settings = pd.DataFrame({name: pd.Series(values) for name, values in recipes.items()})
    settings = settings.reindex(list(dict.fromkeys(n for r in recipes.values() for n in r)))
    texts = settings.map(_text)
    shared = texts.nunique(axis=1) == 1
    changed = texts.iloc[:, 0] != pd.Series({name: _text(base.get(name)) for name in texts.index})
    common = texts[shared & changed].iloc[:, 0].rename_axis("setting").rename("value")
    return common.reset_index(), texts[~shared].T.rename_axis("recipe").reset_index()


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None or value != value else str(value)  # NaN is not equal to itself


def _group_by_change(recipe: str, runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Group a recipe's runs by the fields that differ from it; the recipe's own are under ""."""
    wanted = flatten(get_recipe(recipe))
    changes = []
    for run in runs.itertuples():
        config = flatten(read_config(run.run_dir)) | {"seed": wanted["seed"]}
        if run.recipe != recipe:
            changes.append("smoke")
        else:
            changed = [name for name, value in config.items() if value != wanted.get(name)]
            changes.append(", ".join(f"{name} = {_text(config[name])}" for name in changed))
    return dict(iter(runs.groupby(pd.Series(changes, index=runs.index, dtype=str), sort=False)))


def _published(row: Row) -> dict[str, object]:
    published = published_row(row)
    line: dict[str, object] = {"recipe": row.recipe, "changed": ""}
    if published is not None:
        line |= {"paper (%)": published["value"]}
        line |= {name: published[name] for name in ("source", "confidence")}
    return line


def _measured(runs: pd.DataFrame | None) -> dict[str, object]:
    if runs is None:
        return {"n": 0}
    last = 100 * runs["all"]
    machines = [read_json(run_dir / "provenance.json") for run_dir in runs["run_dir"]]
    return {
        "ours (%)": last.mean(),
        "std": last.std(ddof=1),  # NaN, an empty cell, for a single run
        "n": len(last),
        "best on test (%)": 100 * runs["best_all"].mean(),
        "machine": "; ".join(
            dict.fromkeys(f"{m['device']}, {m['precision']}" for m in machines if m)
        ),
        "comparable": True,
    }
