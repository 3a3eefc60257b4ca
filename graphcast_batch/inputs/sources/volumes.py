"""Read one file or store of an archive in any known layout, at absolute times, in our names and units."""

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
from graphcast_batch.inputs.layouts.dialects import DIALECTS, VERSIONS, Translation, translation
from graphcast_batch.inputs.layouts.expanding import expanded
from graphcast_batch.inputs.layouts.gridded import (
    Contents,
    describe,
    hours_of,
    is_instant,
    positions,
    read_fields,
    read_places,
    times_of,
)
from graphcast_batch.inputs.layouts.time_coordinates import check_dates
from graphcast_batch.inputs.layouts.units import LEVEL
from graphcast_batch.inputs.layouts.windows import Windows, windows_of
from graphcast_batch.inputs.provenance import Provenance, provenance
from graphcast_batch.inputs.window_names import PERIODS
from graphcast_batch.variables import VARIABLES

_LEVELLED: Final = frozenset(name for name, variable in VARIABLES.items() if variable.kind == "level")


@dataclass(frozen=True)
class Reading:
    """How the files of an archive are to be understood.

    Attributes:
        dialect: their layout; None to recognise it.
        names: theirs to ours, beyond the dialect.
        units: by our names, where the data are silent or wrong.
        precipitation: since when ``total_precipitation`` is summed up; None as the dialect has it.
        access: to remote ones.
    """

    dialect: DialectName | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    precipitation: Accumulation | None = None
    access: Access = DEFAULT


class Volume:
    """A file or store; opened only while it is read.

    Attributes:
        origin: its path or address.
        contents: what it holds.
        translation: of its names and units.
        attributes: of the whole, as stored.
        provenance: whose data they are, as far as they say.
        stored: how each variable lies there, by our names.
        warnings: which of the variables that we know is not read, and why.
        windows: over which time its precipitation is summed up, a variable each.
        periods: over how many hours its messages sum up or average each variable that they do, if it is GRIB.

    Raises:
        InputNotFoundError: there is none.
        InputError: it cannot be read, is in no known layout, or its times are no dates, repeat or are out of order.
        GridError: its points are not a global grid.
    """

    def __init__(self, origin: str, reading: Reading) -> None:
        self.origin = origin
        self._reading = reading
        self._hours: dict[str, NDArray[np.float64]] = {}
        with open_data(origin, reading.access) as opened:
            raw = with_leads(opened, reading.names, origin)
            self.translation: Translation = translation(raw, origin, reading.dialect, reading.names, reading.units)
            dataset = self._translated(raw)
            self.contents: Contents = describe(dataset, origin, self.translation.conversions)
            usual = DIALECTS[self.translation.dialect].precipitation
            windows = windows_of(dataset, self.contents, reading.precipitation, usual)
            self.attributes = {str(key): str(value) for key, value in raw.attrs.items()}
            versions = raw[VERSIONS].values.ravel().tolist() if VERSIONS in raw.variables else []
            self.provenance: Provenance = provenance(raw.attrs, versions, origin)
            named = self.translation.rename(opened)
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
        """(time,) datetime64[ns] times at which a variable is held, ascending; none of one without time."""
        if "time" not in self.contents.dims.get(name, ()):
            return np.zeros(0, "datetime64[ns]")
        times = times_of(self.contents, name)
        return times[self._within_span(times)]

    def levels_of(self, name: str) -> tuple[int, ...]:
        """Levels of a variable, hPa, ascending; none of one without level."""
        return self.contents.levels if LEVEL in self.contents.dims.get(name, ()) else ()

    def lead_hours(self, name: str, level: int | None) -> NDArray[np.float64] | None:
        """(time,) hours since the start of the forecast that each field is of, NaN where it is absent.

        Args:
            name: of a variable with time.
            level: hPa; None of a variable without level.

        Returns:
            None where the file does not say, and holds every field.
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
        """Reads variables, times and levels that are held, and nothing else.

        Raises:
            InputError: the data cannot be read.
        """
        with self._opened() as dataset:
            return read_fields(dataset, self.contents, names, times, levels)

    def cost(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> ReadCost:
        """What reading them fetches, told from the chunks; nothing is read."""
        return read_cost({name: self.stored[name] for name in names}, positions(self.contents, times, levels))

    def sums(self, windows: Windows, which: NDArray[np.intp]) -> NDArray[np.float32]:
        """Reads (field, latitude, longitude) precipitation, m, of some windows of one of its variables.

        Raises:
            InputError: the data cannot be read.
        """
        with self._opened() as dataset:
            return read_places(dataset, self.contents, windows.name, windows.places_of(which))

    def sums_cost(self, windows: Windows, which: NDArray[np.intp]) -> ReadCost:
        """What reading them fetches, told from the chunks; nothing is read."""
        return read_cost({windows.name: self.stored[windows.name]}, windows.places_of(which))

    def _within_span(self, times: NDArray[np.datetime64]) -> NDArray[np.bool_]:
        first, last = self._span
        return (times.astype("datetime64[D]") >= first) & (times.astype("datetime64[D]") <= last)

    @cached_property
    def _span(self) -> tuple[np.datetime64, np.datetime64]:
        """The days that hold data: ARCO-ERA5 lays its time axis out for decades to come, and says how far it is."""
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
        with open_data(self.origin, self._reading.access) as opened:
            yield self._translated(with_leads(opened, self._reading.names, self.origin))

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
    """With a dimension level, of one place, where a coordinate says on which level all of the file lies."""
    level = dataset.variables.get(LEVEL)
    on = [name for name, array in dataset.data_vars.items() if name in _LEVELLED and LEVEL not in array.dims]
    if level is None or level.dims or not on:
        return dataset
    return expanded(dataset, on, LEVEL)


def _leads(named: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """(time, [level]) hours since the start of each field's forecast, in the order of the file, where it says so."""
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
    wrong = np.flatnonzero(~(np.diff(times) > np.timedelta64(0)))
    if wrong.size:
        before, after = times[wrong[0]], times[wrong[0] + 1]
        what = "is there twice" if before == after else f"follows {before}"
        raise InputError(
            f"the times of {origin} must ascend, each once, but {after} {what}; sort them, drop repeats and what is no "
            "date"
        )
