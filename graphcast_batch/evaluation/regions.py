"""Compute the weights of a grid's cells in named regions and boxes."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid, cell_area

Floats = NDArray[np.float64]
_WHOLE: Final = 1 - 1e-9
_RUN: Final = 8192
"""Points of a run. Measured: from 4096 to 16384 the speed is the same, and all points at once take twice as long."""
_ALL_ROUND: Final = (0.0, 360.0)
STORED: Final = "stored"
"""Name of the region of all points that a store keeps, where it keeps a part of the globe."""
MASKED: Final = ("land", "sea")
"""Regions in which each cell is weighted with its share of land, or of sea."""
BOXES: Final[Mapping[str, tuple[tuple[float, float], tuple[float, float]]]] = {
    "global": ((-90, 90), _ALL_ROUND),
    "tropics": ((-20, 20), _ALL_ROUND),
    "northern-hemisphere": ((20, 90), _ALL_ROUND),
    "southern-hemisphere": ((-90, -20), _ALL_ROUND),
    "europe": ((35, 75), (-12.5, 42.5)),
    "north-america": ((25, 60), (240, 285)),
    "north-atlantic": ((25, 65), (290, 350)),
    "north-pacific": ((25, 60), (145, 230)),
    "east-asia": ((25, 60), (102.5, 150)),
    "ausnz": ((-45, -12.5), (120, 175)),
    "arctic": ((60, 90), _ALL_ROUND),
    "antarctic": ((-90, -60), _ALL_ROUND),
}
"""South and north, west and east edges, in degrees, of the regions of WeatherBench 2's evaluation (Rasp et al. 2024,
https://doi.org/10.1029/2023MS004019); the edges are included. The extra-tropics are the two hemispheres together."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The weight of each point of a grid in each region.

    Attributes:
        names: of the regions.
        weights: (region, latitude, longitude) area of the cell within the region, as a share of the globe.
    """

    names: tuple[str, ...]
    weights: Floats

    @property
    def totals(self) -> Floats:
        """Area of each region as a share of the globe, (region,)."""
        return np.asarray(self.weights.sum(axis=(1, 2)))

    @cached_property
    def blocks(self) -> list[tuple[slice, NDArray[np.intp], Floats]]:
        """Runs of points, each with the regions that contain some of them and the weights there, (point, region).

        Computations on so few points stay in a core's cache, and most regions lie outside most runs.
        """
        flat = self.weights.reshape(len(self.names), -1)
        runs = [slice(start, start + _RUN) for start in range(0, flat.shape[1], _RUN)]
        held = [(run, np.flatnonzero(flat[:, run].any(axis=1))) for run in runs]
        return [(run, here, np.ascontiguousarray(flat[here, run].T)) for run, here in held if here.size]


def weigh(
    names: Sequence[str],
    boxes: Mapping[str, RegionConfig],
    grid: Grid,
    land: Callable[[], NDArray[np.float32]],
    part: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
) -> Regions:
    """Compute the weights of regions on a global grid, or on a subset of it.

    Args:
        names: of regions: WeatherBench 2's, ``land`` or ``sea``.
        boxes: further regions, by name.
        grid: the points.
        land: returns the share of land in each cell, (latitude, longitude) 0..1; called only if needed.
        part: indices of the latitudes and longitudes of a subset; None for the complete grid. On a subset the regions
            that lie within it are returned, and before them ``stored``, the complete subset.

    Raises:
        EvaluationError: a region is unknown, named twice, or holds no point.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1} | set(names) & set(boxes))
    if twice:
        raise EvaluationError(f"scores.regions must name each region once, but {', '.join(twice)} is named twice")
    area = np.repeat(cell_area(grid.latitude)[:, np.newaxis], grid.longitude.size, axis=1) / grid.size
    shares = {name: _share(name, grid, land) for name in names}
    shares |= {name: _inside(box.latitude, box.longitude, grid) for name, box in boxes.items()}
    weights = {name: area * share for name, share in shares.items()}
    empty = [name for name, found in weights.items() if not found.any()]
    if empty:
        raise EvaluationError(f"each region must hold a point of {grid}, but {', '.join(empty)} holds none; widen it")
    if part is not None:
        inside = {name: found[np.ix_(*part)] for name, found in weights.items()}
        complete = {name: found for name, found in inside.items() if found.sum() >= _WHOLE * weights[name].sum()}
        weights = {STORED: area[np.ix_(*part)]} | complete
    return Regions(tuple(weights), np.stack(list(weights.values())))


def _share(name: str, grid: Grid, land: Callable[[], NDArray[np.float32]]) -> Floats:
    """Return the share of each cell that is in a region, (latitude, longitude) 0..1."""
    if name == "extra-tropics":
        return _share("northern-hemisphere", grid, land) + _share("southern-hemisphere", grid, land)
    if name in MASKED:
        share = np.clip(land().astype(np.float64), 0, 1)
        return share if name == "land" else 1 - share
    if name not in BOXES:
        known = [*BOXES, "extra-tropics", *MASKED]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "give its edges in scores.boxes"
        raise EvaluationError(f"scores.regions must be some of {', '.join(known)}, but {name} is not; {hint}")
    return _inside(*BOXES[name], grid)


def _inside(latitude: tuple[float, float], longitude: tuple[float, float], grid: Grid) -> Floats:
    """Return 1 at the points of a box and 0 elsewhere; longitudes go eastward from the first to the second."""
    (south, north), (west, east) = latitude, longitude
    rows = (grid.latitude >= south - SAME_PLACE_DEGREES) & (grid.latitude <= north + SAME_PLACE_DEGREES)
    width = east - west if abs(east - west) >= 360 else (east - west) % 360
    beyond = (grid.longitude.astype(np.float64) - west + SAME_PLACE_DEGREES) % 360 - SAME_PLACE_DEGREES
    return np.outer(rows, beyond <= width + SAME_PLACE_DEGREES).astype(np.float64)
