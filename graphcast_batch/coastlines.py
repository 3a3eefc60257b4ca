"""Read the land outlines that ship with the package, and find which points lie on land.

They are the 1:110 million land outlines of Natural Earth (naturalearthdata.com, public domain), as the npm package
world-atlas 2.0.2 holds them in ``land-110m.json``: rounded to hundredths of a degree, broken at the date line, and
without the edges along it that only close a polygon on a flat map.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.grid import Grid

_BESIDE = 1e-4  # degrees by which meridians are moved, so that no vertex, of which all are at hundredths, lies on one


@cache
def coastlines() -> tuple[NDArray[np.float32], ...]:
    """The lines of all coasts, islands and inland seas.

    Returns:
        One (vertices, 2) read-only array for each line: longitude in -180..180 and latitude in -90..90, degrees.
    """
    stored_lines = files("graphcast_batch") / "coastlines.npz"
    with stored_lines.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        hundredths, offsets = stored["vertices"], stored["offsets"]
    vertices = np.asarray(hundredths / np.float32(100), np.float32)
    vertices.flags.writeable = False
    return tuple(np.split(vertices, offsets[1:-1]))


def land_share(grid: Grid) -> NDArray[np.float64]:
    """Which share of each cell of a grid is land, as far as a map at 1 degree tells.

    Args:
        grid: the centres of the cells; those finer than 1 degree take the nearest values.

    Returns:
        (lat, lon) in 0..1.
    """
    rows = _within(grid.latitude.astype(np.float64), _MIDDLES - 90, grid.latitude_step, np.inf)
    columns = _within(grid.longitude.astype(np.float64), np.arange(360) + 0.5, grid.resolution, 360)
    return np.asarray(rows @ _land() @ columns.T)


_MIDDLES = np.arange(180) + 0.5


def _within(
    centres: NDArray[np.float64], places: NDArray[np.floating], step: float, turn: float
) -> NDArray[np.float64]:
    """(centre, place) what each place counts for in the mean of a cell around a centre."""
    away = np.abs(centres[:, np.newaxis] - places)
    inside = np.minimum(away, turn - away) <= max(step / 2, 0.5 + _BESIDE)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))


@cache
def _land() -> NDArray[np.float64]:
    """(180, 360) 1 on land and 0 at sea in the middles of cells of 1 degree, from -89.5 and 0.5 on.

    The north pole lies at sea, and on the way south along a meridian each coast leads from sea to land or back.
    """
    starts = np.concatenate([line[:-1] for line in coastlines()]).astype(np.float64)
    ends = np.concatenate([line[1:] for line in coastlines()]).astype(np.float64)
    meridians = (np.arange(360) + 0.5 + 180) % 360 - 180 + _BESIDE
    edge, column = np.nonzero((starts[:, :1] < meridians) != (ends[:, :1] < meridians))
    (west, south), (east, north) = starts[edge].T, ends[edge].T
    coasts = south + (meridians[column] - west) / (east - west) * (north - south)
    # A coast lies north of all rows up to that below it.
    below = np.searchsorted(_MIDDLES - 90, coasts) - 1
    crossed = np.zeros((181, 360))
    np.add.at(crossed, (below, column), 1)  # what lies below all rows, at -1, falls into the row too many
    return np.asarray(np.cumsum(crossed[-2::-1], axis=0)[::-1] % 2)
