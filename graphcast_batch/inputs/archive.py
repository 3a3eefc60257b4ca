"""One archive, a netCDF file, a zarr store or a synthetic planet, becomes the inputs and truth of any Case."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config import Task
from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.inputs.gridded import describe, in_our_names, read_fields
from graphcast_batch.inputs.opening import open_netcdf, open_zarr
from graphcast_batch.inputs.states import CaseInputs, read_inputs, read_truth
from graphcast_batch.plan import Case
from graphcast_batch.variables import VARIABLES

_PLACE: Final = ("latitude", "longitude")
_DIMS_OF_KIND: Final = {
    "surface": ("time", *_PLACE),
    "level": ("time", "level", *_PLACE),
    "static": _PLACE,
}


class Archive:
    """A netCDF file or zarr store of fields at absolute times; opened only while it is read.

    Attributes:
        origin: its path.

    Raises:
        InputNotFoundError: there is none.
        InputError: it cannot be read, or its times are no dates, repeat or are out of order.
        GridError: its points are not a global grid.
    """

    def __init__(self, path: str | Path) -> None:
        self.origin = str(path)
        with self._opened() as dataset:
            self._contents = describe(dataset, self.origin)
        _check_times(self._contents.times, self.origin)

    @property
    def grid(self) -> Grid:
        """The points."""
        return self._contents.grid

    @property
    def times(self) -> NDArray[np.datetime64]:
        """(time,) datetime64[ns] times held, ascending."""
        return self._contents.times

    @property
    def levels(self) -> tuple[int, ...]:
        """Pressure levels held, hPa, ascending."""
        return self._contents.levels

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of every variable held, in our names."""
        return self._contents.dims

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Reads variables, times and levels that are held, and nothing else.

        Raises:
            InputError: the data cannot be read.
        """
        with self._opened() as dataset:
            return read_fields(dataset, self._contents, names, times, levels)

    def read(self, case: Case, task: Task) -> CaseInputs:
        """Reads what a Case starts from.

        Raises:
            InputError: the archive lacks a variable, level or time, or cannot be read.
        """
        return read_inputs(self, case, task)

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """What really came, as far as the archive holds it; see `read_truth`."""
        return read_truth(self, case, names, levels)

    @contextmanager
    def _opened(self) -> Iterator[xr.Dataset]:
        is_zarr = "://" in self.origin or os.path.isdir(self.origin)
        with open_zarr(self.origin) if is_zarr else open_netcdf(Path(self.origin)) as dataset:
            yield _with_dates(in_our_names(dataset), self.origin)


class Planet(Protocol):
    """What makes fields up, at any time and place."""

    def fields(
        self, names: Sequence[str], times: NDArray[np.datetime64], grid: Grid, levels: Sequence[int]
    ) -> xr.Dataset:
        """Fields of some variables; static ones without time."""


class SyntheticArchive:
    """A made-up planet as an archive that holds every time.

    Raises:
        GridError: the resolution does not divide the half circle.
    """

    times: None = None
    origin = "the synthetic planet"

    def __init__(self, planet: Planet, resolution: float, levels: Sequence[int]) -> None:
        self.grid = regular_grid(resolution)
        self.levels = tuple(sorted(levels))
        self.dims: Mapping[str, tuple[str, ...]] = {
            name: _DIMS_OF_KIND[variable.kind] for name, variable in VARIABLES.items() if variable.kind in _DIMS_OF_KIND
        }
        self._planet = planet

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Fields of variables that ``dims`` names at any time, on any level."""
        if not names:
            return xr.Dataset(coords={"time": times, "latitude": self.grid.latitude, "longitude": self.grid.longitude})
        return self._planet.fields(names, times, self.grid, levels)

    def read(self, case: Case, task: Task) -> CaseInputs:
        """Makes what a Case starts from.

        Raises:
            InputError: the planet lacks a variable or level.
        """
        return read_inputs(self, case, task)

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """What really comes on the planet; see `read_truth`."""
        return read_truth(self, case, names, levels)


def _with_dates(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    if "datetime" in dataset.variables and "batch" in dataset.dims:
        raise InputError(f"{origin} must be an archive, but is a GraphCast dataset file; use inputs.kind: datasets")
    times = dataset.variables.get("time")
    if times is None or times.dims != ("time",) or not np.issubdtype(times.dtype, np.datetime64):
        found = "none" if times is None else f"{times.dtype} with dimensions {times.dims}"
        raise InputError(
            f"{origin} must have the dimension time with dates of the standard calendar, but has {found}; "
            'give time units such as "hours since 1900-01-01" and the calendar "standard"'
        )
    return dataset


def _check_times(times: NDArray[np.datetime64], origin: str) -> None:
    if not times.size:
        raise InputError(f"{origin} must hold at least one time, but holds none")
    wrong = np.flatnonzero(~(np.diff(times) > np.timedelta64(0)))
    if wrong.size:
        before, after = times[wrong[0]], times[wrong[0] + 1]
        what = "is there twice" if before == after else f"follows {before}"
        raise InputError(f"the times of {origin} must ascend, each once, but {after} {what}; sort them, drop repeats")
