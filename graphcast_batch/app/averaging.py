"""Compute a climatology from an archive."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.evaluated_config import truth_inputs
from graphcast_batch.app.executing import chosen_times, executor, on_cluster, times_array
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.errors import ConfigError
from graphcast_batch.evaluation.climatology_building import make_climatology, plan_climatology
from graphcast_batch.evaluation.derived import DERIVATIONS, derivable, steps_of_parts, with_derived
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.variables import LEVELS_13


def climatology(
    archive: AnyPath,
    out: AnyPath,
    *,
    first: str | None = None,
    last: str | None = None,
    every_hours: int | None = None,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    derived: Sequence[str] = (),
    address: str | None = None,
    progress: ProgressChoice = None,
) -> Path:
    """Compute the mean and standard deviation of each variable at each hour of the day and day of the year.

    For precipitation it also computes what the score SEEPS needs. If it was stopped, call it again to go on.

    >>> gb.climatology("/data/era5_1deg.zarr", "climatology.zarr", derived=["wind_speed"])

    Args:
        archive: path or address of an archive (file, store, glob pattern or folder), or the path of a run's config,
            whose inputs are taken.
        out: zarr store to write.
        first: first time to take, such as ``2020-01-01T00``, UTC; without it all times of the archive are taken.
        last: last time to take.
        every_hours: hours between the times to take.
        variables: names of the variables to take; without it all of the archive are taken.
        levels: pressure levels to take, hPa; without it all of the archive are taken, and 13 of a synthetic planet.
        derived: names of derived variables, which are taken too, as in ``scores.derived`` of a config.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.

    Returns:
        The path of the store.

    Raises:
        GraphcastBatchError: the archive cannot be read or is too short, or the store cannot be written.
    """
    out = Path(out).absolute()
    parts = steps_of_parts([name for name in derived if name in DERIVATIONS])
    needed = () if variables is None else (*variables, *parts)
    opened = open_source(truth_inputs(archive), LEVELS_13 if levels is None else levels, needed=needed)
    on_levels = {name: "level" in dims for name, dims in opened.dims.items()}
    names = tuple(derivable(derived, on_levels, opened.origin))
    source = with_derived(opened, names)
    chosen = chosen_times(first, last, every_hours)
    if chosen is None and source.times is None:
        raise ConfigError(f"{source.origin} has every time; say with --first, --last and --every-hours which to take")
    times = None if chosen is None else np.asarray(times_array(chosen), "datetime64[ns]")
    planned = plan_climatology(source, times, None if variables is None else (*variables, *names), levels)
    shown = chosen_progress(progress)
    shown.report(str(planned))
    with on_cluster(address, None, shown) as stopping:
        make_climatology(planned, out, executor(stopping, shown, "averaging"))
    return out
