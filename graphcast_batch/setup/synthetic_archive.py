"""Write weather of the synthetic planet as a zarr archive."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.sources import archive_writer
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet

ArchiveExecutor = Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], Iterable[BaseException | None]]


_PIECE: Final = 4
"""Number of times that are computed and written together."""


def synthetic_archive(
    path: Path,
    resolution: float,
    levels: Sequence[int],
    times: NDArray[np.datetime64],
    seed: int,
    executor: ArchiveExecutor,
) -> None:
    """Write weather of the synthetic planet as a zarr archive.

    Args:
        path: path of the new archive; nothing may be there yet.
        resolution: distance between grid points in degrees, a divisor of 180.
        levels: pressure levels in hPa.
        times: (time,) datetime64 valid times, ascending.
        seed: seed of the random weather.
        executor: calls a function with each of many lists of arguments, and yields results or exceptions in order.

    Raises:
        GridError: the resolution does not divide 180 degrees.
        StoreError: something is at the path already, or the path cannot be written.
    """
    source = SyntheticArchive(SyntheticPlanet(seed), resolution, levels)
    draft = archive_writer.lay_out(path, source.dims, source.grid, source.levels, times)
    pieces = [(draft, source, start, times[start : start + _PIECE]) for start in range(0, times.size, _PIECE)]
    for result in executor(_fill_piece, pieces):
        if isinstance(result, BaseException):
            raise result
    archive_writer.publish(draft, path)


def _fill_piece(draft: Path, source: SyntheticArchive, first: int, times: NDArray[np.datetime64]) -> None:
    archive_writer.fill(draft, first, source.fields(tuple(source.dims), times, source.levels))
