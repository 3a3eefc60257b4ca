"""Read one GraphCast dataset file, and what its name states about its content.

Format of the files that DeepMind published with GraphCast: dimensions batch (1), time (since the first frame), lat,
lon, level, with the absolute times in the coordinate datetime (batch, time).
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.case_inputs import input_times
from graphcast_batch.inputs.formats.chunks import ReadCost, read_cost, stored
from graphcast_batch.inputs.formats.opening import open_data
from graphcast_batch.inputs.layouts.contents import Contents, describe, positions
from graphcast_batch.inputs.layouts.dialects import translation
from graphcast_batch.inputs.layouts.gridded import read_fields
from graphcast_batch.inputs.layouts.time_coordinates import check_dates
from graphcast_batch.inputs.provenance import provenance
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task

_NAME: Final = re.compile(
    r"source-(?P<source>.+)_date-(?P<date>\d{4}-\d\d-\d\d)_res-(?P<resolution>\d+(\.\d+)?)"
    r"_levels-(?P<levels>\d+)_steps-(?P<steps>\d+)\.nc"
)
_FRAMES_BEFORE_STEPS: Final = 2
"""Number of frames that the names of the published files do not count as steps: the two input frames."""


@dataclass(frozen=True)
class DatasetName:
    """The content of a dataset file as its name states it.

    Attributes:
        source: name of the data, such as ``era5``.
        date: day of the first frame.
        resolution: spacing of the grid in degrees.
        levels: number of pressure levels.
        steps: number of frames after the first two.
    """

    source: str
    date: date
    resolution: float
    levels: int
    steps: int


def parse_dataset_name(name: str) -> DatasetName | None:
    """Parse a name like ``source-era5_date-2022-01-01_res-1.0_levels-13_steps-04.nc``; return None for other names."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    with suppress(ValueError):  # the date does not exist
        return DatasetName(
            source=match["source"],
            date=date.fromisoformat(match["date"]),
            resolution=float(match["resolution"]),
            levels=int(match["levels"]),
            steps=int(match["steps"]),
        )
    return None


class DatasetFile:
    """A dataset file as a timeline (see `Timeline`).

    Attributes:
        origin: path of the file.
        provenance: provenance of the data, from attributes and name of the file.

    Raises:
        InputError: the file is not a dataset file, contradicts its name or cannot be read.
        GridError: its points do not form a global grid.
    """

    def __init__(self, path: Path, names: Mapping[str, str], units: Mapping[str, str]) -> None:
        """Read the coordinates of a file.

        Args:
            path: path of the file.
            names: the model's names of variables, by their names in the file.
            units: units by the model's name or ``level``, which take precedence over those of the file.
        """
        self.origin = str(path)
        self._path = path
        with open_data(self.origin) as dataset:
            absolute = _on_absolute_times(dataset, path)
            self._translation = translation(absolute, self.origin, "graphcast", names, units)
            self._contents = describe(self._translation.apply(absolute), self.origin, self._translation.conversions)
            self.provenance = provenance(dataset.attrs, (), path.name)
            named = self._translation.rename(absolute)
            self._stored = {str(name): stored(array.variable) for name, array in named.data_vars.items()}
        _check_name(path, self._contents)

    @property
    def grid(self) -> Grid:
        """Grid of the fields."""
        return self._contents.grid

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Times of the frames, (time,) datetime64[ns]."""
        return self._contents.times

    @property
    def levels(self) -> tuple[int, ...]:
        """Pressure levels, hPa, ascending."""
        return self._contents.levels

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of every variable, in the model's names, without batch."""
        return self._contents.dims

    def times_of(self, names: Sequence[str]) -> NDArray[np.datetime64]:
        """Return the times of all frames: a file holds every variable at each of its times."""
        return self.times

    @property
    def units(self) -> Mapping[str, str]:
        """Units that variables are converted from, by the model's names."""
        return self._translation.units

    @property
    def moved_seconds(self) -> float:
        """Largest difference between a stored time and the whole minute that it was rounded to."""
        return self._contents.moved_seconds

    def cost(self, case: Case, task: Task) -> ReadCost:
        """Return the cost of reading the inputs of a Case, computed from the chunks."""
        names = {*task.input_variables, *task.forcing_variables} & self._stored.keys()
        times = input_times(case.init_time, task)
        where = positions(self._contents, times, task.pressure_levels)
        return read_cost({name: self._stored[name] for name in sorted(names)}, where)

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Read variables, times and levels that the file holds; see `Timeline.fields`."""
        with open_data(self.origin) as dataset:
            absolute = self._translation.apply(_on_absolute_times(dataset, self._path))
            return read_fields(absolute, self._contents, names, times, levels)


def _on_absolute_times(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    """Return a dataset without the dimension batch, whose time is the coordinate datetime."""
    if dataset.sizes.get("batch", 1) != 1:
        raise InputError(
            f"the dimension batch of {path} must have size 1, but has {dataset.sizes['batch']}; "
            "write each forecast's frames into a file of its own"
        )
    if "datetime" not in dataset.variables or "time" not in dataset.dims:
        raise InputError(
            f"{path} must have the dimension time and the coordinate datetime (batch, time), but has the dimensions "
            f"{', '.join(map(str, dataset.dims)) or 'none'} and the coordinates "
            f"{', '.join(map(str, dataset.coords)) or 'none'}; if its times are absolute, use inputs.kind: archive"
        )
    single = dataset.isel(batch=0) if "batch" in dataset.dims else dataset
    times = single["datetime"]
    if times.dims != ("time",):
        raise InputError(
            f"the coordinate datetime of {path} must hold a date for each batch and time, but has the dimensions "
            f"{', '.join(map(str, dataset['datetime'].dims)) or 'none'}; give it those"
        )
    check_dates(times.variable, "datetime", str(path))
    absolute = single.drop_vars(["batch", "datetime"], errors="ignore")
    return absolute.assign_coords(time=times.values.astype("datetime64[ns]"))


def _check_name(path: Path, contents: Contents) -> None:
    name = parse_dataset_name(path.name)
    if name is None or not contents.times.size:
        return
    first = contents.times[0].astype("datetime64[D]").astype(date)
    steps = contents.times.size - _FRAMES_BEFORE_STEPS
    parts = (
        ("date", name.date, first, name.date != first),
        ("res", name.resolution, contents.grid.resolution, abs(name.resolution - contents.grid.resolution) > 1e-3),
        ("levels", name.levels, len(contents.levels), name.levels != len(contents.levels)),
        ("steps", name.steps, steps, name.steps != steps),
    )
    wrong = [f"{part} is {said} in the name and {found} in the file" for part, said, found, differ in parts if differ]
    if wrong:
        raise InputError(f"the name of {path} contradicts its content: {'; '.join(wrong)}; rename or replace the file")
