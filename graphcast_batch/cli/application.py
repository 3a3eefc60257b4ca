"""Define the command ``graphcast-batch``: what its subcommands share, and how it prints and reports errors."""

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.markup import escape
from rich.text import Text
from typer.core import TyperGroup

from graphcast_batch.bench.commands import bench
from graphcast_batch.cli.streams import unfailing
from graphcast_batch.credentials import scrubbed
from graphcast_batch.errors import ConfigError, FigureError, GraphcastBatchError, TaskError
from graphcast_batch.screen import Screen
from graphcast_batch.text import is_plain

NAME: Final = "graphcast-batch"
FORECASTS, SCORES, CLUSTER, SOURCES, MEASURE = PANELS = (
    *("Forecasts", "Scores and pictures", "Cluster", "Data and weights", "Measure"),
)
"""Groups of commands in the help, in their order."""
_FIRST: Final = ("demo", "init", "plan", "run")
"""Commands that a new user needs first, in this order."""
_PRINTING: Final = ("plan", "status", "compare", "schema")
"""Commands whose only result is what they print."""
_PRINTING_OPTIONS: Final = frozenset({"--dry-run", "--help", "-h", "--version"})
"""Options with which any command only prints."""
_MOST_LINES: Final = 24
"""Most lines of an error that are printed, so that it fits on a screen."""


@dataclass
class Verbosity:
    """How much the current command prints.

    Attributes:
        level: how much of the progress is shown.
        debug: whether errors are printed with their traceback.
    """

    level: Literal["quiet", "normal", "verbose"] = "normal"
    debug: bool = False


class _Commands(TyperGroup):
    """Lists the commands that a new user needs before the others."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer keeps the type to itself
        return sorted(super().list_commands(ctx), key=self._place)

    def _place(self, name: str) -> tuple[int, int]:
        panel = getattr(self.commands[name], "rich_help_panel", None)
        return (
            PANELS.index(panel) if panel in PANELS else len(PANELS),
            _FIRST.index(name) if name in _FIRST else len(_FIRST),
        )


def examples(*lines: str) -> str:
    """Return the examples that end the help of a command."""
    return "\n\n".join(["[bold]Examples[/]", *(f"[cyan]{escape(line)}[/]" for line in lines)])


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(f"{NAME} init first.yaml", f"{NAME} plan first.yaml", f"{NAME} run first.yaml"),
)
archive = typer.Typer(help="Write archives that runs can start from.", no_args_is_help=True)
app.add_typer(archive, name="archive", rich_help_panel=SOURCES, epilog=examples(f"{NAME} archive synthetic --help"))
app.add_typer(bench, name="bench", rich_help_panel=MEASURE, epilog=examples(f"{NAME} bench io --folder /scratch"))
verbosity = Verbosity()
console = Screen(width=None if sys.stdout and sys.stdout.isatty() else 140)  # a log has room for tables
errors = Screen(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="Path of the YAML file that describes the run.", metavar="CONFIG")]
StorePath = Annotated[Path, typer.Argument(help="Folder of the store that a run has written.", metavar="STORE")]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        metavar="HOST:PORT",
        help="Address of the Ray cluster to use. Default: Ray is started on this machine.",
    ),
]


class Exit:
    """Exit codes; `INTERNAL_ERROR` is EX_SOFTWARE of sysexits.h."""

    COULD_NOT_RUN, USAGE, SOME_FAILED, INTERNAL_ERROR, INTERRUPTED = 1, 2, 3, 70, 130


def _print_version(wanted: bool) -> None:
    if wanted:
        print(NAME, version_of(NAME))
        raise typer.Exit


@app.callback()
def general(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only problems and the result.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print also each stage that each Case enters.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="GRAPHCAST_BATCH_DEBUG", help="Print errors with their traceback.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Make many GraphCast forecasts from many initial times in one zarr store, and score them."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose contradict each other; leave one of them out")
    verbosity.level = "quiet" if quiet else "verbose" if verbose else "normal"
    verbosity.debug = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; errors are printed in a few lines, without a traceback unless asked for.

    Args:
        arguments: of the command line; without them those of this process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    with unfailing() as (printed, _):
        code = _exit_code(words)
        printed.flush()
        if printed.is_broken:
            print_warning(f"part of the output is lost, because standard output cannot be written: {printed.lost}")
            # The result of other commands is elsewhere, and the code is about that result.
            code = Exit.COULD_NOT_RUN if code == 0 and _only_prints(words) else code
    sys.exit(code)


def _exit_code(words: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    try:
        _check_working_directory()
        app(_general_first(words), prog_name=NAME)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else Exit.COULD_NOT_RUN
    except (ConfigError, FigureError, TaskError) as error:
        report_error(error)
        return Exit.USAGE
    except KeyboardInterrupt:
        print_warning(
            "interrupted: work in progress is lost, complete work is kept; run the same command again to go on"
        )
        return Exit.INTERRUPTED
    except (GraphcastBatchError, OSError) as error:
        report_error(error)
        return Exit.COULD_NOT_RUN
    except Exception as error:
        _report_internal_error(error)
        return Exit.INTERNAL_ERROR
    return 0


def _only_prints(words: Sequence[str]) -> bool:
    command = next((word for word in words if not word.startswith("-")), "")
    return command in _PRINTING or not _PRINTING_OPTIONS.isdisjoint(words) or list(words[:2]) == ["fetch", "list"]


def _check_working_directory() -> None:
    """Refuse a working directory in which Ray and other parts fail."""
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("the working directory must exist, but was removed; change to another") from error
    if not is_plain(here):
        raise ConfigError(
            "the path of the working directory must be UTF-8 without control characters, but is "
            f"{here!r}; rename it, or change to another"
        )


def _general_first(words: Sequence[str]) -> list[str]:
    """Return the arguments with the general options first, which may also be given behind the subcommand.

    What follows ``--`` is for another program.
    """
    ours = words[: words.index("--")] if "--" in words else words
    general = [word for word in ours if word in ("--quiet", "-q", "--verbose", "-v", "--debug")]
    return [*general, *(word for word in ours if word not in general), *words[len(ours) :]]


def print_line(text: str | Text) -> None:
    """Print a text as it is, without breaking long lines."""
    console.print(text, highlight=False, soft_wrap=True)


def progress() -> Any:  # noqa: ANN401 - TerminalProgress, which help and completion need not import
    """Return what shows the progress of the current command on this terminal, or in this log."""
    from graphcast_batch.terminal import TerminalProgress

    return TerminalProgress(console, errors, verbosity.level)


def print_warning(text: str) -> None:
    """Print what the user should know, on standard error."""
    errors.print(Text(text, "yellow"), soft_wrap=True)


def report_error(error: BaseException) -> None:
    """Print an error on standard error, in no more lines than fit on a screen."""
    lines = scrubbed(f"{type(error).__name__}: {error}").splitlines()
    if verbosity.debug:
        lines = scrubbed("".join(traceback.format_exception(error))).splitlines()
    elif len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"... and {len(lines) - _MOST_LINES} more lines, with --debug"]
    errors.print(Text("\n".join(lines), "red"), soft_wrap=True)


def _report_internal_error(error: Exception) -> None:
    """Print that the program itself is at fault, and keep the traceback for a bug report."""
    if verbosity.debug:
        report_error(error)
        return
    frame = traceback.extract_tb(error.__traceback__)[-1]
    try:
        rest = f"The traceback is in {_saved_traceback(error)}: please report it with the command that you ran."
    except (OSError, RuntimeError):
        rest = "Run the command again with --debug to see the traceback, and please report it with the command."
    report_error(error)
    errors.print(
        Text(f"This is an internal error of {NAME}, at {Path(frame.filename).name}:{frame.lineno}. {rest}"),
        soft_wrap=True,
    )


def _saved_traceback(error: Exception) -> Path:
    """Write the traceback to a new file in the user's state folder (XDG Base Directory Specification 0.8)."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    folder = (given if given.is_absolute() else Path.home() / ".local" / "state") / NAME
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    text = f"{NAME} {version_of(NAME)}: {' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    path.write_text(scrubbed(text), encoding="utf-8", errors="backslashreplace")
    return path
