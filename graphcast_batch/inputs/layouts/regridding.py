"""Regrid global fields to a coarser grid with rows on both poles and a column at 0°.

On a latitude-longitude grid, averages and interpolation are the product of one matrix for the rows and one for the
columns. Components of the wind are treated as scalars: near a pole, where the direction of east differs from column to
column, a coarse value mixes directions.
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
Weights: TypeAlias = "csr_array[np.float64, tuple[int, int]]"  # in quotes: SciPy before 1.16 has no generic arrays

_PLACE: Final = ("latitude", "longitude")
_ROUNDING: Final = 1e-3  # of a source cell; float32 coordinates of a 0.1° grid are off by 2e-4 of one


@dataclass(frozen=True)
class Regridder:
    """Regrids fields from one grid to a coarser one.

    Attributes:
        source: grid of the fields.
        resolution: spacing of the coarser grid in degrees, a divisor of 180.
        method: ``subsample`` takes the points that both grids have, bit for bit. ``conservative`` averages over each
            coarse cell by area, first order, so that the integral over the globe is kept; cells reach half-way to
            their neighbors, and those of the polar rows end at the pole. ``linear`` interpolates between the four
            points around; poleward of the last row of ``source``, the values of that row are used.

    Raises:
        GridError: the resolution is finer than the source or does not divide 180°; or, for ``subsample``, the source
            has no rows at the poles or no column at 0°, or the resolution is not a multiple of its spacing.
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
        """The coarser grid."""
        return regular_grid(self.resolution)

    def regrid(self, fields: xr.Dataset) -> xr.Dataset:
        """Return fields on the coarser grid.

        Args:
            fields: fields on the source grid, in any units. Variables with dimensions (..., latitude, longitude) are
                regridded, those without latitude and longitude are kept.

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
        points = {"latitude": self.grid.latitude, "longitude": self.grid.longitude}
        return xr.Dataset(variables, coords={**fields.coords, **points}, attrs=fields.attrs)

    def _coarse(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values (..., lat, lon) on the coarser grid."""
        if self.method == "subsample":
            rows, columns = _strides(self.source, self.grid)
            return values[..., ::rows, ::columns].astype(np.float32, order="C")
        by_row, by_column = self._weights
        coarse = np.empty((*values.shape[:-2], *self.grid.shape), np.float32)
        for field in np.ndindex(values.shape[:-2]):  # one by one, because in float64 all of them may exceed the memory
            coarse[field] = by_row @ values[field] @ by_column.T
        return coarse

    @cached_property
    def _weights(self) -> tuple[Weights, Weights]:
        """Weights (target, source) of rows and columns; sparse, so that a NaN outside of a cell does not affect it."""
        if self.method == "conservative":
            return _row_shares(self.source, self.grid), _column_shares(self.source, self.grid)
        return _between_rows(self.source, self.grid), _between_columns(self.source, self.grid)


def _check_coarser(source: Grid, target: Grid) -> None:
    steps = (source.latitude_step, target.latitude_step), (source.resolution, target.resolution)
    if any(coarse < fine * (1 - _ROUNDING) for fine, coarse in steps):
        raise GridError(
            f"data on {source} can only be regridded to that resolution or a coarser one, not to "
            f"{target.resolution:g}°; use finer data, or weights for a coarser grid"
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
    """Return the fraction of each target row's area that lies in each source row: an overlap in sine of latitude."""
    low, high = _overlaps(_row_bounds(source), _row_bounds(target))
    return _shares(np.sin(np.deg2rad(high)) - np.sin(np.deg2rad(low)))


def _column_shares(source: Grid, target: Grid) -> Weights:
    """Return the fraction of each target column's width that lies in each source column, also across 0°."""
    # Both begin near 0°, the target further west; the part west of the source is covered by its last column.
    turns = [_overlaps(_column_bounds(source) + turn, _column_bounds(target)) for turn in (-360, 0)]
    return _shares(np.sum([high - low for low, high in turns], axis=0))


def _overlaps(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the low and high bounds (target, source) of the overlap of cells; both are equal if there is none."""
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
    """Return the weights (target, source) of a linear interpolation along a periodic axis.

    Args:
        places: (target,) positions in units of source points, from 0.
        size: number of source points.
    """
    nearest = np.round(places)
    places = np.where(np.abs(places - nearest) < _ROUNDING, nearest, places)
    before = np.floor(places).astype(np.intp)
    targets = np.arange(places.size)
    weights = np.zeros((places.size, size))
    weights[targets, before % size] = 1 - (places - before)
    weights[targets, (before + 1) % size] += places - before
    return csr_array(weights)
