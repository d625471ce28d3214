"""The ``ltlib`` command: each sub-command is a thin call into the package.

Torch is imported by the commands that compute, so that ``ltlib --help`` answers at once.
"""

import logging
import sys

import typer

from ltlib.cli import benchmark, data, reports, training

app = typer.Typer(
    help="Reproducible long-tailed visual recognition.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(reports.doctor)
app.add_typer(data.app, name="data")
app.command()(training.recipes)
app.command()(training.train)
app.command()(training.reproduce)
app.command()(training.slurm)
app.command()(reports.report)
app.command()(reports.results)
app.command()(reports.posthoc)
app.command("import")(reports.import_release)
app.add_typer(benchmark.app, name="benchmark")


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
