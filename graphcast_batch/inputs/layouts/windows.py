"""Find the window of time over which each precipitation field of a file is summed up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.inputs_section import Accumulation
from graphcast_batch.inputs.layouts.axes import LEAD
from graphcast_batch.inputs.layouts.coordinates import lead_times
from graphcast_batch.inputs.layouts.dialects import ACCUMULATED, SUM_HOURS, SUMMED
from graphcast_batch.inputs.layouts.gridded import Contents
from graphcast_batch.inputs.layouts.time_coordinates import to_whole_minutes
from graphcast_batch.inputs.window_names import WINDOW, WINDOW_BOUNDS

HOUR: Final = np.timedelta64(1, "h").astype("timedelta64[ns]")
SUM: Final = SUM_HOURS * HOUR
_NOT_A_TIME: Final = np.datetime64("NaT", "ns")

Times = NDArray[np.datetime64]
WindowKind = Accumulation | Literal["messages", "name"] | None
"""What tells the starts of windows: how all of a variable are summed up, each GRIB message, or the variable's name."""

_WHENCE: Final = {"name": "by its name", "messages": "as its messages say"}


@dataclass(frozen=True, eq=False)
class Windows:
    """The fields of one precipitation variable of a file, and the window of each.

    Attributes:
        name: of the variable, ours.
        kind: what tells the starts; None where nothing does.
        said: where that is said, for people.
        start: (field,) datetime64[ns] where the sum begins; NaT where that is not known.
        end: (field,) datetime64[ns] where it ends.
        init: (field,) datetime64[ns] initial time of the forecast that it belongs to; NaT where it belongs to none.
        places: (field,) where each field lies along the stored dimensions, by dimension.
    """

    name: str
    kind: WindowKind
    said: str
    start: Times
    end: Times
    init: Times
    places: Mapping[str, NDArray[np.intp]]

    def between(self, first: np.datetime64, last: np.datetime64) -> "Windows":
        """Those that end from one day to another, both included."""
        days = self.end.astype("datetime64[D]")
        kept = (days >= first) & (days <= last)
        if kept.all():
            return self
        places = self.places_of(np.flatnonzero(kept))
        return Windows(self.name, self.kind, self.said, self.start[kept], self.end[kept], self.init[kept], places)

    def places_of(self, which: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
        """Where some of the fields lie, by dimension."""
        return {dim: where[which] for dim, where in self.places.items()}


def windows_of(
    dataset: xr.Dataset, contents: Contents, given: Accumulation | None, usual: Accumulation | None
) -> tuple[Windows, ...]:
    """The windows of all precipitation fields of a dataset.

    Args:
        dataset: in our names, still open.
        contents: its description.
        given: since when ``total_precipitation`` is summed up, as the configuration has it, whatever messages say.
        usual: since when it is summed up in this layout; of messages it says nothing.
    """
    return tuple(
        _windows(dataset, name, contents, given, usual) for name in (SUMMED, ACCUMULATED) if _is_moving(dataset, name)
    )


def _is_moving(dataset: xr.Dataset, name: str) -> bool:
    return name in dataset.data_vars and not {"time", LEAD, WINDOW}.isdisjoint(dataset[name].dims)


def _windows(
    dataset: xr.Dataset, name: str, contents: Contents, given: Accumulation | None, usual: Accumulation | None
) -> Windows:
    by_message = WINDOW in dataset[name].dims
    said, end, init, places = _of_messages(dataset) if by_message else _of_times(dataset[name], dataset, contents)
    kind: WindowKind = "name" if name == SUMMED else given or ("messages" if by_message else usual)
    if kind == "hourly" and LEAD not in places:  # at step 0, and by no message a sum: it belongs to no forecast
        init = np.where(np.isnat(said) & (init == end), _NOT_A_TIME, init)
    starts = {"name": end - SUM, "hourly": end - HOUR, "since_start": init}
    whence = f"inputs.precipitation: {kind}" if kind == given else _WHENCE.get(kind or "", f"{kind} in this layout")
    return Windows(name, kind, whence, starts.get(kind or "", said), end, init, places)


def _of_messages(dataset: xr.Dataset) -> tuple[Times, Times, Times, Mapping[str, NDArray[np.intp]]]:
    start, end, init = (np.asarray(dataset[bound].values, "datetime64[ns]") for bound in WINDOW_BOUNDS)
    return start, end, init, {WINDOW: np.arange(end.size)}


def _of_times(
    array: xr.DataArray, dataset: xr.Dataset, contents: Contents
) -> tuple[Times, Times, Times, Mapping[str, NDArray[np.intp]]]:
    """Unknown starts, ends, initial times and places of fields by time, or by initial and lead time."""
    if contents.init_times is not None and LEAD in array.dims:
        place, lead = (axis.ravel() for axis in np.indices((contents.init_times.size, contents.lead_times.size)))
        init = contents.init_times[place]
        end = np.asarray(init + contents.lead_times[lead])
        places = {dim: where for dim, where in (("time", place), (LEAD, lead)) if dim in array.dims}
        return np.full_like(end, "NaT"), end, init, places
    end = to_whole_minutes(np.asarray(dataset["time"].values, "datetime64[ns]"))
    unknown = np.full_like(end, "NaT")
    init = np.asarray(end - lead_times(dataset, contents.origin)) if LEAD in dataset.coords else unknown
    return unknown, end, init, {"time": np.arange(end.size)}
