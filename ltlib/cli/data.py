"""``ltlib data ...``: check and pack data sets."""

from pathlib import Path
from typing import Annotated

import typer

from ltlib.cli.options import DataRoot

app = typer.Typer(help="Check and pack data sets.", no_args_is_help=True)


@app.command()
def check(
    name: str,
    data_root: DataRoot = None,
    imbalance_factor: Annotated[float, typer.Option(help="Length of the tail, >= 1.")] = 1.0,
    decode: Annotated[bool, typer.Option(help="Decode every image, or only look for it.")] = True,
    manifest: Annotated[
        Path | None,
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


@app.command()
def pack(
    name: str,
    data_root: DataRoot = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of the packs; by default beside the data."),
    ] = None,
) -> None:
    """Copy the files of each split into one that is mapped into memory, for slow disks."""
    from ltlib.data import pack_dataset

    for path in pack_dataset(name, data_root, output):
        typer.echo(path)
