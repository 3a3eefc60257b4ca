"""The command ``graphcast-batch`` itself: what all its commands share, and how errors are told."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape
from rich.progress import track
from rich.text import Text
from typer.core import TyperGroup

from graphcast_batch.bench.commands import bench
from graphcast_batch.cli.streams import unfailing
from graphcast_batch.credentials import scrubbed
from graphcast_batch.errors import ConfigError, FigureError, GraphcastBatchError, TaskError
from graphcast_batch.screen import Screen
from graphcast_batch.text import is_plain

if TYPE_CHECKING:
    from graphcast_batch.terminal import Level

NAME: Final = "graphcast-batch"
FORECASTS, SCORES, CLUSTER, SOURCES, MEASURE = PANELS = (
    *("Forecasts", "Scores and pictures", "Cluster", "Data and weights", "Measure"),
)
"""Groups of commands in the help."""
_FIRST: Final = ("init", "plan", "run")
"""Commands that a newcomer needs, in this order."""
_PRINTING: Final = ("plan", "status", "compare", "schema")
"""Commands whose whole result is what they print."""
_PRINTING_OPTIONS: Final = frozenset({"--dry-run", "--help", "-h", "--version"})
"""Options that make others such."""
_MOST_LINES: Final = 24
"""Of an error, so that it fits on a screen."""


@dataclass
class Manner:
    """How much is said, for as long as a command lasts.

    Attributes:
        level: of progress.
        debug: whether errors come with their traceback.
    """

    level: "Level" = "normal"
    debug: bool = False


class _Commands(TyperGroup):
    """Lists what is needed first before the rest."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer keeps the type to itself
        return sorted(super().list_commands(ctx), key=self._place)

    def _place(self, name: str) -> tuple[int, int]:
        panel = getattr(self.commands[name], "rich_help_panel", None)
        return (
            PANELS.index(panel) if panel in PANELS else len(PANELS),
            _FIRST.index(name) if name in _FIRST else len(_FIRST),
        )


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(["[bold]Examples[/]", *(f"[cyan]{escape(line)}[/]" for line in lines)])


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(f"{NAME} init first.yaml", f"{NAME} plan first.yaml", f"{NAME} run first.yaml"),
)
archive = typer.Typer(help="Archives to run from.", no_args_is_help=True)
app.add_typer(archive, name="archive", rich_help_panel=SOURCES, epilog=examples(f"{NAME} archive synthetic --help"))
app.add_typer(bench, name="bench", rich_help_panel=MEASURE, epilog=examples(f"{NAME} bench io --folder /scratch"))
manner = Manner()
console = Screen(width=None if sys.stdout and sys.stdout.isatty() else 140)  # a log has room for tables
errors = Screen(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="YAML file of the run.", metavar="CONFIG")]
StorePath = Annotated[Path, typer.Argument(help="Folder of a store.", metavar="STORE")]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="Ray cluster to use; without it Ray is started on this machine."),
]


class Exit:
    """Exit codes; `MISTAKE` is EX_SOFTWARE of sysexits.h."""

    COULD_NOT_RUN, USAGE, SOME_FAILED, MISTAKE, INTERRUPTED = 1, 2, 3, 70, 130


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(NAME, version_of(NAME))
        raise typer.Exit


@app.callback()
def general(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what goes wrong, and how it ended.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say also what each Case is at.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="GRAPHCAST_BATCH_DEBUG", help="Show errors with their traceback.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Many GraphCast forecasts from many initial times, into one zarr store."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    manner.level = "quiet" if quiet else "verbose" if verbose else "normal"
    manner.debug = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; errors are told in a few lines, without a traceback unless it is asked for."""
    words = sys.argv[1:] if arguments is None else arguments
    with unfailing() as (printed, _):
        code = _ended(words)
        printed.flush()
        if printed.is_broken:
            warn(f"what was printed is not all there, as standard output cannot be written: {printed.lost}")
            # Of other commands the result is elsewhere, and the code tells of that.
            code = Exit.COULD_NOT_RUN if code == 0 and _only_prints(words) else code
    sys.exit(code)


def _ended(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        _check_working_directory()
        app(_general_first(words), prog_name=NAME)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else Exit.COULD_NOT_RUN
    except (ConfigError, FigureError, TaskError) as error:
        tell(error)
        return Exit.USAGE
    except KeyboardInterrupt:
        warn("interrupted: what was under way is dropped, and what was made before is kept; run it again to go on")
        return Exit.INTERRUPTED
    except (GraphcastBatchError, OSError) as error:
        tell(error)
        return Exit.COULD_NOT_RUN
    except Exception as error:
        _tell_mistake(error)
        return Exit.MISTAKE
    return 0


def _only_prints(words: Sequence[str]) -> bool:
    command = next((word for word in words if not word.startswith("-")), "")
    return command in _PRINTING or not _PRINTING_OPTIONS.isdisjoint(words) or list(words[:2]) == ["fetch", "list"]


def _check_working_directory() -> None:
    """Refuses one in which hardly anything works, Ray least of all."""
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("the working directory must be there, but was removed; change to another") from error
    if not is_plain(here):
        raise ConfigError(
            "the path of the working directory must be UTF-8 without control characters, but is "
            f"{here!r}; rename it, or change to another"
        )


def _general_first(words: Sequence[str]) -> list[str]:
    """With the options of the whole command in front: they may also stand behind the subcommand.

    What follows ``--`` is for another program.
    """
    ours = words[: words.index("--")] if "--" in words else words
    general = [word for word in ours if word in ("--quiet", "-q", "--verbose", "-v", "--debug")]
    return [*general, *(word for word in ours if word not in general), *words[len(ours) :]]


def say(text: str | Text) -> None:
    """Prints a line as it is, however long it is."""
    console.print(text, highlight=False, soft_wrap=True)


def remark(text: str | Text) -> None:
    """Prints a line that tells how far something is, unless nobody wants to know."""
    if manner.level != "quiet":
        say(text)


def tracked(results: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    """The same results, with a bar on a terminal that shows how many have come."""
    shown = console.is_interactive and manner.level != "quiet"
    yield from track(results, escape(what), total=total, console=console, disable=not shown, transient=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says on a terminal what takes a while, for as long as the block lasts."""
    if console.is_interactive and manner.level != "quiet":
        with console.status(Text(what)):
            yield
    else:
        yield


def warn(text: str) -> None:
    """Says what a person should know, and goes on."""
    errors.print(Text(text, "yellow"), soft_wrap=True)


def tell(error: BaseException) -> None:
    """Says what went wrong, on a screen at most."""
    lines = scrubbed(f"{type(error).__name__}: {error}").splitlines()
    if manner.debug:
        lines = scrubbed("".join(traceback.format_exception(error))).splitlines()
    elif len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"... and {len(lines) - _MOST_LINES} more lines, with --debug"]
    errors.print(Text("\n".join(lines), "red"), soft_wrap=True)


def _tell_mistake(error: Exception) -> None:
    """Says that the fault is ours, and keeps the traceback for whoever mends it."""
    if manner.debug:
        tell(error)
        return
    frame = traceback.extract_tb(error.__traceback__)[-1]
    try:
        rest = f"The traceback is in {_kept_traceback(error)}: please report it with what you did."
    except (OSError, RuntimeError):
        rest = "Run it again with --debug to see the traceback, and please report it with what you did."
    tell(error)
    errors.print(
        Text(f"This is a mistake in {NAME}, at {Path(frame.filename).name}:{frame.lineno}. {rest}"), soft_wrap=True
    )


def _kept_traceback(error: Exception) -> Path:
    """A new file in the user's state folder (XDG Base Directory Specification 0.8)."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    folder = (given if given.is_absolute() else Path.home() / ".local" / "state") / NAME
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    text = f"{NAME} {version_of(NAME)}: {' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    path.write_text(scrubbed(text), encoding="utf-8", errors="backslashreplace")
    return path
