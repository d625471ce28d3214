"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

DataRoot = Annotated[Path | None, typer.Option(help="Folder searched first for the data set.")]
RunsDir = Annotated[Path, typer.Option(help="Folder of all runs.")]
FiguresDir = Annotated[Path, typer.Option(help="Folder of figures and reports.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. optim.epochs=2."),
]


def parse_changes(changes: list[str] | None, option: str = "--set") -> dict[str, object]:
    """Split ``key=value`` pairs.

    Args:
        changes: Each "key=value".
        option: That the user gave them to.

    Raises:
        ValueError: If one has no "=".
    """
    pairs = [change.partition("=") for change in changes or []]
    for key, sign, _ in pairs:
        if not sign:
            raise ValueError(f"{option} takes key=value, got {key!r}")
    return {key: value for key, _, value in pairs}


def parse_seeds(seeds: str) -> list[int]:
    """Split numbers at commas.

    Raises:
        ValueError: If one is no number.
    """
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(f"--seeds takes numbers such as 0,1,2, got {seeds!r}") from None
