"""Commands that train: one run, or what a table lacks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ltlib.cli.options import Changes, DataRoot, Device, RunsDir, parse_changes, parse_seeds


def recipes(pattern: Annotated[str, typer.Argument(help="Part of a name.")] = "") -> None:
    """List the recipes."""
    from ltlib.recipes import RECIPES

    for name in RECIPES:
        if pattern in name:
            typer.echo(name)


def train(
    recipe: Annotated[str, typer.Argument(help="A name from `ltlib recipes`.")],
    seed: Annotated[int, typer.Option(help="Initialisation, order and augmentation.")] = 0,
    changes: Changes = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    num_processes: Annotated[int, typer.Option(help="More than one starts torchrun.")] = 1,
    device: Device = None,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    num_workers: Annotated[int | None, typer.Option(help="Processes that augment.")] = None,
    views: Annotated[
        str | None,
        typer.Option(help="batched, on the device, where possible; or pil, the reference."),
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile; where it pays by default."),
    ] = None,
    download: Annotated[bool, typer.Option(help="Download a missing CIFAR data set.")] = False,
) -> None:
    """Train one recipe, or resume it; the last line printed is the run's folder."""
    from ltlib.config import override
    from ltlib.recipes import get_recipe
    from ltlib.runs import open_run

    config = override(get_recipe(recipe), parse_changes(changes) | {"seed": seed})
    run_dir = open_run(config, recipe, runs_dir)
    options: dict[str, Any] = {"device": device, "precision": precision, "num_workers": num_workers}
    options |= {"views": views, "compiled": compiled}
    if num_processes > 1:
        from ltlib.reproduce import launch

        launch(run_dir, num_processes, data_root=data_root, download=download, **options)
        typer.echo(run_dir)
        return
    from ltlib.distributed import is_main, process_group
    from ltlib.trainer import train as train_run

    with process_group():
        train_run(config, run_dir, data_root=data_root, download=download, **options)
        if is_main():
            typer.echo(run_dir)


def reproduce(
    table: str,
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2",
    preset: Annotated[str, typer.Option(help="paper or smoke.")] = "paper",
    changes: Changes = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    num_processes: Annotated[int, typer.Option(help="Processes of each training.")] = 1,
    submit: Annotated[
        str | None,
        typer.Option(metavar="slurm|local", help="Submit the missing runs as jobs and return."),
    ] = None,
    job_settings: Annotated[
        list[str] | None,
        typer.Option("--job", metavar="KEY=VALUE", help="Of submitit, e.g. slurm_partition=gpu."),
    ] = None,
) -> None:
    """Train what a table still lacks and print it beside the paper."""
    from ltlib.reproduce import compare, missing_runs
    from ltlib.reproduce import reproduce as reproduce_table

    wanted: dict[str, Any] = {
        "seeds": parse_seeds(seeds),
        "preset": preset,
        "overrides": parse_changes(changes),
        "runs_dir": runs_dir,
    }
    training: dict[str, Any] = {"data_root": data_root, "num_processes": num_processes}
    if submit:
        from ltlib.submit import submit as submit_runs

        run_dirs = missing_runs(table, **wanted)
        settings = parse_changes(job_settings, "--job")
        logs_dir = runs_dir / "jobs"
        jobs = submit_runs(run_dirs, submit, settings=settings, logs_dir=logs_dir, **training)
        for job, run_dir in zip(jobs, run_dirs, strict=True):
            typer.echo(f"job {job.job_id}: {run_dir}")
        return
    runs = reproduce_table(table, **wanted, **training)
    typer.echo(compare(table, runs).to_string(index=False, na_rep="", float_format="%.2f"))


def slurm() -> None:
    """Print a script that trains one run on several machines under SLURM, to copy and adapt."""
    from importlib.resources import files

    typer.echo(files("ltlib").joinpath("templates/slurm.sbatch").read_text(), nl=False)
