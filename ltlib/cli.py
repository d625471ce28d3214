"""The ``ltlib`` command: each sub-command is a thin call into the package."""

import logging
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

app = typer.Typer(
    help="Reproducible long-tailed visual recognition.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Check and pack data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
benchmark_app = typer.Typer(help="Measure the suite against the plain way.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")

DataRoot = Annotated[
    Optional[Path], typer.Option(help="Folder searched first for the data set.")  # noqa: UP045
]
RunsDir = Annotated[Path, typer.Option(help="Folder of all runs.")]
Changes = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. optim.epochs=2."),
]

Quick = Annotated[bool, typer.Option("--quick", help="Small sizes, for a look at the table.")]
Device = Annotated[Optional[str], typer.Option(help="cpu, cuda or cuda:N.")]  # noqa: UP045
JsonFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--json", metavar="FILE", help="Write the numbers too."),
]


@app.command()
def doctor(data_root: DataRoot = None, runs_dir: RunsDir = Path("runs")) -> None:
    """Check versions, machine, disk and data sets; each line says OK, WARN or FAIL and the fix."""
    from ltlib.doctor import examine

    findings = examine(data_root, runs_dir)
    for finding in findings:
        typer.echo(finding)
    if any(finding.level == "FAIL" for finding in findings):
        raise typer.Exit(1)


@data_app.command("check")
def data_check(
    name: str,
    data_root: DataRoot = None,
    imbalance_factor: Annotated[float, typer.Option(help="Length of the tail, >= 1.")] = 1.0,
    decode: Annotated[bool, typer.Option(help="Decode every image, or only look for it.")] = True,
    manifest: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Where the findings go; by default beside the data."),
    ] = None,
) -> None:
    """Find a data set, count its images, name the missing and damaged; exit 1 if there are any."""
    from ltlib.config import DataConfig
    from ltlib.data import check_dataset, is_writable, manifest_of
    from ltlib.runs import write_json

    config = DataConfig(dataset=name, imbalance_factor=imbalance_factor)
    reports, folder = check_dataset(config, data_root, decode=decode)
    for report in reports:
        typer.echo(f"{name} {report}")
    if manifest is None and is_writable(folder):
        manifest = folder / f"{name}-manifest.json"
    if manifest:
        write_json(manifest, manifest_of(name, reports))
        typer.echo(f"manifest: {manifest}")
    if not all(report.is_good for report in reports):
        raise typer.Exit(1)


@data_app.command("pack")
def data_pack(
    name: str,
    data_root: DataRoot = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FOLDER", help="Of the packs; by default beside the data."),
    ] = None,
) -> None:
    """Copy the files of each split into one that is mapped into memory, for slow disks."""
    from ltlib.data import pack_dataset

    for path in pack_dataset(name, data_root, output):
        typer.echo(path)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name from `ltlib recipes`.")],
    seed: Annotated[int, typer.Option(help="Initialisation, order and augmentation.")] = 0,
    changes: Changes = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    num_processes: Annotated[int, typer.Option(help="More than one starts torchrun.")] = 1,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda or cuda:N.")] = None,  # noqa: UP045
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    num_workers: Annotated[Optional[int], typer.Option(help="Processes that augment.")] = None,  # noqa: UP045
    views: Annotated[
        str, typer.Option(help="batched on the device where possible, or pil, the reference.")
    ] = "batched",
    compiled: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--compile/--no-compile", help="torch.compile; where it pays by default."),
    ] = None,
    download: Annotated[bool, typer.Option(help="Download a missing CIFAR data set.")] = False,
) -> None:
    """Train one recipe, or resume it; the last line printed is the run's folder."""
    from ltlib.config import override
    from ltlib.recipes import get_recipe
    from ltlib.runs import open_run

    config = override(get_recipe(recipe), _parse_changes(changes) | {"seed": seed})
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


@app.command()
def recipes(pattern: Annotated[str, typer.Argument(help="Part of a name.")] = "") -> None:
    """List the recipes."""
    from ltlib.recipes import RECIPES

    for name in RECIPES:
        if pattern in name:
            typer.echo(name)


@app.command()
def reproduce(
    table: str,
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2",
    preset: Annotated[str, typer.Option(help="paper or smoke.")] = "paper",
    changes: Changes = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    num_processes: Annotated[int, typer.Option(help="Processes of each training.")] = 1,
    submit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="slurm|local", help="Submit the missing runs as jobs and return."),
    ] = None,
    job_settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--job", metavar="KEY=VALUE", help="Of submitit, e.g. slurm_partition=gpu."),
    ] = None,
) -> None:
    """Train what a table still lacks and print it beside the paper."""
    from ltlib.reproduce import compare, missing_runs
    from ltlib.reproduce import reproduce as reproduce_table

    wanted: dict[str, Any] = {
        "seeds": [int(seed) for seed in seeds.split(",")],
        "preset": preset,
        "overrides": _parse_changes(changes),
        "runs_dir": runs_dir,
    }
    training: dict[str, Any] = {"data_root": data_root, "num_processes": num_processes}
    if submit:
        from ltlib.submit import submit as submit_runs

        run_dirs = missing_runs(table, **wanted)
        settings = _parse_changes(job_settings, "--job")
        logs_dir = runs_dir / "jobs"
        jobs = submit_runs(run_dirs, submit, settings=settings, logs_dir=logs_dir, **training)
        for job, run_dir in zip(jobs, run_dirs, strict=True):
            typer.echo(f"job {job.job_id}: {run_dir}")
        return
    runs = reproduce_table(table, **wanted, **training)
    typer.echo(compare(table, runs).to_string(index=False, na_rep="", float_format="%.2f"))


@app.command()
def slurm() -> None:
    """Print a script that trains one run on several machines under SLURM, to copy and adapt."""
    from importlib.resources import files

    typer.echo(files("ltlib").joinpath("templates/slurm.sbatch").read_text(), nl=False)


@app.command()
def posthoc(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    tau: Annotated[
        float, typer.Option(min=0, help="Of logit adjustment and tau-normalisation.")
    ] = 1.0,
    curve: Annotated[
        bool, typer.Option(help="Also show tau from 0 to 2; picking the best is cheating.")
    ] = False,
    data_root: DataRoot = None,
    device: Device = None,
) -> None:
    """Put other classifiers on a finished run's features: post-hoc LA, tau-norm, cRT, NCM."""
    from ltlib.posthoc import reclassify

    taus = [step / 4 for step in range(9)] if curve else []
    table = reclassify(run_dir, tau=tau, curve=taus, data_root=data_root, device=device)
    splits = ["all", "many", "medium", "few"]
    table[splits] *= 100
    table = table.rename(columns={split: f"{split} (%)" for split in splits})
    typer.echo(table.to_string(index=False, na_rep="", float_format="%.2f"))


@app.command()
def report(
    notebook: Annotated[Path, typer.Argument(help="An executed notebook.")],
    figures_dir: Annotated[Path, typer.Option(help="Folder of figures and reports.")] = Path(
        "figures"
    ),
) -> None:
    """Render an executed notebook as one self-contained HTML page and list it in the index."""
    from ltlib.report import render

    typer.echo(render(notebook, figures_dir))


@app.command("import")
def import_release(
    file: Annotated[Path, typer.Argument(help="Weights that the authors released.")],
    evaluate: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="DATASET", help="Measure the accuracy on its test images."),
    ] = None,
    imbalance_factor: Annotated[
        float, typer.Option(min=1, help="Of the training images, whose counts make the shots.")
    ] = 1.0,
    data_root: DataRoot = None,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda or cuda:N.")] = None,  # noqa: UP045
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Write FILE.safetensors, and a card FILE.json."),
    ] = None,
) -> None:
    """Read weights of ProCo, BCL, PaCo or GPaCo safely; measure them, or convert them."""
    from ltlib.checkpoints import load_release, save_release

    release = load_release(file)
    typer.echo(release.describe())
    accuracies = {"in the file": release.info["accuracy"]}
    if evaluate:
        from ltlib.config import DataConfig
        from ltlib.trainer import evaluate_release

        config = DataConfig(dataset=evaluate, imbalance_factor=imbalance_factor)
        measured = evaluate_release(release, config, data_root=data_root, device=device)
        accuracies[f"on {evaluate}"] = measured
    for where, accuracy in accuracies.items():
        known = {split: share for split, share in accuracy.items() if not math.isnan(share)}
        shares = ", ".join(f"{split} {100 * share:.2f} %" for split, share in known.items())
        typer.echo(f"accuracy {where}: {shares or 'not said'}")
    if save:
        typer.echo(save_release(release, save))


@app.command()
def results(
    readme: Annotated[Path, typer.Argument(help="A Markdown file with the marks.")] = Path(
        "README.md"
    ),
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write the tables of results from the runs into the README."""
    from ltlib.report import write_results

    write_results(readme, runs_dir)


@benchmark_app.command("losses")
def benchmark_losses_command(
    quick: Quick = False,
    repeats: Annotated[int, typer.Option(help="Timed steps of each side.")] = 5,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Time and peak memory of ProCo, BCL and PaCo, the suite's way and the plain way."""
    from ltlib.benchmark import benchmark_losses

    report = benchmark_losses(quick=quick, repeats=repeats, device=device)
    if json_file:
        report.write(json_file)
    typer.echo(report)


@benchmark_app.command("train")
def benchmark_train_command(
    quick: Quick = False,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Timed steps of each side; a whole epoch by default."),
    ] = None,
    data_root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of CIFAR-100; random images without it."),
    ] = None,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Where a training step of ProCo spends its time, the suite's way and the plain way."""
    from ltlib.benchmark import benchmark_training

    report = benchmark_training(steps=steps, quick=quick, data_root=data_root, device=device)
    if json_file:
        report.write(json_file)
    typer.echo(report)


@benchmark_app.command("scaling")
def benchmark_scaling_command(
    quick: Quick = False,
    repeats: Annotated[int, typer.Option(help="Timed steps of each size.")] = 10,
    figures_dir: Annotated[Path, typer.Option(help="Folder of figures.")] = Path("figures"),
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Time and memory against batch, processes and classes; the last line printed is a figure."""
    from ltlib.benchmark import benchmark_scaling
    from ltlib.benchmark.scaling_figure import save_scaling
    from ltlib.plots import set_style

    report = benchmark_scaling(quick=quick, repeats=repeats, device=device)
    if json_file:
        report.write(json_file)
    typer.echo(report)
    set_style()
    watermark = "small sizes, for a look, not a result" if quick else None
    typer.echo(save_scaling(report, figures_dir / "benchmark", watermark=watermark).path)


def main() -> None:
    """Run the command; what a user can mend ends in one sentence, not in a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except Exception as error:
        from ltlib.runs import RunError  # pandas takes half a second, which --help should not

        if not isinstance(error, ValueError | OSError | RunError):
            raise
        if type(error).__name__ != "OtherProcessError":  # of one run, one process speaks
            typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _parse_changes(changes: list[str] | None, option: str = "--set") -> dict[str, object]:
    pairs = [change.partition("=") for change in changes or []]
    for key, sign, _ in pairs:
        if not sign:
            raise ValueError(f"{option} takes key=value, got {key!r}")
    return {key: value for key, _, value in pairs}


if __name__ == "__main__":
    main()
