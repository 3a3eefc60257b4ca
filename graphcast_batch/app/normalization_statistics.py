"""Compute normalization statistics from an archive or from the inputs of a run."""

import os
from pathlib import Path

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.executing import chosen_times, executor, on_cluster
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.config.inputs_section import ArchiveInputs
from graphcast_batch.config.loading import load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.inputs.statistics import Statistics, write_statistics
from graphcast_batch.setup.run_statistics import computed_statistics, statistics_of


def statistics(
    place: AnyPath,
    out: AnyPath,
    *,
    first: str | None = None,
    last: str | None = None,
    every_hours: int | None = None,
    address: str | None = None,
    progress: ProgressChoice = None,
) -> Statistics:
    """Compute the normalization statistics of all that an archive holds, or of what a run reads from its inputs.

    >>> found = gb.statistics("/data/era5_1deg.zarr", "stats")

    Args:
        place: path or address of an archive (file, store, glob pattern or folder), or the path of a run's config.
        out: folder for the three files.
        first: first time to take, such as ``2020-01-01T00``, UTC; without it all times of the archive are taken.
        last: last time to take.
        every_hours: hours between the times to take.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.

    Raises:
        GraphcastBatchError: the archive cannot be read or does not suffice, or the files cannot be written.
    """
    place = os.fspath(place)
    times, shown = chosen_times(first, last, every_hours), chosen_progress(progress)
    with on_cluster(address, None, shown) as stopping:
        execute = executor(stopping, shown, "reading")
        if place.endswith((".yaml", ".yml")):
            found = statistics_of(load_config(Path(place)), times, execute)
        else:
            inputs = parse_config({"kind": "archive", "path": place}, ArchiveInputs, origin="of the archive")
            found = computed_statistics(open_source(inputs, ()), None, times, execute)
    write_statistics(found, Path(out))
    return found
