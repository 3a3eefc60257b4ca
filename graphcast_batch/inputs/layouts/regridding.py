"""Regrid global fields to a coarser grid with rows on both poles and a column at 0°.

A latitude-longitude grid lets averages and interpolation be one matrix for the rows times one for the columns.
Components of the wind are taken as scalars: beside a pole, where east turns from column to column, a coarse value
mixes directions.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csr_array

from graphcast_batch.errors import GridError
from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid, regular_grid

Method = Literal["subsample", "conservative", "linear"]
Weights: TypeAlias = csr_array[np.float64, tuple[int, int]]

_PLACE: Final = ("latitude", "longitude")
_ROUNDING: Final = 1e-3  # of a source cell; float32 coordinates of a 0.1° grid are off by 2e-4 of one


@dataclass(frozen=True)
class Regridder:
    """Brings fields from one grid to a coarser one.

    Attributes:
        source: the grid that the fields come on.
        resolution: degrees between the rows and columns to go to, a divisor of 180.
        method: ``subsample`` takes the points that both grids have, bit for bit. ``conservative`` averages over each
            coarse cell by area, first order, so that the integral over the globe stays; cells reach half-way to
            their neighbours, and those of the polar rows end at the pole. ``linear`` interpolates between the four
            points around; poleward of the source's last row that row's values hold.

    Raises:
        GridError: the resolution is finer than the source or divides no half circle, or ``subsample`` finds no row
            at a pole, no column at 0° or no whole multiple of the source's steps.
    """

    source: Grid
    resolution: float
    method: Method

    def __post_init__(self) -> None:
        _check_coarser(self.source, self.grid)
        if self.method == "subsample":
            _check_shared(self.source, self.grid)

    @cached_property
    def grid(self) -> Grid:
        """The points to go to."""
        return regular_grid(self.resolution)

    def regrid(self, fields: xr.Dataset) -> xr.Dataset:
        """The same fields on the coarser grid.

        Args:
            fields: on the source grid; variables have the dimensions (..., latitude, longitude), any unit, or neither
                of the two and stay as they are.

        Returns:
            Float32 fields, NaN where a value that contributes is NaN, and nowhere else.

        Raises:
            GridError: the fields are on another grid.
        """
        _check_points(fields, self.source)
        variables = {
            name: (array.dims, self._coarse(array.values) if array.dims[-2:] == _PLACE else array.values, array.attrs)
            for name, array in fields.data_vars.items()
        }
        places = {"latitude": self.grid.latitude, "longitude": self.grid.longitude}
        return xr.Dataset(variables, coords={**fields.coords, **places}, attrs=fields.attrs)

    def _coarse(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (..., lat, lon) on the coarser grid."""
        if self.method == "subsample":
            rows, columns = _strides(self.source, self.grid)
            return values[..., ::rows, ::columns].astype(np.float32, order="C")
        by_row, by_column = self._weights
        coarse = np.empty((*values.shape[:-2], *self.grid.shape), np.float32)
        for field in np.ndindex(values.shape[:-2]):  # one by one, as in float64 all of them may not fit into memory
            coarse[field] = by_row @ values[field] @ by_column.T
        return coarse

    @cached_property
    def _weights(self) -> tuple[Weights, Weights]:
        """Weights (target, source) of the rows and of the columns, without zeros, so that no foreign NaN gets in."""
        if self.method == "conservative":
            return _row_shares(self.source, self.grid), _column_shares(self.source, self.grid)
        return _between_rows(self.source, self.grid), _between_columns(self.source, self.grid)


def _check_coarser(source: Grid, target: Grid) -> None:
    steps = (source.latitude_step, target.latitude_step), (source.resolution, target.resolution)
    if any(coarse < fine * (1 - _ROUNDING) for fine, coarse in steps):
        raise GridError(
            f"data on {source} can only be regridded to that resolution or a coarser one, but {target.resolution:g}° "
            "is asked for; coarser grids cannot be made finer: use finer data, or weights for a coarser grid"
        )


def _check_shared(source: Grid, target: Grid) -> None:
    if abs(source.latitude[0] + 90) > SAME_PLACE_DEGREES or source.longitude[0] > SAME_PLACE_DEGREES:
        raise GridError(
            "subsample needs data with rows at the poles and a column at 0°, but the first row is at "
            f"{source.latitude[0]:g}° and the first column at {source.longitude[0]:g}°; "
            "use the method conservative or linear"
        )
    if (source.shape[0] - 1) % (target.shape[0] - 1) or source.shape[1] % target.shape[1]:
        raise GridError(
            f"subsample needs a whole multiple of the data's steps, but {target.resolution:g}° is none of {source}; "
            "use the method conservative or linear"
        )


def _check_points(fields: xr.Dataset, source: Grid) -> None:
    for name, expected in zip(_PLACE, (source.latitude, source.longitude), strict=True):
        found = fields[name].values
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=SAME_PLACE_DEGREES):
            raise GridError(
                f"the fields must be on the grid {source} from {expected[0]:g}° on, but have {found.size} values of "
                f"{name} from {found[0]:g}° on; make a regridder for their grid"
            )


def _strides(source: Grid, target: Grid) -> tuple[int, int]:
    return (source.shape[0] - 1) // (target.shape[0] - 1), source.shape[1] // target.shape[1]


def _row_shares(source: Grid, target: Grid) -> Weights:
    """Share of each source row in the area of each target row: an overlap in the sine of latitude."""
    low, high = _overlaps(_row_bounds(source), _row_bounds(target))
    return _shares(np.sin(np.deg2rad(high)) - np.sin(np.deg2rad(low)))


def _column_shares(source: Grid, target: Grid) -> Weights:
    """Share of each source column in the width of each target column, also across 0°."""
    # Both begin about 0°, the target further west: what it lacks there is the end of the source's last turn.
    turns = [_overlaps(_column_bounds(source) + turn, _column_bounds(target)) for turn in (-360, 0)]
    return _shares(np.sum([high - low for low, high in turns], axis=0))


def _overlaps(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds, low and high (target, source), of what cells have in common; the same where that is nothing."""
    low = np.maximum(target[:-1, None], source[:-1])
    high = np.minimum(target[1:, None], source[1:])
    return low, np.where(high - low > _ROUNDING * np.diff(source), high, low)


def _row_bounds(grid: Grid) -> NDArray[np.float64]:
    latitude = grid.latitude.astype(np.float64)
    return np.concatenate([[-90.0], (latitude[1:] + latitude[:-1]) / 2, [90.0]])


def _column_bounds(grid: Grid) -> NDArray[np.float64]:
    edges = np.arange(grid.longitude.size + 1, dtype=np.float64) - 0.5
    return float(grid.longitude[0]) + edges * grid.resolution


def _shares(areas: NDArray[np.float64]) -> Weights:
    return csr_array(areas / areas.sum(axis=1, keepdims=True))


def _between_rows(source: Grid, target: Grid) -> Weights:
    rows = source.latitude.size
    places = (target.latitude.astype(np.float64) - source.latitude[0]) / source.latitude_step
    return _between(np.clip(places, 0, rows - 1), rows)


def _between_columns(source: Grid, target: Grid) -> Weights:
    places = (target.longitude.astype(np.float64) - source.longitude[0]) / source.resolution
    return _between(places, source.longitude.size)


def _between(places: NDArray[np.float64], size: int) -> Weights:
    """Weights (target, source) of the points before and after places that count source points, around the end."""
    complete = np.round(places)
    places = np.where(np.abs(places - complete) < _ROUNDING, complete, places)
    before = np.floor(places).astype(np.intp)
    targets = np.arange(places.size)
    weights = np.zeros((places.size, size))
    weights[targets, before % size] = 1 - (places - before)
    weights[targets, (before + 1) % size] += places - before
    return csr_array(weights)
