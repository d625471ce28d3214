"""Commands that look: at the machine, at finished runs, and at the authors' weights."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ltlib.cli.options import DataRoot, Device, FiguresDir, RunsDir


def doctor(data_root: DataRoot = None, runs_dir: RunsDir = Path("runs")) -> None:
    """Check versions, machine, disk and data sets; each line says OK, WARN or FAIL and the fix."""
    from ltlib.doctor import examine

    findings = examine(data_root, runs_dir)
    for finding in findings:
        typer.echo(finding)
    if any(finding.level == "FAIL" for finding in findings):
        raise typer.Exit(1)


def report(
    notebook: Annotated[Path, typer.Argument(help="An executed notebook.")],
    figures_dir: FiguresDir = Path("figures"),
) -> None:
    """Render an executed notebook as one self-contained HTML page and list it in the index."""
    from ltlib.report import render

    typer.echo(render(notebook, figures_dir))


def results(
    readme: Annotated[Path, typer.Argument(help="A Markdown file with the marks.")] = Path(
        "README.md"
    ),
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write the tables of results from the runs into the README."""
    from ltlib.report import write_results

    write_results(readme, runs_dir)


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


def import_release(
    file: Annotated[Path, typer.Argument(help="Weights that the authors released.")],
    evaluate: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Measure the accuracy on its test images."),
    ] = None,
    imbalance_factor: Annotated[
        float, typer.Option(min=1, help="Of the training images, whose counts make the shots.")
    ] = 1.0,
    data_root: DataRoot = None,
    device: Device = None,
    save: Annotated[
        Path | None,
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
