"""``ltlib benchmark ...``: measure the suite against the plain way."""

from pathlib import Path
from typing import Annotated

import typer

from ltlib.cli.options import Device, FiguresDir

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


@app.command()
def scaling(
    quick: Quick = False,
    repeats: Annotated[int, typer.Option(help="Timed steps of each size.")] = 10,
    figures_dir: FiguresDir = Path("figures"),
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
