"""``ltlib benchmark ...``: measure the suite against the plain way."""

from pathlib import Path
from typing import Annotated

import typer

from ltlib.cli.options import Device

app = typer.Typer(help="Measure the suite against the plain way.", no_args_is_help=True)

Quick = Annotated[bool, typer.Option("--quick", help="Small sizes, for a look at the table.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers too.")
]


@app.command()
def losses(
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


@app.command()
def train(
    quick: Quick = False,
    steps: Annotated[
        int | None,
        typer.Option(help="Timed steps of each side; a whole epoch by default."),
    ] = None,
    data_root: Annotated[
        Path | None,
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
