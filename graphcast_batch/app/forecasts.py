"""Open the forecasts of a store as a dataset, with valid times and the extent of each forecast."""

from pathlib import Path
from typing import Final, Literal

import numpy as np
import xarray as xr

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.errors import StoreError
from graphcast_batch.stores.base import OF_ENSEMBLES, Store
from graphcast_batch.stores.store_kinds import open_store

_CHUNKING: Final = ("chunks", "shards", "preferred_chunks")
"""What xarray keeps, in the encoding of a variable, of how its values are parted in the files."""


def open_forecasts(store: AnyPath, *, only_complete: bool = True, chunks: Literal["files"] | None = None) -> xr.Dataset:
    """Open the forecasts of a store; values are read when they are used.

    >>> forecasts = gb.open_forecasts("runs/demo")
    >>> forecasts["2m_temperature"].sel(time="2020-01-01T12").isel(prediction_timedelta=-1).mean()
    >>> gb.open_forecasts("runs/demo", chunks="files").to_zarr("copy.zarr")  # without reading all of it into memory

    Args:
        store: folder of the store.
        only_complete: whether to leave out initial times without a complete forecast, of an ensemble those without a
            complete member; otherwise their missing values are NaN.
        chunks: "files" gives dask arrays with a chunk for each file, which are computed and copied chunk by chunk; it
            needs dask. By default values are NumPy's, and a copy reads each variable as a whole.

    Returns:
        float32 variables over (time, [number], prediction_timedelta, [level], latitude, longitude), initial times
        ascending. The coordinate ``valid_time`` (time, prediction_timedelta) is the time that a forecast is for, and
        ``complete_hours`` (time, [number]) is the lead time in hours up to which the forecast is complete, 0 if it is
        not or its values were removed (``outputs.members``); later values must not be used. With an ensemble,
        ``number`` has coordinates that say what each member is.
        The attribute ``incomplete`` names the Cases without a complete forecast. The encoding of the variables does not
        say how the files are chunked, so that ``to_zarr`` chunks a copy as the dataset is chunked: where it follows
        the shards of the files, some versions of xarray lose values and others refuse to write.

    Raises:
        StoreError: there is no store, it keeps only scores, or none of its forecasts is complete.
    """
    opened = open_store(Path(store))
    if opened.only_scores:
        raise StoreError(f"{opened.path} must keep forecasts, but keeps only scores (outputs: none); see its scores")
    steps = opened.ledger.complete_steps()
    keys = [case.key for case in opened.cases(1)]
    dims = ("time", "number") if opened.members else ("time",)
    shape = (opened.init_times.size, len(opened.members))[: len(dims)]
    hours = np.array([opened.step_hours * steps.get(key, 0) for key in keys], np.int32).reshape(shape)
    places = np.argsort(opened.init_times, kind="stable")
    if only_complete:
        longest = hours.max(axis=1) if opened.members else hours
        places = places[longest[places] > 0]
        if not places.size and opened.ledger.dropped_steps():
            raise StoreError(
                f"{opened.path} must keep members, but those that were made are removed (outputs.members: none); open "
                f"what is kept of all of them together, {opened.path / OF_ENSEMBLES}"
            )
        if not places.size:
            raise StoreError(
                f"{opened.path} must hold a complete forecast, but holds none of {len(keys)} yet; run it first, or see "
                "graphcast-batch status"
            )
    described = {"long_name": "lead time up to which the forecast is complete", "units": "hours"}
    forecasts = opened.forecasts().assign_coords(complete_hours=(dims, hours, described))
    chosen = forecasts.isel(time=_as_slice(places)).assign_attrs(
        incomplete=" ".join(key for key in sorted(keys) if key not in steps)
    )
    chosen = chosen.assign_coords(valid_time=_valid_time(chosen))
    for variable in chosen.variables.values():
        variable.encoding = {key: value for key, value in variable.encoding.items() if key not in _CHUNKING}
    if chunks is None:
        return chosen
    return chosen.assign({name: array.chunk(_of_files(opened)) for name, array in chosen.items()})


def _of_files(store: Store) -> dict[str, int]:
    """Return the size of a file along the axes that have several files."""
    return {"time": 1, "prediction_timedelta": store.block_steps} | ({"number": 1} if store.members else {})


def _valid_time(forecasts: xr.Dataset) -> xr.DataArray:
    valid = forecasts["time"] + forecasts["prediction_timedelta"]
    return valid.assign_attrs(standard_name="time", long_name="time that the forecast is for")


def _as_slice(places: np.ndarray[tuple[int], np.dtype[np.intp]]) -> slice | np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return consecutive indices as a slice, which is read faster than a list of indices."""
    first, last = int(places[0]), int(places[-1]) + 1
    return slice(first, last) if np.array_equal(places, np.arange(first, last)) else places
