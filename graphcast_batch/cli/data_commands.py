"""Define the commands that make or download what runs need: archives, statistics, published files, trained weights."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from graphcast_batch.cli.application import SOURCES, Address, app, archive, examples, print_line, progress
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.errors import ConfigError
from graphcast_batch.variables import LEVELS_13, LEVELS_37

ArchivePlace = Annotated[
    str,
    typer.Argument(
        help="Archive (file, store, glob pattern, folder or address), or a run's config, whose inputs are taken.",
        metavar="ARCHIVE|CONFIG",
    ),
]
FirstTime = Annotated[
    str | None,
    typer.Option(help="First time to take, such as 2020-01-01T00, UTC. Default: all times of the archive are taken."),
]
LastTime = Annotated[str | None, typer.Option(help="Last time to take, UTC; needed with --first.")]
EveryHours = Annotated[int | None, typer.Option(help="Hours between the times to take; needed with --first.")]


@archive.command(
    "synthetic",
    epilog=examples("graphcast-batch archive synthetic --out planet.zarr --first 2020-01-01T00 --last 2020-01-31T18"),
)
def archive_synthetic(
    out: Annotated[Path, typer.Option(help="Zarr store to write, such as planet.zarr; nothing may exist there.")],
    first: Annotated[str, typer.Option(help="First time of the archive, such as 2020-01-01T00, UTC.")],
    last: Annotated[str, typer.Option(help="Last time of the archive, UTC.")],
    every_hours: Annotated[int, typer.Option(min=1, help="Hours between the times.")] = 6,
    res: Annotated[float, typer.Option(help="Degrees between grid points, a divisor of 180.")] = 1.0,
    levels: Annotated[
        str,
        typer.Option(help="Pressure levels: 13 or 37 for those of GraphCast, or hPa separated by commas (500,850)."),
    ] = "13",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the random weather; the climate is the same for every seed.")
    ] = 0,
    address: Address = None,
) -> None:
    """Write an archive of synthetic weather with all variables of GraphCast except the forcings."""
    from graphcast_batch.app import synthesizing

    times = synthesizing.synthetic_archive(
        out,
        first,
        last,
        every_hours=every_hours,
        resolution=res,
        levels=given_levels(levels),
        seed=seed,
        address=address,
        progress=progress(),
    )
    print_line(f"{times.size} times in {out}")


@app.command(
    rich_help_panel=SOURCES,
    epilog=examples(
        "graphcast-batch stats /data/era5_1deg.zarr --to stats",
        "graphcast-batch stats hindcast.yaml --to stats",
    ),
)
def stats(
    place: ArchivePlace,
    out: Annotated[Path, typer.Option("--to", help="Folder to write the three netCDF files to.")],
    first: FirstTime = None,
    last: LastTime = None,
    every_hours: EveryHours = None,
    address: Address = None,
) -> None:
    """Compute normalization statistics of all that an archive holds, or of what a run reads from its inputs."""
    from graphcast_batch.app import normalization_statistics

    normalization_statistics.statistics(
        place, out, first=first, last=last, every_hours=every_hours, address=address, progress=progress()
    )
    print_line(f"statistics in {out}")


@app.command(
    rich_help_panel=SOURCES,
    epilog=examples(
        "graphcast-batch fetch list",
        "graphcast-batch fetch checkpoint small --to params",
    ),
)
def fetch(
    kind: Annotated[
        Literal["checkpoint", "stats", "sample", "list"],
        typer.Argument(help="Kind of files to download; list only prints which files there are."),
    ],
    name: Annotated[
        str, typer.Argument(help="Name of the file, or parts of the name that no other file has; see fetch list.")
    ] = "all",
    folder: Annotated[Path, typer.Option("--to", help="Folder to download to.")] = Path(),
    mirror: Annotated[
        str | None,
        typer.Option(help="Folder or address with a copy of DeepMind's bucket. Default: the bucket itself."),
    ] = None,
) -> None:
    """Download files that DeepMind published with GraphCast: weights, statistics, sample datasets."""
    from graphcast_batch.app import fetching

    if kind == "list":
        for file in fetching.published_files(mirror):
            size = f"{file.size_bytes / 1e6:.1f} MB" if file.size_bytes else ""
            print_line(f"{file.kind:10} {size:>10}  {file.name}")
        return
    result = fetching.fetch(kind, name, folder, mirror=mirror, progress=progress())
    for path, record in result.files:
        print_line(f"{path}\n{record.bytes} bytes, sha256 {record.sha256}")
    print_line(result.license)


@app.command(
    rich_help_panel=SOURCES,
    epilog=examples(
        'graphcast-batch convert-checkpoint member1.pkl --architecture "params/GraphCast_operational.npz" '
        "--to params/member1.npz",
        "graphcast-batch convert-checkpoint weights.pkl --architecture sizes.yaml --task GraphCast_small "
        "--to params/weights.npz",
    ),
)
def convert_checkpoint(
    source: Annotated[Path, typer.Argument(help="Pickle with weights by Haiku module and name.", metavar="PICKLE")],
    architecture: Annotated[
        Path,
        typer.Option(
            help="Checkpoint (.npz) of a network of the same sizes, or YAML file with the fields of its model_config."
        ),
    ],
    out: Annotated[Path, typer.Option("--to", help="Checkpoint to write (.npz); nothing may exist there.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="Name of a published task (GraphCast, GraphCast_operational, GraphCast_small), checkpoint, or YAML "
            "file with the fields of a task_config. Default: that of the checkpoint given as --architecture."
        ),
    ] = None,
    description: Annotated[
        str | None,
        typer.Option(help="Text to store with the weights. Default: name and checksum of the pickle."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="License of the weights, to store with them. Default: that the pickle states none."),
    ] = None,
) -> None:
    """Convert weights that were published as a Python pickle into a checkpoint that runs take.

    Nothing in the pickle is executed: it is read as data, and whatever is no array, number, text or container is
    refused by its name.
    """
    from graphcast_batch.app import converting

    done = converting.convert_checkpoint(
        source, out, architecture=architecture, task=task, description=description, license=license
    )
    sizes, levels = done.architecture, done.task.pressure_levels
    print_line(
        f"network: mesh size {sizes.mesh_size}, latent size {sizes.latent_size}, {sizes.gnn_msg_steps} message-passing "
        f"steps, {done.parameters} parameters\n"
        f"task: {len(done.task.target_variables)} target variables, {len(levels)} pressure levels"
    )
    if done.left_out:
        print_line(f"left out: {', '.join(done.left_out)}")
    print_line(f"{done.path}\n{done.path.stat().st_size} bytes, sha256 {done.sha256}")


@app.command(rich_help_panel=SOURCES, epilog=examples("graphcast-batch finetune configs/training/planet.yaml"))
def finetune(
    recipe: Annotated[
        Path, typer.Argument(help="Path of the YAML file that describes the training.", metavar="RECIPE")
    ],
    address: Address = None,
    drain_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose appearance stops the training after a checkpoint. Default: only signals and the end of a "
            "Slurm job stop it."
        ),
    ] = None,
) -> None:
    """Train weights, from random ones or from a checkpoint, on forecasts of an archive.

    Run the same command again after an interruption: the training goes on from the last checkpoint. Exit codes: 0 end
    of the recipe, 1 could not run or the loss has grown beyond bounds, 2 wrong usage or recipe, 75 stopped with work
    left.
    """
    here = allocation(os.environ)
    with Drain(drain_file, here.start, here.end) as drain:
        # The imports take a second, during which a signal must not be lost.
        from graphcast_batch.app import finetuning

        result = finetuning.finetune(recipe, address=address, progress=progress(), drain=drain)
    print_line(
        f"{result.update} of {result.updates} updates; {result.waited:.1%} of the time waited for samples\n"
        f"weights: {result.weights}"
    )
    if not result.complete:
        raise typer.Exit(WORK_LEFT)


def given_levels(text: str) -> tuple[int, ...]:
    """Return the levels that an option ``--levels`` stands for, hPa, ascending.

    Raises:
        ConfigError: the text is not 13, 37 or a list of levels.
    """
    known = {"13": LEVELS_13, "37": LEVELS_37}
    if text in known:
        return known[text]
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--levels must be 13, 37, or levels in hPa such as 500,850, but is {text!r}")
    return tuple(sorted({int(part) for part in parts}))
