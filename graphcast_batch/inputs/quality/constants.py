"""Find normalization statistics that cannot be those of weather: swapped files, other units, other levels."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import permutations
from typing import Final

import xarray as xr

from graphcast_batch.inputs.quality.limits import least_peak, limits
from graphcast_batch.variables import VARIABLES

_KINDS: Final = ("mean", "stddev", "diffs_stddev")
_MEANS: Final = {"total_precipitation_6hr": (5e-5, 5e-3)}
"""Limits of means for which the limits of values are too wide: a tenth of the Earth's mean, and ten times that."""
_LEAST_STDDEV: Final = {
    "total_precipitation_6hr": 2e-4,
    "toa_incident_solar_radiation": 3e5,
    "geopotential_at_surface": 2e3,
}
"""Least standard deviations: a fifth of the Earth's, or less."""
_HUMID: Final = 0.1
"""Least mean humidity, as a fraction of the least value of its maximum over the globe."""
_STAND_IN: Final = 1.0
"""Standard deviation that is stored for a constant variable."""
_ROUNDING: Final = 1.05


def find_implausible(statistics: Mapping[str, xr.Dataset], names: Iterable[str], levels: Iterable[int]) -> str | None:
    """Return the first value that cannot be that of weather, with a possible cause, as text; None if there is none.

    Args:
        statistics: the datasets mean, stddev and diffs_stddev, with variables that are scalar or by ``level``.
        names: names of the variables that are needed.
        levels: levels that are needed, in hPa.
    """
    needed, wanted = tuple(names), tuple(levels)
    first = next(_faults(statistics, needed, wanted), None)
    if first is None:
        return None
    for order in permutations(_KINDS):
        other = {kind: statistics[found] for kind, found in zip(_KINDS, order, strict=True)}
        if order != _KINDS and next(_faults(other, needed, wanted), None) is None:
            files = ((found, kind) for found, kind in zip(order, _KINDS, strict=True) if found != kind)
            swapped = " and ".join(f"the {kind} is in the file of the {found}" for found, kind in files)
            return f"{first}; it looks as if {swapped}: rename these files"
    return first


def _faults(statistics: Mapping[str, xr.Dataset], names: Iterable[str], levels: Iterable[int]) -> Iterator[str]:
    for name in names:
        if name not in VARIABLES:
            continue
        on_levels = name in statistics["mean"] and "level" in statistics["mean"][name].dims
        for level in levels if on_levels else (None,):
            mean, stddev, change = (_value(statistics[kind], name, level) for kind in _KINDS)
            yield from _of_place(name, level, mean, stddev, change)


def _of_place(
    name: str, level: int | None, mean: float | None, stddev: float | None, change: float | None
) -> Iterator[str]:
    known = limits(name, level)
    if known is None or mean is None or stddev is None:
        return
    low, high = known
    units, where = VARIABLES[name].units, "" if level is None else f" at {level} hPa"
    least, most = _MEANS.get(name, (low, high))
    if name == "specific_humidity":
        least = max(least, _HUMID * (least_peak(name, level) or 0.0))
    if not least <= mean <= most:
        yield f"the mean of {name}{where} must lie within {least:g} and {most:g} {units}, but is {mean:g}"
    smallest, largest = _LEAST_STDDEV.get(name, 0.0), (high - low) / 2
    if stddev != _STAND_IN and not smallest <= stddev <= largest:
        yield (
            f"the stddev of {name}{where} must lie within {smallest:g} and {largest:g} {units}, as that of values "
            f"within {low:g} and {high:g} does, but is {stddev:g}"
        )
    if change is not None and change > 2 * _ROUNDING * stddev:
        yield (
            f"the diffs_stddev of {name}{where} must be at most twice the stddev of {stddev:g} {units}, but is "
            f"{change:g}"
        )


def _value(dataset: xr.Dataset, name: str, level: int | None) -> float | None:
    """Return one value; None if it is missing, which is checked elsewhere."""
    if name not in dataset:
        return None
    array = dataset[name]
    if "level" in array.dims:
        if level is None or level not in array["level"].values:
            return None
        array = array.sel(level=level)
    return float(array) if array.size == 1 else None
