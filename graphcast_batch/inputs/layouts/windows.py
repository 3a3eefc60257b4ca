"""Find the time window over which each precipitation field of a file is summed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.inputs_section import Accumulation
from graphcast_batch.inputs.layouts.axes import LEAD
from graphcast_batch.inputs.layouts.contents import Contents
from graphcast_batch.inputs.layouts.coordinates import lead_times
from graphcast_batch.inputs.layouts.dialects import ACCUMULATED, SUM_HOURS, SUMMED
from graphcast_batch.inputs.layouts.time_coordinates import to_whole_minutes
from graphcast_batch.inputs.window_names import WINDOW, WINDOW_BOUNDS

HOUR: Final = np.timedelta64(1, "h").astype("timedelta64[ns]")
SUM: Final = SUM_HOURS * HOUR
_NOT_A_TIME: Final = np.datetime64("NaT", "ns")

Times = NDArray[np.datetime64]
WindowKind = Accumulation | Literal["messages", "name"] | None
"""What determines the begin of the windows: the accumulation of the variable, each GRIB message, or the name of the
variable; None if the begin is unknown."""

_BASIS: Final = {"name": "by its name", "messages": "as its messages state"}


@dataclass(frozen=True, eq=False)
class Windows:
    """The fields of one precipitation variable of a file, and the window of each.

    Attributes:
        name: the model's name of the variable.
        kind: what determines the begin of the windows; None if it is unknown.
        basis: where ``kind`` is stated, as text.
        start: (field,) datetime64[ns] begin of each window; NaT if it is unknown.
        end: (field,) datetime64[ns] end of each window.
        init: (field,) datetime64[ns] initial time of the forecast of each field; NaT for a field of no forecast.
        indices: (field,) index of each field along the stored dimensions, by dimension.
    """

    name: str
    kind: WindowKind
    basis: str
    start: Times
    end: Times
    init: Times
    indices: Mapping[str, NDArray[np.intp]]

    def between(self, first: np.datetime64, last: np.datetime64) -> "Windows":
        """Return the windows that end between two days, both included."""
        days = self.end.astype("datetime64[D]")
        kept = (days >= first) & (days <= last)
        if kept.all():
            return self
        indices = self.indices_of(np.flatnonzero(kept))
        return Windows(self.name, self.kind, self.basis, self.start[kept], self.end[kept], self.init[kept], indices)

    def indices_of(self, which: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
        """Return the indices of some of the fields along the stored dimensions, by dimension."""
        return {dim: indices[which] for dim, indices in self.indices.items()}


def windows_of(
    dataset: xr.Dataset, contents: Contents, given: Accumulation | None, usual: Accumulation | None
) -> tuple[Windows, ...]:
    """Return the windows of all precipitation fields of a dataset.

    Args:
        dataset: an open dataset in the model's names.
        contents: contents of the dataset.
        given: accumulation of ``total_precipitation`` in the configuration, which takes precedence over GRIB messages.
        usual: accumulation of ``total_precipitation`` in this layout, which is used if there are no GRIB messages.
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
    stated, end, init, indices = _of_messages(dataset) if by_message else _of_times(dataset[name], dataset, contents)
    kind: WindowKind = "name" if name == SUMMED else given or ("messages" if by_message else usual)
    if kind == "hourly" and LEAD not in indices:  # a field at step 0 that is not marked as a sum is of no forecast
        init = np.where(np.isnat(stated) & (init == end), _NOT_A_TIME, init)
    starts = {"name": end - SUM, "hourly": end - HOUR, "since_start": init}
    basis = f"inputs.precipitation: {kind}" if kind == given else _BASIS.get(kind or "", f"{kind} in this layout")
    return Windows(name, kind, basis, starts.get(kind or "", stated), end, init, indices)


def _of_messages(dataset: xr.Dataset) -> tuple[Times, Times, Times, Mapping[str, NDArray[np.intp]]]:
    start, end, init = (np.asarray(dataset[bound].values, "datetime64[ns]") for bound in WINDOW_BOUNDS)
    return start, end, init, {WINDOW: np.arange(end.size)}


def _of_times(
    array: xr.DataArray, dataset: xr.Dataset, contents: Contents
) -> tuple[Times, Times, Times, Mapping[str, NDArray[np.intp]]]:
    """Return unknown begins, ends, initial times and indices of fields by time, or by initial and lead time."""
    if contents.init_times is not None and LEAD in array.dims:
        place, lead = (axis.ravel() for axis in np.indices((contents.init_times.size, contents.lead_times.size)))
        init = contents.init_times[place]
        end = np.asarray(init + contents.lead_times[lead])
        indices = {dim: where for dim, where in (("time", place), (LEAD, lead)) if dim in array.dims}
        return np.full_like(end, "NaT"), end, init, indices
    end = to_whole_minutes(np.asarray(dataset["time"].values, "datetime64[ns]"))
    unknown = np.full_like(end, "NaT")
    init = np.asarray(end - lead_times(dataset, contents.origin)) if LEAD in dataset.coords else unknown
    return unknown, end, init, {"time": np.arange(end.size)}
