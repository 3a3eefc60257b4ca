"""The command ``graphcast-batch`` itself: what all its commands share, and how errors of ours are told."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.text import Text

from graphcast_batch.bench.command import bench
from graphcast_batch.errors import ConfigError, FigureError, GraphcastBatchError, TaskError

app = typer.Typer(
    help="Many GraphCast forecasts from many initial times, into one zarr store.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
archive = typer.Typer(help="Archives to run from.", no_args_is_help=True)
app.add_typer(archive, name="archive")
app.add_typer(bench, name="bench")
console = Console(width=None if sys.stdout.isatty() else 140)  # a log has room for tables
errors = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="YAML file of the run.", metavar="CONFIG")]
StorePath = Annotated[Path, typer.Argument(help="Folder of a store.", metavar="STORE")]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="Ray cluster to use; without it Ray is started on this machine."),
]


class Exit:
    """Exit codes."""

    COULD_NOT_RUN, USAGE, SOME_FAILED, INTERRUPTED = 1, 2, 3, 130


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; errors of ours are told in a few lines, without a traceback."""
    try:
        app(arguments)
    except (ConfigError, FigureError, TaskError) as error:
        tell(error)
        sys.exit(Exit.USAGE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except GraphcastBatchError as error:
        tell(error)
        sys.exit(Exit.COULD_NOT_RUN)


def say(text: str | Text) -> None:
    """Prints a line as it is, however long it is."""
    console.print(text, highlight=False, soft_wrap=True)


def tracked(results: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    """The same results, with a bar on a terminal that shows how many have come."""
    shown = track(results, what, total=total, console=console, disable=not console.is_terminal, transient=True)
    yield from shown


def warn(text: str) -> None:
    """Says what a person should know, and goes on."""
    errors.print(Text(text, "yellow"), soft_wrap=True)


def tell(error: BaseException) -> None:
    """Says what went wrong."""
    errors.print(Text(f"{type(error).__name__}: {error}", "red"), soft_wrap=True)
