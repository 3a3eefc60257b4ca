"""Find values that cannot be weather: missing values, zeros, constant fields, wrong units."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.grid import cell_area
from graphcast_batch.inputs.findings import SILENT, Finding, Stated
from graphcast_batch.inputs.layouts.gridded import ZEROS_MISSING
from graphcast_batch.inputs.layouts.units import conversion
from graphcast_batch.inputs.quality.limits import Limits, least_peak, limits
from graphcast_batch.inputs.quality.locations import finding, first, level_and_time
from graphcast_batch.variables import VARIABLES

Extremes = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Lowest and highest value of every global field, along the dimensions of an array without latitude and longitude."""

_LARGEST = 1e36
"""Larger than any value of a field; netCDF's default fill value is 9.97e36."""

_NONZERO_FROM: Final = {  # in hPa; from this level down, values are exactly 0 only by chance; 0 for all levels or none
    "2m_temperature": 0,
    "mean_sea_level_pressure": 0,
    "10m_u_component_of_wind": 0,
    "10m_v_component_of_wind": 0,
    "temperature": 0,
    "geopotential": 0,
    "u_component_of_wind": 0,
    "v_component_of_wind": 0,
    "vertical_velocity": 100,  # above, packing has steps as large as the values
}
_VARIES_FROM: Final = {  # in hPa; from this level down, a field is never constant
    **_NONZERO_FROM,
    "vertical_velocity": 0,
    "specific_humidity": 300,  # above, archives may hold one value
    "land_sea_mask": 0,
}
_NEVER_BLANK_FROM: Final = {
    **_NONZERO_FROM,
    "specific_humidity": 300,
    "total_precipitation_6hr": 0,
    "toa_incident_solar_radiation": 0,
    "geopotential_at_surface": 0,
}
"""Levels in hPa from which down a field is never 0 everywhere."""
_CHANGING: Final = frozenset({*_VARIES_FROM} - {"land_sea_mask"})
_SMOOTH: Final = ("temperature", "2m_temperature", "geopotential")
"""Variables with a small difference between neighbors in a row: most of their variance is between equator and poles."""
_MOST_ZEROS: Final = 0.1
"""Largest fraction of a field that may be exactly 0: packed data have less, and unwritten chunks of zarr more."""
_RAIN: Final = "total_precipitation_6hr"
_RAIN_MEANS: Final = (2.5e-4, 2e-3)
"""Limits of the global mean over 6 h in m: it is 7e-4 (2.9 mm a day: Adler et al. 2017,
doi:10.1007/s10712-017-9416-4)."""
_SAMPLE: Final = 30
"""Least number of longitudes at which the global mean is reliable."""
_FEW: Final = 0.01
"""Largest fraction of values beyond the limits that are taken for single broken values: a wrong unit affects more."""
_CORRECT: Final = "correct the data, or use others"

_MIXED_UP: Final = {  # by the model's unit: units that the data are likely to have instead
    "K": ("C",),
    "Pa": ("hPa",),
    "m": ("mm",),
    "m**2 s**-2": ("m", "dam"),
    "kg kg**-1": ("g kg-1",),
    "J m**-2": ("W m-2",),
    "1": ("%",),
}


def find_gap(array: xr.DataArray) -> Finding | None:
    """Return a finding of values that are not finite or were never written; None if there are none.

    Args:
        array: a variable of any dimensions, with or without coordinates.
    """
    return _gap(array, _extremes(array))


def find_fault(array: xr.DataArray, stated: Stated = SILENT) -> Finding | None:
    """Return the first reason why the values of a variable cannot be weather, which may be the cause of others.

    Args:
        array: a variable of any dimensions, with or without coordinates.
        stated: unit that the values were converted from.
    """
    if not array.size:  # a variable without times
        return None
    extremes = _extremes(array)
    return (
        _gap(array, extremes)
        or _zeros(array)
        or find_blank(array)
        or _constant(array, extremes)
        or _beyond_limits(array, extremes, stated)
        or _low_peak(array, extremes, stated)
        or _wrong_sum(array, stated)
    )


def find_blank(array: xr.DataArray) -> Finding | None:
    """Return a finding of fields that are 0 everywhere and never are on the Earth; None if there are none.

    Args:
        array: a variable of any dimensions, with or without coordinates.
    """
    if array.name not in _NEVER_BLANK_FROM:
        return None
    lowest, highest = _extremes(array)
    return finding(
        _one_place(array),
        (lowest == 0) & (highest == 0) & _is_from(_NEVER_BLANK_FROM[str(array.name)], array),
        "not be 0 everywhere",
        "fields are 0 all over the globe",
        "the data hold no values of it there: leave it out, or use others",
    )


def _gap(array: xr.DataArray, extremes: Extremes) -> Finding | None:
    lowest, highest = extremes
    # A NaN makes both extremes of its field NaN, and no comparison with it holds.
    if np.all(lowest > -_LARGEST) and np.all(highest < _LARGEST):
        return None
    bad = ~(np.abs(array.values) < _LARGEST)
    remedy = "fill them from another source, or use other data"
    if array.attrs.get(ZEROS_MISSING):
        remedy = (
            "its fill value is 0, so its zeros read as missing: if they are data, write it with another (in zarr, set "
            "fill_value to null in its .zarray and consolidate the metadata), or fill them"
        )
    return finding(array, bad, "be finite", "values are missing or infinite", remedy)


def _zeros(array: xr.DataArray) -> Finding | None:
    if array.name not in _NONZERO_FROM:
        return None
    # Some archives have no wind at the poles, which are many of the points of a coarse grid.
    inner = array.isel(latitude=slice(1, -1)) if array.sizes.get("latitude", 0) > 2 else array
    share = np.asarray((inner.values == 0).mean(axis=_across(inner)))
    return finding(
        _one_place(array),
        (share > _MOST_ZEROS) & _is_from(_NONZERO_FROM[str(array.name)], array),
        f"be exactly 0 in no more than {_MOST_ZEROS:.0%} of a field",
        f"fields are 0 in up to {share.max(initial=0):.0%}",
        "chunks that were never written read as 0: complete the data, or use other times",
    )


def _constant(array: xr.DataArray, extremes: Extremes) -> Finding | None:
    if array.name not in _VARIES_FROM:
        return None
    lowest, highest = extremes
    one_value = (lowest == highest) & _is_from(_VARIES_FROM[str(array.name)], array)
    if not one_value.any():
        return None
    return finding(
        _one_place(array),
        one_value,
        "vary over the globe",
        f"fields hold one value everywhere, {lowest[first(one_value)]:g} in the first",
        "complete the data, or use other times",
    )


def _beyond_limits(array: xr.DataArray, extremes: Extremes, stated: Stated) -> Finding | None:
    (lowest, highest), (low, high) = extremes, _bounds(array)
    if not np.any((lowest < low) | (highest > high)):
        return None
    low, high = (np.expand_dims(side, _across(array)) for side in (low, high))
    bad = (array.values < low) | (array.values > high)
    least, most = (np.broadcast_to(side, bad.shape)[first(bad)] for side in (low, high))
    return finding(
        array,
        bad,
        f"lie within {least:g} and {most:g}{_units(array)}{_at_level(array, bad)}",
        f"values lie beyond such limits, at {lowest.min():g} to {highest.max():g} in all{stated}",
        _unit_remedy(array, extremes, stated) if bad.mean() > _FEW else _CORRECT,
    )


def _low_peak(array: xr.DataArray, extremes: Extremes, stated: Stated) -> Finding | None:
    peaks, largest = _peaks(array), np.maximum(*map(np.abs, extremes))
    low = largest < peaks
    if not np.any(low):
        return None
    least = np.broadcast_to(peaks, low.shape)[first(low)]
    return finding(
        _one_place(array),
        low,
        f"reach {least:g}{_units(array)} somewhere on the globe{_at_level(array, low)}",
        f"fields do not, and the lowest reaches {largest[low].min():g}{stated}",
        _unit_remedy(array, extremes, stated),
    )


def _wrong_sum(array: xr.DataArray, stated: Stated) -> Finding | None:
    """Check by the global mean, which hardly changes, that precipitation is the sum over 6 h."""
    if array.name != _RAIN or not {"latitude", "longitude"} <= set(array.coords) or array.sizes["longitude"] < _SAMPLE:
        return None
    area = xr.DataArray(cell_area(array["latitude"].values), dims="latitude")
    means = np.asarray((array.astype(np.float64).mean("longitude") * area).mean("latitude").values)
    least, most = _RAIN_MEANS
    wrong = (means < least) | (means > most)
    if not wrong.any():
        return None
    return finding(
        _one_place(array),
        wrong,
        f"have a mean over the globe within {least:g} and {most:g} m",
        f"fields do not, and have {means.min():.2g} to {means.max():.2g} m{stated}",
        "check whether they are sums over 6 h, and neither rates nor sums over another time",
    )


def _units(array: xr.DataArray) -> str:
    units = VARIABLES[str(array.name)].units
    return "" if units == "1" else f" {units}"


def _at_level(array: xr.DataArray, bad: NDArray[np.bool_]) -> str:
    """Return the level of the first bad value as text; empty for a variable without levels."""
    place = first(bad)
    level, _ = level_and_time(array if bad.ndim == array.ndim else _one_place(array), place)
    return "" if level is None else f" at {level:g} hPa"


def _unit_remedy(array: xr.DataArray, extremes: Extremes, stated: Stated) -> str:
    """Return the remedy to state a unit, if all values are within the limits with another unit; else a general one."""
    name, (low, high), peaks = str(array.name), _bounds(array), _peaks(array)
    ours = VARIABLES[name].units
    was = conversion(name, stated.unit, "the inputs")
    stored = tuple((side - was.offset) / was.factor for side in extremes)
    for unit in (ours, *_MIXED_UP.get(ours, ())):
        to_ours = conversion(name, unit, "the inputs")
        lowest, highest = (to_ours.factor * side + to_ours.offset for side in stored)
        if np.all((lowest >= low) & (highest <= high) & (np.maximum(-lowest, highest) >= peaks)):
            return f"this looks like {unit}: give inputs.units {{{stated.key or name}: {unit!r}}}, or convert it"
    return _CORRECT


def _bounds(array: xr.DataArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the limits of an array's global fields, infinite if unknown, in a shape to broadcast with `_extremes`."""
    unlimited: Limits = (-np.inf, np.inf)
    known = [limits(str(array.name), level) or unlimited for level in _levels(array)]
    low, high = (_along_levels([pair[side] for pair in known], array) for side in (0, 1))
    return low, high


def _peaks(array: xr.DataArray) -> NDArray[np.float64]:
    """Return the least value of the largest magnitude of each global field; 0 if it is unknown."""
    return _along_levels([least_peak(str(array.name), level) or 0.0 for level in _levels(array)], array)


def _is_from(floor: float, array: xr.DataArray) -> NDArray[np.bool_]:
    """Return which of an array's global fields are at the level ``floor`` (hPa), below it, or on no level."""
    return _along_levels([level is None or level >= floor for level in _levels(array)], array) > 0


def _levels(array: xr.DataArray) -> list[float | None]:
    """Return the levels of an array in hPa; None for each level without a coordinate, and once without levels."""
    if "level" in array.dims and "level" in array.coords:
        return [float(level) for level in array["level"].values]
    return [None] * array.sizes.get("level", 1)


def _along_levels(values: Sequence[float], array: xr.DataArray) -> NDArray[np.float64]:
    """Return one value for each level, in a shape to broadcast with an array's global fields."""
    rest = [dim for dim in array.dims if dim not in ("latitude", "longitude")]
    return np.asarray(values, np.float64).reshape([len(values) if dim == "level" else 1 for dim in rest])


def _extremes(array: xr.DataArray) -> Extremes:
    axes = _across(array)
    return np.asarray(array.values.min(axis=axes)), np.asarray(array.values.max(axis=axes))


def _across(array: xr.DataArray) -> tuple[int, ...]:
    """Return the axes of latitude and longitude."""
    return tuple(axis for axis, dim in enumerate(array.dims) if dim in ("latitude", "longitude"))


def _one_place(array: xr.DataArray) -> xr.DataArray:
    """Return an array with one value for each global field."""
    return array.isel(latitude=0, longitude=0, missing_dims="ignore").drop_vars(
        ["latitude", "longitude"], errors="ignore"
    )


def find_repeats(frames: xr.Dataset) -> Iterator[Finding]:
    """Yield findings of frames that equal the frame before in all values of a variable that always changes."""
    moving = {name: array for name, array in frames.data_vars.items() if "time" in array.dims and name in _CHANGING}
    for later in range(1, frames.sizes.get("time", 0)):
        same = [
            name
            for name, array in moving.items()
            if np.array_equal(array.isel(time=later - 1).values, array.isel(time=later).values)
        ]
        if same:
            yield Finding(
                ", ".join(map(str, same)),
                _change_expected(frames, later),
                f"the frames number {later} and {later + 1} are the same in every value",
                "check whether the data repeat a frame, and use other times",
                time=frames["time"].values[later] if "time" in frames.coords else None,
            )


def _change_expected(frames: xr.Dataset, later: int) -> str:
    if "time" not in frames.coords:
        return "change from one frame to the next"
    hours = (frames["time"].values[later] - frames["time"].values[later - 1]) / np.timedelta64(1, "h")
    return f"change within {hours:g} h"


def is_noise(frames: xr.Dataset) -> bool:
    """Return whether frames are random numbers, as in tests: neighbors differ as much as any two points.

    Medians are compared, so that single broken values do not matter.
    """
    arrays = [frames[name] for name in _SMOOTH if name in frames and "longitude" in frames[name].dims]
    return bool(arrays) and all(find_gap(array) is None and _differs_as_much(array) for array in arrays)


def _differs_as_much(array: xr.DataArray) -> bool:
    values, axes = array.values, _across(array)
    steps = np.abs(values - np.roll(values, 1, axis=array.dims.index("longitude")))
    deviations = np.abs(values - np.median(values, axis=axes, keepdims=True))
    # For independent normal numbers, the left side is the square root of 2 times the right side.
    return bool(np.all(np.median(steps, axis=axes) > np.median(deviations, axis=axes)))
