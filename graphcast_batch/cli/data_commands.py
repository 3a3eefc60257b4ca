"""Commands that make or bring what runs need: archives, statistics, published files, trained weights."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import DownloadColumn, Progress, TaskID

from graphcast_batch.cli.application import (
    SOURCES,
    Address,
    app,
    archive,
    console,
    examples,
    manner,
    remark,
    say,
    tell,
    tracked,
)
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.errors import ConfigError
from graphcast_batch.variables import LEVELS_13, LEVELS_37

if TYPE_CHECKING:
    from graphcast_batch.training.training_folder import TrainingFolder


@archive.command(
    "synthetic",
    epilog=examples("graphcast-batch archive synthetic --out planet.zarr --first 2020-01-01T00 --last 2020-01-31T18"),
)
def archive_synthetic(
    out: Annotated[Path, typer.Option(help="Zarr store to make, such as planet.zarr.")],
    first: Annotated[str, typer.Option(help="First time, such as 2020-01-01T00.")],
    last: Annotated[str, typer.Option(help="Last time.")],
    every_hours: Annotated[int, typer.Option(min=1, help="Hours between times.")] = 6,
    res: Annotated[float, typer.Option(help="Degrees between points, a divisor of 180.")] = 1.0,
    levels: Annotated[str, typer.Option(help="13, 37, or levels in hPa such as 500,850.")] = "13",
    seed: Annotated[int, typer.Option(min=0, help="Of the weather; the climate is the same.")] = 0,
    address: Address = None,
) -> None:
    """Writes weather of the synthetic planet, all of GraphCast's variables but the forcings."""
    import numpy as np

    from graphcast_batch.cluster import driver
    from graphcast_batch.config.messages import parse_config
    from graphcast_batch.config.times_section import TimesConfig
    from graphcast_batch.plan import plan_times
    from graphcast_batch.setup.synthetic_archive import synthetic_archive

    span = {"first": first, "last": last, "every_hours": every_hours}
    times = np.array(plan_times(parse_config(span, TimesConfig, origin="of --first, --last and --every-hours")))
    with Drain() as drain, driver.connected(address, drain):

        def executor(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
            return tracked(driver.each(function, pieces, drain), "writing", len(pieces))

        synthetic_archive(out.absolute(), res, _levels(levels), times, seed, executor)
    say(f"{times.size} times in {out}")


@app.command(
    rich_help_panel=SOURCES,
    epilog=examples(
        "graphcast-batch stats /data/era5_1deg.zarr --to stats",
        "graphcast-batch stats hindcast.yaml --to stats",
    ),
)
def stats(
    place: Annotated[str, typer.Argument(help="Archive (file, store, glob or folder), or a run's config.")],
    out: Annotated[Path, typer.Option("--to", help="Folder for the three files.")],
    first: Annotated[str | None, typer.Option(help="First time to take; without it all that there is.")] = None,
    last: Annotated[str | None, typer.Option(help="Last time to take.")] = None,
    every_hours: Annotated[int | None, typer.Option(help="Hours between the times to take.")] = None,
    address: Address = None,
) -> None:
    """Computes normalisation statistics: of all that an archive holds, or of what a run needs of its inputs."""
    from graphcast_batch.cluster import driver
    from graphcast_batch.config.inputs_section import ArchiveInputs
    from graphcast_batch.config.loading import load_config
    from graphcast_batch.config.messages import parse_config
    from graphcast_batch.config.times_section import TimesConfig
    from graphcast_batch.inputs.sources.configured import open_source
    from graphcast_batch.inputs.statistics import write_statistics
    from graphcast_batch.setup.run_statistics import computed_statistics, statistics_of

    span = {"first": first, "last": last, "every_hours": every_hours}
    given = any(part is not None for part in span.values())
    times = parse_config(span, TimesConfig, origin="of --first, --last and --every-hours") if given else None
    is_config = place.endswith((".yaml", ".yml"))
    with Drain() as drain, driver.connected(address, drain):

        def executor(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
            return tracked(driver.each(function, arguments, drain), "reading", len(arguments))

        if is_config:
            found = statistics_of(load_config(Path(place)), times, executor)
        else:
            inputs = parse_config({"kind": "archive", "path": place}, ArchiveInputs, origin="of the archive")
            found = computed_statistics(open_source(inputs, ()), None, times, executor)
    write_statistics(found, out)
    say(f"statistics in {out}")


@app.command(
    rich_help_panel=SOURCES,
    epilog=examples(
        "graphcast-batch fetch list",
        "graphcast-batch fetch checkpoint small --to params",
    ),
)
def fetch(
    kind: Annotated[Literal["checkpoint", "stats", "sample", "list"], typer.Argument(help="What to fetch, or list.")],
    name: Annotated[str, typer.Argument(help="Its name, or parts of it; see fetch list.")] = "all",
    folder: Annotated[Path, typer.Option("--to", help="Folder for the files.")] = Path(),
    mirror: Annotated[str | None, typer.Option(help="Folder or address that has the bucket's files.")] = None,
) -> None:
    """Fetches files that DeepMind published with GraphCast: weights, statistics, sample datasets."""
    from graphcast_batch.inputs.downloads import published

    if kind == "list":
        for file in published.listing(mirror):
            size = f"{file.size_bytes / 1e6:.1f} MB" if file.size_bytes else ""
            say(f"{file.kind:10} {size:>10}  {file.name}")
        return
    for file in published.find(kind, name, mirror):
        with Progress(*Progress.get_default_columns(), DownloadColumn(), console=console, transient=True) as bar:
            update = partial(_show_bytes, bar, bar.add_task(file.name, total=file.size_bytes))
            fetched = published.fetch(file, folder, update, mirror)
        say(f"{folder / file.file}\n{fetched.bytes} bytes, sha256 {fetched.sha256}")
    say(published.license(kind))


@app.command(rich_help_panel=SOURCES, epilog=examples("graphcast-batch finetune configs/training/planet.yaml"))
def finetune(
    recipe: Annotated[Path, typer.Argument(help="YAML file of a training.", metavar="RECIPE")],
    address: Address = None,
    drain_file: Annotated[Path | None, typer.Option(help="Stops the training once this file is there.")] = None,
) -> None:
    """Trains weights, from random ones or from a checkpoint, on forecasts of an archive.

    Run it again after an interruption: it goes on from the last checkpoint. Exit codes: 0 at the end of the recipe, 1
    could not run or the loss went astray, 2 wrong usage or recipe, 75 stopped with work left.
    """
    here = allocation(os.environ)
    with Drain(drain_file, here.start, here.end) as drain:
        from graphcast_batch.cluster import driver
        from graphcast_batch.cluster.training_group import TrainingGroup
        from graphcast_batch.recipe import load_recipe
        from graphcast_batch.terminal import TrainingWatcher
        from graphcast_batch.training.training_folder import TrainingFolder
        from graphcast_batch.training.training_loop import train
        from graphcast_batch.training.training_setup import training_setup

        wanted = load_recipe(recipe)
        begun, folder = training_setup(wanted), TrainingFolder(wanted.folder)
        for line in begun.summary:
            remark(line)
        with driver.connected(address, drain):
            group = TrainingGroup(begun)
            try:
                with TrainingWatcher(
                    console, wanted.steps_after, wanted.updates, group.update, manner.level
                ) as watcher:
                    complete = train(wanted, group, watcher.tell, lambda: drain.asked)
            finally:
                group.stop()
                _draw_training(folder)
    say(
        f"{group.update} of {wanted.updates} updates; {watcher.waited:.1%} of the time waited for samples\n"
        f"weights: {folder.weights}"
    )
    if not complete:
        raise typer.Exit(WORK_LEFT)


def _levels(text: str) -> tuple[int, ...]:
    known = {"13": LEVELS_13, "37": LEVELS_37}
    if text in known:
        return known[text]
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--levels must be 13, 37, or levels in hPa such as 500,850, but is {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def _show_bytes(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _draw_training(folder: "TrainingFolder") -> None:
    """Draws the curves, if they can be: the weights are whole without them."""
    from graphcast_batch.figures.training_curves import draw_training

    lines, picture = list(folder.lines()), folder.path / "curves.png"
    if not any("loss" in line for line in lines):
        return
    try:
        draw_training(lines, picture)
    except OSError as error:
        tell(error)
        return
    say(f"curves: {picture}")
