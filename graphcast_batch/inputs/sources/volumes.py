"""Read one file or store of an archive in any known layout, at absolute times, in the model's names and units."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.inputs_section import Accumulation, DialectName
from graphcast_batch.errors import InputError
from graphcast_batch.inputs.formats.chunks import ReadCost, read_cost, stored
from graphcast_batch.inputs.formats.grib import LEAD_HOURS, LEFT_OUT
from graphcast_batch.inputs.formats.opening import open_data
from graphcast_batch.inputs.formats.remote import DEFAULT, Access
from graphcast_batch.inputs.layouts.axes import LEAD, only_lead, with_leads
from graphcast_batch.inputs.layouts.contents import Contents, describe, hours_of, is_instant, positions, times_of
from graphcast_batch.inputs.layouts.dialects import DIALECTS, VERSIONS, Translation, translation
from graphcast_batch.inputs.layouts.expanding import expanded
from graphcast_batch.inputs.layouts.gridded import read_at_indices, read_fields
from graphcast_batch.inputs.layouts.members import member_place, of_member
from graphcast_batch.inputs.layouts.time_coordinates import check_dates
from graphcast_batch.inputs.layouts.units import LEVEL
from graphcast_batch.inputs.layouts.windows import Windows, windows_of
from graphcast_batch.inputs.provenance import Provenance, provenance
from graphcast_batch.inputs.window_names import PERIODS
from graphcast_batch.variables import VARIABLES

_LEVELLED: Final = frozenset(name for name, variable in VARIABLES.items() if variable.kind == "level")


@dataclass(frozen=True)
class Reading:
    """The options of the configuration for reading the files of an archive.

    Attributes:
        dialect: layout of the files; None to recognize it.
        names: the model's names of variables and coordinates, by their names in the files.
        units: units by the model's names, which take precedence over those of the files.
        precipitation: accumulation of ``total_precipitation``; None for that of the layout.
        access: credentials and options for remote files.
        member: number of the member of an ensemble that is read, without what all members share; None for files
            without members.
    """

    dialect: DialectName | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    precipitation: Accumulation | None = None
    access: Access = DEFAULT
    member: int | None = None


class Volume:
    """A file or store of an archive, which is open only while it is read.

    Attributes:
        origin: path or address of the file.
        contents: grid, times, levels and variables of the file.
        translation: translation of its names and units to the model's.
        attributes: its global attributes.
        provenance: provenance of the data.
        stored: shape and chunks of each variable in the file, by the model's names.
        warnings: known variables that are not read, each with the reason, as text.
        windows: windows of the precipitation fields, one element for each variable.
        periods: lengths of the time windows of summed or averaged variables in hours, if the file is GRIB.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: the file cannot be read, has no known layout, or its times are not dates, repeat or do not ascend.
        GridError: its points do not form a global grid.
    """

    def __init__(self, origin: str, reading: Reading) -> None:
        self.origin = origin
        self._reading = reading
        self._hours: dict[str, NDArray[np.float64]] = {}
        with open_data(origin, reading.access, reading.member) as complete:
            self._place = self._place_of_member(complete)
            opened = of_member(complete, self._place)
            raw = with_leads(opened, reading.names, origin)
            self.translation: Translation = translation(raw, origin, reading.dialect, reading.names, reading.units)
            dataset = self._translated(raw)
            self.contents: Contents = describe(dataset, origin, self.translation.conversions)
            usual = DIALECTS[self.translation.dialect].precipitation
            windows = windows_of(dataset, self.contents, reading.precipitation, usual)
            self.attributes = {str(key): str(value) for key, value in raw.attrs.items()}
            versions = raw[VERSIONS].values.ravel().tolist() if VERSIONS in raw.variables else []
            self.provenance: Provenance = provenance(raw.attrs, versions, origin)
            named = self.translation.rename(complete)
            self.stored = {str(name): stored(array.variable) for name, array in named.data_vars.items()}
            self._leads = _leads(named)
            lead = only_lead(opened, reading.names)
            self._is_start = lead is not None and not opened[lead].values.astype(np.float64)
            known = {*DIALECTS["grib"].variables, *reading.names}
            self.warnings = [text for name, text in raw.encoding.get(LEFT_OUT, {}).items() if name in known]
            self.periods = _periods(dataset)
        self.windows = tuple(found.between(*self._span) for found in windows)
        _check_times(self.contents, origin)

    def times_of(self, name: str) -> NDArray[np.datetime64]:
        """Return the times at which the file holds a variable, (time,) datetime64[ns], ascending.

        It is empty for a variable that the file does not hold, or holds without time.
        """
        if "time" not in self.contents.dims.get(name, ()):
            return np.zeros(0, "datetime64[ns]")
        times = times_of(self.contents, name)
        return times[self._within_span(times)]

    def levels_of(self, name: str) -> tuple[int, ...]:
        """Return the levels of a variable, hPa, ascending; empty for a variable without levels."""
        return self.contents.levels if LEVEL in self.contents.dims.get(name, ()) else ()

    def lead_hours(self, name: str, level: int | None) -> NDArray[np.float64] | None:
        """Return the lead time of the field at each of `times_of`.

        Args:
            name: name of a variable with time.
            level: level in hPa; None for a variable without levels.

        Returns:
            (time,) hours since the start of the forecast of the field, NaN where there is no field; None if the file
            does not state lead times, and so holds every field.
        """
        if self.contents.init_times is not None:
            if name not in self._hours:
                self._hours[name] = hours_of(self.contents, name)[self._within_span(times_of(self.contents, name))]
            return self._hours[name]
        if self._is_start and is_instant(name):
            return np.zeros(self.times_of(name).size)
        if name not in self._leads:
            return None
        leads = self._leads[name]
        if level is None:
            return np.asarray(np.fmin.reduce(leads.reshape(len(leads), -1), axis=1))
        return leads[:, self.contents.order[LEVEL][self.contents.levels.index(level)]]

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Read variables, times and levels that the file holds.

        Raises:
            InputError: the data cannot be read.
        """
        with self._opened() as dataset:
            return read_fields(dataset, self.contents, names, times, levels)

    def cost(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> ReadCost:
        """Return the cost of reading fields, computed from the chunks; nothing is read."""
        where = {**positions(self.contents, times, levels), **self._indices_of_member}
        return read_cost({name: self.stored[name] for name in names}, where)

    def sums(self, windows: Windows, which: NDArray[np.intp]) -> NDArray[np.float32]:
        """Read precipitation in m over some windows of one variable: (field, latitude, longitude).

        Raises:
            InputError: the data cannot be read.
        """
        with self._opened() as dataset:
            return read_at_indices(dataset, self.contents, windows.name, windows.indices_of(which))

    def sums_cost(self, windows: Windows, which: NDArray[np.intp]) -> ReadCost:
        """Return the cost of reading precipitation over some windows, computed from the chunks; nothing is read."""
        where = {**windows.indices_of(which), **self._indices_of_member}
        return read_cost({windows.name: self.stored[windows.name]}, where)

    def _within_span(self, times: NDArray[np.datetime64]) -> NDArray[np.bool_]:
        first, last = self._span
        return (times.astype("datetime64[D]") >= first) & (times.astype("datetime64[D]") <= last)

    @cached_property
    def _span(self) -> tuple[np.datetime64, np.datetime64]:
        """First and last day with data: the time axis of ARCO-ERA5 reaches decades ahead, attributes state its end."""
        first = self.attributes.get("valid_time_start", "0001-01-01")
        last = self.attributes.get("valid_time_stop", "9999-12-31")
        try:
            return np.datetime64(first, "D"), np.datetime64(self.attributes.get("valid_time_stop_era5t", last), "D")
        except ValueError as error:
            raise InputError(
                f"the attributes valid_time_* of {self.origin} must be dates such as 2020-01-31, but are not: {error}; "
                "correct them"
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[xr.Dataset]:
        with open_data(self.origin, self._reading.access, self._reading.member) as complete:
            opened = of_member(complete, self._place)
            yield self._translated(with_leads(opened, self._reading.names, self.origin))

    def _place_of_member(self, complete: xr.Dataset) -> Mapping[str, int]:
        """Return the dimension and the index of the member that is read; empty where none is or has to be selected."""
        number = self._reading.member
        return {} if number is None else member_place(complete, self._reading.names, number, self.origin)

    @property
    def _indices_of_member(self) -> dict[str, NDArray[np.intp]]:
        named = self.translation.names
        return {named.get(axis, axis): np.asarray([index], np.intp) for axis, index in self._place.items()}

    def _translated(self, raw: xr.Dataset) -> xr.Dataset:
        if "datetime" in raw.variables and "batch" in raw.dims:
            raise InputError(
                f"{self.origin} must be an archive, but is a GraphCast dataset file; use inputs.kind: datasets"
            )
        dataset = _at_its_level(self.translation.apply(raw))
        times = dataset.variables.get("time")
        moving = any("time" in array.dims for array in dataset.data_vars.values())
        if times is not None and not times.dims and LEAD not in dataset.dims:
            dataset = expanded(dataset, dataset.data_vars, "time")
            times = dataset.variables["time"]
        if moving and (times is None or times.dims != ("time",)):
            found = "none" if times is None else f"{times.dtype} with dimensions {times.dims}"
            raise InputError(
                f"{self.origin} must have the dimension time with dates of the standard calendar, but has {found}; "
                'give time units such as "hours since 1900-01-01" and the calendar "standard"'
            )
        if moving and times is not None:
            named = [old for old, new in self.translation.names.items() if new == "time" and old in raw.variables]
            check_dates(times, (named or ["time"])[0], self.origin)
        return dataset


def _at_its_level(dataset: xr.Dataset) -> xr.Dataset:
    """Add a dimension level of size 1 if a scalar coordinate gives the level of all fields."""
    level = dataset.variables.get(LEVEL)
    on = [name for name, array in dataset.data_vars.items() if name in _LEVELLED and LEVEL not in array.dims]
    if level is None or level.dims or not on:
        return dataset
    return expanded(dataset, on, LEVEL)


def _leads(named: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """Return the lead times of variables that state them, (time, [level]) hours in the order of the file."""
    return {
        str(name): np.asarray(array.encoding[LEAD_HOURS], np.float64)
        for name, array in named.data_vars.items()
        if LEAD_HOURS in array.encoding
    }


def _periods(dataset: xr.Dataset) -> dict[str, frozenset[float]]:
    said = {str(name): np.atleast_1d(array.attrs.get(PERIODS, "")) for name, array in dataset.data_vars.items()}
    return {name: frozenset(hours.tolist()) for name, hours in said.items() if np.issubdtype(hours.dtype, np.number)}


def _check_times(contents: Contents, origin: str) -> None:
    times = contents.times if contents.init_times is None else contents.init_times
    wrong = np.flatnonzero(~(np.diff(times) > np.timedelta64(0, "ns")))
    if wrong.size:
        before, after = times[wrong[0]], times[wrong[0] + 1]
        what = "is there twice" if before == after else f"follows {before}"
        raise InputError(
            f"the times of {origin} must ascend, each once, but {after} {what}; sort them, and drop repeats and "
            "missing dates"
        )
