"""Write an archive of weather of the synthetic planet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.executing import executor, on_cluster, times_array
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.setup import synthetic_archive as writing
from graphcast_batch.variables import LEVELS_13


def synthetic_archive(
    out: AnyPath,
    first: str,
    last: str,
    *,
    every_hours: int = 6,
    resolution: float = 1.0,
    levels: Sequence[int] = LEVELS_13,
    seed: int = 0,
    address: str | None = None,
    progress: ProgressChoice = None,
) -> NDArray[np.datetime64]:
    """Write an archive of synthetic weather with all variables of GraphCast except the forcings.

    >>> times = gb.synthetic_archive("planet.zarr", "2020-01-01T00", "2020-01-31T18")

    Args:
        out: zarr store to write; nothing may exist there.
        first: first time, such as ``2020-01-01T00``, UTC.
        last: last time.
        every_hours: hours between the times.
        resolution: degrees between points, a divisor of 180.
        levels: pressure levels, hPa.
        seed: of the weather; the climate is the same for every seed.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.

    Returns:
        (time,) datetime64[h] the times that were written.

    Raises:
        ConfigError: the times are not valid.
        GridError: the resolution is no divisor of 180.
        StoreError: something exists at the path, or it cannot be written.
    """
    span = {"first": first, "last": last, "every_hours": every_hours}
    times = times_array(parse_config(span, TimesConfig, origin="of first, last and every_hours"))
    shown = chosen_progress(progress)
    with on_cluster(address, None, shown) as stopping:
        execute = executor(stopping, shown, "writing")
        writing.synthetic_archive(Path(out).absolute(), resolution, levels, times, seed, execute)
    return times
