"""Find fields that do not match the geography of the Earth: shifted, upside down, inverted, or another variable.

The checks compare fields with coasts, with the computed solar radiation, with geostrophic balance and with the daily
cycle of temperature. Correct fields are far from the thresholds: on grids of 2 to 30 degrees, mask and orography have
correlations with land of 0.84 and 0.53 or more, and shifted ones of 0.3 at most. The synthetic planet passes because
its continents are roughly those of the Earth.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.coastlines import land_share
from graphcast_batch.errors import GridError
from graphcast_batch.grid import Grid, cell_area
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.inputs.quality.limits import standard_geopotential
from graphcast_batch.inputs.quality.locations import stamp
from graphcast_batch.sun import solar_radiation
from graphcast_batch.variables import DIMS, HOUR, LEVELS_37

Floats = NDArray[np.float64]
Fit = Callable[[Floats], float]
"""Returns how well a (lat, lon) field matches the geography, from -1 to 1."""

MASK: Final = "land_sea_mask"
OROGRAPHY: Final = "geopotential_at_surface"
SUN: Final = "toa_incident_solar_radiation"
_TEMPERATURE: Final = "2m_temperature"
_NORTHWARD: Final = "v_component_of_wind"

_FEWEST_COLUMNS: Final = 12
"""Least number of longitudes for the checks; a coarser grid has too few points."""
_FINE_ENOUGH: Final = 2.0
"""Spacing in degrees to which finer grids are subsampled."""
_LEAST_FIT: Final = {MASK: 0.5, OROGRAPHY: 0.35}
"""Least correlation with the land fraction."""
_AT_SEA: Final = 3e3
"""Largest geopotential of the surface at sea, m**2 s**-2: 300 m, three times the ripples of spectral fields."""
_LEAST_SUNLIGHT: Final = 0.9
"""Least correlation with the computed radiation; with a shift of an hour it is 0.95."""
_COARSEST_WIND: Final = 10.01
"""Largest spacing in degrees at which slopes are computed from differences of neighbors."""
_LEAST_BALANCE: Final = 0.3
"""Least correlation with the geostrophic wind: 0.9 and more for analyses, negative with latitudes upside down."""
_BALANCED: Final = 25, 75
"""Range of latitudes in degrees in which the wind is nearly geostrophic and meridians are not too close."""
_STEADY_LEVELS: Final = 200, 850
"""Range of levels in hPa in which the wind is nearly geostrophic."""
_TURNED: Final = 0.3
"""Least fit of a shifted field at which it is taken for shifted, if it does not fit as it is."""
_WARMEST_HOUR: Final = 15
"""Hour of the highest temperature on land, local solar time."""
_EARTH_RADIUS: Final = 6.371e6  # m, mean
_ROTATION: Final = 7.292e-5  # rad s**-1


@dataclass(frozen=True, eq=False)
class _Places:
    """Points of a grid, subsampled, with their land fraction and area."""

    rows: slice
    columns: slice
    latitude: Floats
    longitude: Floats
    land: Floats
    area: Floats

    def thin(self, field: NDArray[np.floating]) -> Floats:
        """Subsample a (..., lat, lon) field on all points."""
        return field[..., self.rows, self.columns].astype(np.float64)

    def correlation(self, one: Floats, other: Floats, weight: Floats | None = None) -> float:
        """Return the area-weighted correlation of two (lat, lon) fields; 0 if one of them is constant."""
        area = self.area if weight is None else self.area * weight
        here, there = (values - np.sum(values * area) / np.sum(area) for values in (one, other))
        norm = np.sum(here**2 * area) * np.sum(there**2 * area)
        return float(np.sum(here * there * area) / np.sqrt(norm)) if norm > 0 else 0.0


def find_misplaced(frames: xr.Dataset, forcings: xr.Dataset) -> list[Finding]:
    """Return the fields that do not match the geography of the Earth.

    Args:
        frames: variables with the coordinates latitude and longitude, ascending; variables with missing values are not
            checked.
        forcings: radiation at further times.
    """
    try:
        grid = Grid(frames["latitude"].values, frames["longitude"].values)
    except (KeyError, GridError):  # coordinates have checks of their own
        return []
    if grid.longitude.size < _FEWEST_COLUMNS or grid.latitude.size < _FEWEST_COLUMNS // 2:
        return []
    at = _places(grid)
    complete = [
        fields.drop_vars([name for name, array in fields.data_vars.items() if not _usable(array)])
        for fields in (frames, forcings)
    ]
    return [
        *_off_coasts(complete[0], at),
        *_out_of_balance(complete[0], at),
        *_turned(complete[0], at),
        *_sunless(complete, at),
    ]


def is_of_sea(mask: xr.DataArray) -> bool:
    """Return whether a land-sea mask is 1 at sea and 0 on land.

    Args:
        mask: (latitude, longitude) mask with coordinates, ascending.
    """
    grid = Grid(mask["latitude"].values, mask["longitude"].values)
    if grid.longitude.size < _FEWEST_COLUMNS or not _usable(mask):
        return False
    at = _places(grid)
    return at.correlation(at.thin(mask.values), at.land) <= -_LEAST_FIT[MASK]


def _usable(array: xr.DataArray) -> bool:
    """Return whether an array holds global fields in the order of `DIMS`, without missing values, and not constant."""
    if array.dims[-2:] != ("latitude", "longitude") or list(array.dims) != [dim for dim in DIMS if dim in array.dims]:
        return False
    return array.size > 0 and bool(np.isfinite(array.values).all()) and float(np.ptp(array.values)) > 0


@lru_cache(maxsize=2)
def _places(grid: Grid) -> _Places:
    rows, columns = (
        slice(None, None, max(1, int(_FINE_ENOUGH / step))) for step in (grid.latitude_step, grid.resolution)
    )
    latitude, longitude = grid.latitude[rows].astype(np.float64), grid.longitude[columns].astype(np.float64)
    area = np.broadcast_to(cell_area(grid.latitude)[rows, np.newaxis], (latitude.size, longitude.size))
    return _Places(rows, columns, latitude, longitude, land_share(grid)[rows, columns], area)


def _off_coasts(frames: xr.Dataset, at: _Places) -> Iterator[Finding]:
    for name, least in _LEAST_FIT.items():
        if name not in frames:
            continue
        field = _last(frames[name])

        def fit(values: Floats) -> float:
            return at.correlation(at.thin(values), at.land)

        found = fit(field)
        level = float(np.median(at.thin(field)[at.land == 0])) if name == OROGRAPHY else 0.0
        if found < least:
            what, remedy = _seems(name, field, found, fit)
            yield Finding(
                name,
                f"follow the coasts of the Earth, with a correlation of {least} or more with the land fraction",
                f"its correlation with the coasts is {found:.2f}{what}",
                remedy,
            )
        elif abs(level) > _AT_SEA:
            yield Finding(
                name,
                "be near 0 m**2 s**-2 at sea",
                f"it is {level:.0f} there",
                "give the geopotential of the surface itself, in inputs.statics for archives",
            )


def _seems(name: str, field: Floats, found: float, fit: Fit) -> tuple[str, str]:
    """Return what a field that does not follow the coasts looks like, and a remedy."""
    if name == MASK and -found >= _LEAST_FIT[MASK]:
        return ", as for a mask that is 1 at sea", "give the land fraction, 1 minus the values"
    best, words = _best_turn(fit, field)
    if best >= _LEAST_FIT[name]:
        return (
            f", but {best:.2f} with {words}",
            "correct the coordinates of the data, or the order of their rows and columns",
        )
    level = _level_of(float(field.mean())) if name == OROGRAPHY else None
    if level:
        return (
            f" and looks like the geopotential at about {level} hPa without its level",
            f"give that field its level, or leave it out, and give the {OROGRAPHY} (in inputs.statics for archives)",
        )
    return "", f"check whether it is the {name.replace('_', ' ')} of the Earth, and give that"


def _level_of(geopotential: float) -> int | None:
    """Return the level in hPa at which the geopotential has about this value; None if there is none."""
    heights = np.array([standard_geopotential(level) for level in LEVELS_37])
    near = int(np.argmin(np.abs(heights - geopotential)))
    return LEVELS_37[near] if abs(heights[near] - geopotential) <= max(2e3, 0.1 * heights[near]) else None


def _out_of_balance(frames: xr.Dataset, at: _Places) -> Iterator[Finding]:
    """Check that the northward wind is near balance with the eastward slope of the geopotential."""
    if not {"geopotential", _NORTHWARD} <= set(frames) or at.longitude[1] - at.longitude[0] > _COARSEST_WIND:
        return
    both = frames[["geopotential", _NORTHWARD]]
    levels = both["level"].values if "level" in both.coords else np.zeros(0)
    steady = levels[(levels >= _STEADY_LEVELS[0]) & (levels <= _STEADY_LEVELS[1])]
    if not steady.size:
        return
    level = steady[np.argmin(np.abs(steady - 500))]
    height, wind = (at.thin(_last(both[name].sel(level=level))) for name in both)
    rows = (np.abs(at.latitude) > _BALANCED[0]) & (np.abs(at.latitude) < _BALANCED[1])
    phi, step = np.deg2rad(at.latitude[rows, np.newaxis]), np.deg2rad(at.longitude[1] - at.longitude[0])
    slope = (np.roll(height, -1, 1) - np.roll(height, 1, 1))[rows] / (2 * step * _EARTH_RADIUS * np.cos(phi))
    balanced = np.zeros_like(wind)
    balanced[rows] = slope / (2 * _ROTATION * np.sin(phi))
    found = at.correlation(wind, balanced, np.broadcast_to(rows[:, np.newaxis], wind.shape).astype(np.float64))
    if found < _LEAST_BALANCE:
        yield Finding(
            f"{_NORTHWARD} and geopotential",
            f"be near balance, with a correlation of {_LEAST_BALANCE} or more with the geostrophic wind",
            f"at {level:g} hPa it is {found:.2f}"
            + (", as if north and south were exchanged" if found < -_LEAST_BALANCE else ""),
            "correct the latitudes of the data, or the names of the wind components",
            float(level),
        )


def _turned(frames: xr.Dataset, at: _Places) -> Iterator[Finding]:
    """Check fields that change with time by temperature: it rises on land in the morning, and is low on mountains."""
    if _TEMPERATURE not in frames or "time" not in frames[_TEMPERATURE].dims:
        return
    temperature, times = frames[_TEMPERATURE].values, frames["time"].values
    if len(temperature) > 1:
        before, after = (np.cos(2 * np.pi * (_hours(time, at) - _WARMEST_HOUR) / 24) for time in times[-2:])
        expected = np.broadcast_to(after - before, at.land.shape) * np.cos(np.deg2rad(at.latitude))[:, np.newaxis]

        def by_clock(change: Floats) -> float:
            return at.correlation(_zonal_anomaly(at.thin(change)), expected, at.land)

        change = temperature[-1].astype(np.float64) - temperature[-2]
        found, turned = by_clock(change), by_clock(np.roll(change, change.shape[1] // 2, 1))
        if found < 0 and turned > _TURNED:
            yield _of_turned("rise on land while the sun does", found, turned, "longitudes shifted by 180°")
            return
    if OROGRAPHY in frames:
        ground = _zonal_anomaly(at.thin(_last(frames[OROGRAPHY])))

        def by_ground(values: Floats) -> float:
            return -at.correlation(_zonal_anomaly(at.thin(values)), ground)

        found = by_ground(temperature[-1])
        turned, words = _best_turn(by_ground, temperature[-1])
        if found < _TURNED / 2 and turned > 1.5 * _TURNED:
            yield _of_turned(f"fall on the mountains of {OROGRAPHY}", found, turned, words)


def _of_turned(must: str, found: float, turned: float, words: str) -> Finding:
    return Finding(
        _TEMPERATURE,
        must,
        f"its correlation with that is {found:.2f}, and {turned:.2f} with {words}",
        "correct the longitudes and latitudes of the fields that change with time, and their hours",
    )


def _sunless(parts: list[xr.Dataset], at: _Places) -> Iterator[Finding]:
    """Check that radiation matches the position of the sun; yield one finding for all times."""
    for fields in parts:
        if SUN not in fields or "time" not in fields[SUN].dims:
            continue
        for time, field in zip(fields["time"].values, fields[SUN].values, strict=True):
            expected = solar_radiation(np.array([time]), at.latitude, at.longitude)[0].astype(np.float64)

            def fit(values: Floats, expected: Floats = expected) -> float:
                return at.correlation(at.thin(values), expected)

            found = fit(field)
            if found < _LEAST_SUNLIGHT:
                best, words = _best_turn(fit, field)
                yield Finding(
                    SUN,
                    "be the solar radiation of the hour before each time",
                    f"at {stamp(time)} its correlation with that is {found:.2f}"
                    + (f", and {best:.2f} with {words}" if best >= _LEAST_SUNLIGHT else ""),
                    "correct its times and coordinates, or leave it out of the data, so that it is computed",
                    time=time,
                )
                return


def _best_turn(fit: Fit, field: Floats) -> tuple[float, str]:
    """Return the best fit of a shifted or reversed field, and a description of the change."""
    columns = field.shape[1]
    found = []
    for upside_down in (False, True):
        rows = field[::-1] if upside_down else field
        for turn in range(0 if upside_down else 1, 24):
            words = ["latitudes upside down"] * upside_down + [f"longitudes shifted by {15 * turn}°"] * (turn > 0)
            found.append((fit(np.roll(rows, round(turn * columns / 24), 1)), " and ".join(words)))
    return max(found)


def _last(array: xr.DataArray) -> Floats:
    """Return the (lat, lon) field at the last time, or that of an array without time."""
    single = array.isel(time=-1) if "time" in array.dims else array
    return single.values.astype(np.float64)


def _zonal_anomaly(field: Floats) -> Floats:
    """Return the difference of a (lat, lon) field from the mean of each row."""
    return np.asarray(field - field.mean(axis=1, keepdims=True))


def _hours(time: np.datetime64, at: _Places) -> Floats:
    """Return the local mean solar time in hours, (lon,)."""
    return np.asarray((time - time.astype("datetime64[D]")) / HOUR + at.longitude / 15)
