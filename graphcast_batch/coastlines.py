"""Read the land outlines that ship with the package, and find which points lie on land.

The outlines are those of Natural Earth at 1:110 million (naturalearthdata.com, public domain), as in the file
``land-110m.json`` of the npm package world-atlas 2.0.2: rounded to hundredths of a degree, and broken at the date line,
without the edges along the date line that close a polygon on a flat map.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.grid import Grid

_OFFSET_DEGREES = 1e-4
"""Meridians are moved by this much, so that no vertex lies on one: all vertices are at hundredths of a degree."""


@cache
def coastlines() -> tuple[NDArray[np.float32], ...]:
    """Return the outlines of all land and inland seas.

    Returns:
        For each line a (vertices, 2) read-only array of longitudes in -180..180 and latitudes in -90..90, degrees.
    """
    stored_lines = files("graphcast_batch") / "coastlines.npz"
    with stored_lines.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        hundredths, offsets = stored["vertices"], stored["offsets"]
    vertices = np.asarray(hundredths / np.float32(100), np.float32)
    vertices.flags.writeable = False
    return tuple(np.split(vertices, offsets[1:-1]))


def land_share(grid: Grid) -> NDArray[np.float64]:
    """Return the land fraction of each cell of a grid, computed from a land map at a resolution of 1 degree.

    Args:
        grid: the centers of the cells; cells smaller than 1 degree take the nearest values of the map.

    Returns:
        (lat, lon) fractions in 0..1.
    """
    rows = _within(grid.latitude.astype(np.float64), _MIDDLES - 90, grid.latitude_step, np.inf)
    columns = _within(grid.longitude.astype(np.float64), np.arange(360) + 0.5, grid.resolution, 360)
    return np.asarray(rows @ _land() @ columns.T)


_MIDDLES = np.arange(180) + 0.5


def _within(
    centers: NDArray[np.float64], points: NDArray[np.floating], step: float, turn: float
) -> NDArray[np.float64]:
    """Return the (center, point) weights of points in the mean over the cell around each center."""
    away = np.abs(centers[:, np.newaxis] - points)
    inside = np.minimum(away, turn - away) <= max(step / 2, 0.5 + _OFFSET_DEGREES)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))


@cache
def _land() -> NDArray[np.float64]:
    """Return the (180, 360) land map, 1 on land and 0 at sea, at the centers of cells of 1 degree.

    Latitudes ascend from -89.5, longitudes from 0.5. The north pole lies at sea, and on the way south along a meridian
    each coast leads from sea to land or back.
    """
    starts = np.concatenate([line[:-1] for line in coastlines()]).astype(np.float64)
    ends = np.concatenate([line[1:] for line in coastlines()]).astype(np.float64)
    meridians = (np.arange(360) + 0.5 + 180) % 360 - 180 + _OFFSET_DEGREES
    edge, column = np.nonzero((starts[:, :1] < meridians) != (ends[:, :1] < meridians))
    (west, south), (east, north) = starts[edge].T, ends[edge].T
    coasts = south + (meridians[column] - west) / (east - west) * (north - south)
    # Count a coast at the first row south of it.
    below = np.searchsorted(_MIDDLES - 90, coasts) - 1
    crossed = np.zeros((181, 360))
    np.add.at(crossed, (below, column), 1)  # coasts south of all rows have index -1, the additional row
    return np.asarray(np.cumsum(crossed[-2::-1], axis=0)[::-1] % 2)
