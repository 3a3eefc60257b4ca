"""A seed and a time become the weather of an invented Earth: balanced, travelling, reproducible.

Everything balanced follows from one function, the geopotential: a climate plus travelling waves, both known in closed
form at any height, latitude and time. Its slope with height is the temperature, its horizontal slopes are the wind.
The functions work on zonal wavenumbers, one complex amplitude each, until `_Air.field` makes fields of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid
from graphcast_batch.variables import VARIABLES, attributes

Floats = NDArray[np.float64]
Modes = NDArray[np.complex128]

_EPOCH = np.datetime64("2000-01-01", "ns")
_NEAR_SURFACE = np.array([700.0, 1000.0])  # hPa; what the fields at the surface are made from
_DIMS = {
    "level": ("time", "level", "latitude", "longitude"),
    "surface": ("time", "latitude", "longitude"),
    "static": ("latitude", "longitude"),
}
_RADIUS = 6.371e6  # m
_ROTATION = 7.292e-5  # rad s**-1
_GRAVITY = 9.80665  # m s**-2
_DAY = 86400  # s
_DRY_AIR = 287.05  # J kg**-1 K**-1
_KAPPA = 2 / 7  # gas constant over heat capacity of dry air
_LAPSE = 6.5e-3  # K m**-1, ICAO standard atmosphere
_REFERENCE = 1000.0  # hPa, where height, ln(reference / pressure), is 0
_LARGEST_WAVENUMBER = 16
_SLOPE_STEP = 1e-3  # of height, and of latitude in radians, for central differences of smooth functions

# Zonal mean temperature, K, roughly as in ERA5's climate (Hersbach et al. 2020, doi:10.1002/qj.3803). A row is a
# pressure in hPa; the yearly mean at 0, 30, 60 and 90 degrees; then what the north pole has above the south pole,
# and how much warmer a pole is at the height of its summer than on average.
_CLIMATE = np.array(
    [
        (1000, 299.5, 293.0, 275.0, 252.0, 14, 12),
        (850, 290.5, 286.0, 268.0, 250.0, 10, 11),
        (700, 282.0, 277.0, 261.5, 246.0, 8, 10),
        (500, 267.0, 261.5, 247.0, 234.5, 5, 9),
        (300, 242.0, 235.5, 223.0, 218.0, 3, 7),
        (200, 219.5, 218.5, 219.0, 217.0, 3, 8),
        (100, 193.5, 204.0, 219.0, 216.0, 4, 12),
        (50, 207.0, 211.0, 217.5, 211.0, 4, 17),
        (10, 231.0, 229.5, 226.0, 221.0, 2, 19),
        (1, 264.0, 263.0, 260.0, 258.0, 1, 17),
    ]
)
# Zonal mean of the pressure at sea level, hPa above 1012: height, centre and width in the sine of the latitude.
_PRESSURE_BELTS = ((7.0, 0.52, 0.2), (7.0, -0.50, 0.2), (-4.0, 0.88, 0.13), (-28.0, -0.91, 0.15))

# Land as round patches: latitude, longitude, radius, in degrees; and mountains, with heights in m beside.
_LAND = (
    *((52, 255, 20), (64, 250, 16), (38, 262, 13), (54, 287, 10), (22, 258, 6), (14, 272, 4), (73, 318, 11)),
    *((-4, 300, 15), (-12, 310, 13), (-28, 298, 11), (-42, 291, 6), (-50, 289, 4), (18, 6, 16), (20, 24, 15)),
    *((6, 30, 13), (-8, 24, 13), (-23, 25, 11), (-19, 46, 4), (24, 46, 8), (50, 12, 10), (62, 22, 8), (55, 40, 14)),
    *((60, 70, 16), (62, 100, 17), (64, 135, 14), (48, 85, 16), (45, 112, 13), (33, 65, 11), (22, 78, 9)),
    *((30, 107, 11), (17, 102, 5), (0, 113, 5), (-5, 141, 4), (-25, 127, 10), (-25, 142, 10), (36, 139, 3)),
    *((-88, 60, 17), (-77, 95, 13), (-77, 30, 12), (-80, 255, 10), (-42, 172, 3), (65, 176, 7), (54, 357, 4)),
)
_MOUNTAINS = (
    *((33, 82, 6, 2900), (33, 92, 7, 3100), (40, 74, 5, 2000), (48, 97, 8, 1500), (34, 52, 7, 1100), (62, 130, 9, 600)),
    *((50, 243, 6, 1300), (41, 250, 7, 1900), (32, 254, 6, 1500), (62, 220, 6, 1000), (73, 319, 9, 2500)),
    *((-3, 281, 4, 2400), (-12, 287, 4, 3000), (-20, 292, 5, 3500), (-30, 290, 4, 2600), (-42, 289, 4, 1000)),
    *((9, 38, 6, 1700), (-4, 33, 7, 900), (-26, 26, 9, 900), (46, 10, 3, 1100), (42, 44, 4, 1000)),
    *((-82, 70, 14, 2400), (-77, 30, 9, 1600), (-80, 240, 9, 1100)),
)


@dataclass(frozen=True)
class SyntheticPlanet:
    """An Earth whose weather is a pure function of time; another seed has the same climate and other weather."""

    seed: int = 0

    def fields(
        self, names: Sequence[str], times: NDArray[np.datetime64], grid: Grid, levels: Sequence[int]
    ) -> xr.Dataset:
        """Variables of GraphCast's published tasks, except the forcings.

        Args:
            names: of variables on levels, at the surface or static.
            times: (time,) valid times, UTC.
            grid: the points; a place has the same weather on every grid that holds it.
            levels: pressures in hPa.

        Returns:
            float32 variables (time, level, latitude, longitude), or without level at the surface, or without time
            and level where static. Precipitation is the rate at the time, times 6 h.

        Raises:
            InputError: a name is not among the variables it has.
        """
        known = sorted({*_ON_LEVELS, *_AT_SURFACE, *_STATIC})
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(
                f"the synthetic planet has no {', '.join(unknown)}; it has {', '.join(known)}; ask for those only, "
                "or name an archive that holds the others"
            )
        coords = {"time": np.asarray(times, "datetime64[ns]"), "level": np.asarray(levels, np.int32)}
        coords |= {"latitude": grid.latitude, "longitude": grid.longitude}
        dims = {name: _DIMS[VARIABLES[name].kind] for name in names}
        values = {name: np.empty([coords[dim].size for dim in dims[name]], np.float32) for name in names}
        ground, weather = _ground(grid), _weather(self.seed)
        for name in set(names) & set(_STATIC):
            values[name][:] = _STATIC[name](ground)
        for n, days in enumerate((coords["time"] - _EPOCH) / np.timedelta64(1, "D")):
            aloft = _Air(weather, days, coords["level"].astype(np.float64), ground)
            below = _Air(weather, days, _NEAR_SURFACE, ground)
            for name in set(names) - set(_STATIC):
                values[name][n] = _ON_LEVELS[name](aloft) if name in _ON_LEVELS else _AT_SURFACE[name](below)
        return xr.Dataset({name: (dims[name], values[name], attributes(name)) for name in names}, coords)


@dataclass(frozen=True, eq=False)
class _Ground:
    """The grid and what lies under the air.

    Attributes:
        latitude: (lat,) radians.
        longitude: (lon,) radians.
        land: (lat, lon) share of land, 0..1, exactly 0 at sea.
        height: (lat, lon) m, exactly 0 at sea.
    """

    latitude: Floats
    longitude: Floats
    land: Floats
    height: Floats


def _ground(grid: Grid) -> _Ground:
    latitude, longitude = (np.deg2rad(values.astype(np.float64)) for values in (grid.latitude, grid.longitude))
    cosine, z = _cosine(latitude)[:, np.newaxis], np.broadcast_to(np.sin(latitude)[:, np.newaxis], grid.shape)
    points = np.stack([cosine * np.cos(longitude), cosine * np.sin(longitude), z])
    x, y, _ = points
    bays = 0.2 * np.sin(13 * x + 9 * z) * np.sin(14 * y - 8 * z) + 0.12 * np.sin(37 * x - 31 * y) * np.sin(
        41 * z + 9 * x
    )
    shore = bays + sum(_patch(points, patch[:3], 2) for patch in _LAND)
    share = np.clip((shore - 0.33) / 0.2, 0, 1)
    land = share**2 * (3 - 2 * share)
    peaks = 250 + sum(patch[3] * _patch(points, patch[:3], 1) for patch in _MOUNTAINS)
    return _Ground(
        latitude, longitude, land, land * peaks * (1 + 0.3 * np.sin(31 * x + 17 * z) * np.sin(29 * y - 13 * z))
    )


def _patch(points: Floats, place: tuple[float, ...], steepness: int) -> Floats:
    """(lat, lon) round bump of height 1; from points (3, lat, lon) and latitude, longitude, radius in degrees."""
    phi, lam, radius = np.deg2rad(place)
    centre = np.array([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    squared = 2 * (1 - np.tensordot(centre, points, 1)) / radius**2
    return np.asarray(np.exp(-(squared**steepness)))


@dataclass(frozen=True, eq=False)
class _Waves:
    """Travelling waves, a row each.

    Attributes:
        wavenumber: (wave,) crests around the globe.
        frequency: (wave,) radians a day, > 0 eastward.
        centre: (wave,) latitude of the largest amplitude, radians.
        width: (wave,) radians.
        amplitude: (wave,) there, in the unit of what waves.
        phase: (wave,) radians.
    """

    wavenumber: NDArray[np.int64]
    frequency: Floats
    centre: Floats
    width: Floats
    amplitude: Floats
    phase: Floats

    def modes(self, days: float, profile: Modes | Floats, latitude: Floats, summer: float) -> Modes:
        """Sum of the waves of each wavenumber, (wavenumber, level, lat).

        Args:
            days: since the epoch.
            profile: (level,) amplitude and phase by height.
            latitude: (lat,) radians.
            summer: share by which waves of the northern hemisphere are weaker, and southern ones stronger.
        """
        size = self.amplitude * (1 - summer * np.sign(self.centre))
        turned = size * np.exp(1j * (self.phase - self.frequency * days))
        away = (latitude - self.centre[:, np.newaxis]) / self.width[:, np.newaxis]
        crests = np.exp((0.7j - 1) * away**2)  # bent back on both flanks, as jets bend them
        total = np.zeros((_LARGEST_WAVENUMBER + 1, latitude.size), np.complex128)
        np.add.at(total, self.wavenumber, turned[:, np.newaxis] * crests * _cosine(latitude) ** 2)
        return np.asarray(profile[:, np.newaxis] * total[:, np.newaxis])


@dataclass(frozen=True, eq=False)
class _Weather:
    """The waves of a seed: long and short ones of the middle latitudes, clusters of tropical convection."""

    long: _Waves
    short: _Waves
    clusters: _Waves


# The sun's daily and half-daily tides, m**2 s**-2 at 1000 hPa: about 0.5 hPa (Chapman and Lindzen 1970).
_TIDES = _Waves(
    wavenumber=np.array([1, 2]),
    frequency=np.array([-2, -4]) * np.pi,
    centre=np.zeros(2),
    width=np.array([0.9, 0.7]),
    amplitude=np.array([40.0, 40.0]),
    phase=np.array([0.0, 1.0]),
)


def _weather(seed: int) -> _Weather:
    draw = np.random.default_rng(seed)
    long, short = np.repeat(np.arange(1.0, 4), 6), np.repeat(np.arange(4.0, _LARGEST_WAVENUMBER + 1), 8)
    clusters = np.repeat(np.arange(1.0, _LARGEST_WAVENUMBER + 1), 4)
    return _Weather(
        long=_draw_waves(draw, long, 850 / np.sqrt(long), (45, 65), (-4, 5), 20 + 0 * long),
        short=_draw_waves(
            draw, short, 1080 * short / 5 * np.exp(1 - short / 5), (38, 70), (8, 17), 34 / np.sqrt(short)
        ),
        clusters=_draw_waves(draw, clusters, 0.7 + 0 * clusters, (-18, 18), (-12, 8), 14 + 0 * clusters),
    )


def _draw_waves(
    draw: np.random.Generator,
    wavenumber: Floats,
    amplitude: Floats,
    degrees: tuple[float, float],
    speed: tuple[float, float],
    width: Floats,
) -> _Waves:
    """Waves between two latitudes, in both hemispheres by turns, and eastward speeds in m s**-1; width in degrees."""
    count = wavenumber.size
    centre = np.deg2rad(draw.uniform(*degrees, count)) * np.resize([-1, 1], count)
    return _Waves(
        wavenumber=wavenumber.astype(np.int64),
        frequency=wavenumber * draw.uniform(*speed, count) / (_RADIUS * np.cos(centre)) * _DAY,
        centre=centre,
        width=np.deg2rad(width),
        amplitude=amplitude * draw.uniform(0.6, 1.4, count),
        phase=draw.uniform(0, 2 * np.pi, count),
    )


def _wave_profiles(height: Floats) -> tuple[Modes, Modes]:
    """(level,) amplitude and phase of long and of short waves: the higher, the further west, as growing waves lean.

    Short waves are largest near the tropopause; only long ones live on in the stratosphere (Charney and Drazin 1961,
    doi:10.1029/JZ066i001p00083).
    """
    above = height - 1.25
    tilt = np.exp(1j * (1.2 * (1 - np.exp(-np.maximum(height, -0.5) / 0.7)) + 0.25 * height))
    return (0.7 + 0.55 * (above + np.sqrt(above**2 + 1))) * tilt, np.exp(-((above / 1.4) ** 2)) * tilt


@dataclass(frozen=True, eq=False)
class _Air:
    """The atmosphere at one time, `days` since the epoch, on pressures in hPa (level,), above a ground."""

    weather: _Weather
    days: float
    pressure: Floats
    ground: _Ground

    @cached_property
    def height(self) -> Floats:
        """(level,) ln(reference / pressure)."""
        return np.log(_REFERENCE / self.pressure)

    @cached_property
    def season(self) -> float:
        """-1..1, largest in late July, when the north is warmest."""
        return float(np.cos(2 * np.pi * (self.days - 205) / 365.24219))

    def geopotential_modes(self, height: Floats, latitude: Floats, later: float = 0.0) -> Modes:
        """(wavenumber, level, lat) m**2 s**-2, some days later: the climate and the waves, stronger in winter."""
        days, (long, short) = self.days + later, _wave_profiles(height)
        modes = self.weather.long.modes(days, long, latitude, 0.6 * self.season)
        modes += self.weather.short.modes(days, short, latitude, 0.3 * self.season)
        modes += _TIDES.modes(days, np.exp(height / 2), latitude, 0)  # the growth that keeps a wave's energy
        modes[0] = _climate_geopotential(height, np.sin(latitude), self.season)
        return modes

    def temperature_modes(self, latitude: Floats, later: float = 0.0) -> Modes:
        """(wavenumber, level, lat) K, some days later; R T is the slope of the geopotential with height."""
        above = self.geopotential_modes(self.height + _SLOPE_STEP, latitude, later)
        below = self.geopotential_modes(self.height - _SLOPE_STEP, latitude, later)
        return np.asarray((above - below) / (2 * _SLOPE_STEP * _DRY_AIR))

    @cached_property
    def u_modes(self) -> Modes:
        """(wavenumber, level, lat) m s**-1, geostrophic."""
        latitude = self.ground.latitude
        north = self.geopotential_modes(self.height, latitude + _SLOPE_STEP)
        south = self.geopotential_modes(self.height, latitude - _SLOPE_STEP)
        wind = (south - north) / (2 * _SLOPE_STEP * _RADIUS) * _inverse_coriolis(latitude)
        return np.where(_cosine(latitude) > 0, wind, 0)

    @cached_property
    def v_modes(self) -> Modes:
        """(wavenumber, level, lat) m s**-1, geostrophic."""
        latitude = self.ground.latitude
        return _eastward_slope(self.geopotential_modes(self.height, latitude), latitude) * _inverse_coriolis(latitude)

    def field(self, modes: Modes) -> Floats:
        """(level, lat, lon) of (wavenumber, level, lat) amplitudes."""
        turns = np.outer(np.arange(modes.shape[0]), self.ground.longitude)
        crests = np.concatenate([np.cos(turns), -np.sin(turns)])
        return np.tensordot(np.concatenate([modes.real, modes.imag]), crests, ((0,), (0,)))

    @cached_property
    def geopotential(self) -> Floats:
        """(level, lat, lon) m**2 s**-2."""
        return self.field(self.geopotential_modes(self.height, self.ground.latitude))

    @cached_property
    def temperature(self) -> Floats:
        """(level, lat, lon) K."""
        return self.field(self.temperature_modes(self.ground.latitude))

    @cached_property
    def vertical_velocity(self) -> Floats:
        """(level, lat, lon) Pa s**-1: outside the tropics air keeps its potential temperature and so must climb."""
        latitude = self.ground.latitude
        north, south = (self.temperature_modes(latitude + step)[0] for step in (_SLOPE_STEP, -_SLOPE_STEP))
        after, before = (self.temperature_modes(latitude, days) for days in (0.01, -0.01))
        warming = (after - before) / (0.02 * _DAY) + self.v_modes * (north - south) / (2 * _SLOPE_STEP * _RADIUS)
        warming += self.u_modes[0] * _eastward_slope((after + before) / 2, latitude)
        climb = warming / _stability(self.pressure)[:, np.newaxis]
        depth = np.clip(1 - (self.pressure / 1020) ** 8, 0, 1)[:, np.newaxis]  # no flow through the ground
        return self.field(depth * (climb + self._convection_modes()))

    def _convection_modes(self) -> Modes:
        """(wavenumber, level, lat) Pa s**-1: a belt of clusters that rise, and what sinks on both of its sides."""
        latitude, belt = self.ground.latitude, np.deg2rad(3 + 8 * self.season)
        modes = self.weather.clusters.modes(self.days, np.ones(self.pressure.size), latitude, 0)
        modes[0] = 1
        modes *= -0.06 * np.exp(-(((latitude - belt) / 0.15) ** 2))
        modes[0] += 0.025 * np.exp(-(((np.abs(latitude - belt / 2) - 0.42) / 0.17) ** 2))
        return modes * np.sin(np.pi * np.clip(self.pressure / _REFERENCE, 0, 1))[:, np.newaxis]

    @cached_property
    def humidity(self) -> Floats:
        """(level, lat, lon) kg kg**-1: rising air is moist; the stratosphere has little, least above the tropics."""
        relative = (0.34 + 0.38 * np.exp(-self.height / 0.35)) * np.exp(-((self.height / 1.65) ** 8))
        moist = 1 - 0.7 * np.tanh(self.vertical_velocity / 0.15)
        saturated = _saturation(self.temperature, self.pressure[:, np.newaxis, np.newaxis])
        uneven = np.outer(0.28 * np.exp(-0.25 * np.abs(self.height - 2)), -np.cos(2 * self.ground.latitude))
        high = (2.0e-6 + 2.7e-7 * np.maximum(self.height, 0))[:, np.newaxis] * (1 + uneven)
        return np.asarray(
            np.minimum(relative[:, np.newaxis, np.newaxis] * moist, 1) * saturated + high[:, :, np.newaxis]
        )


def _climate_geopotential(height: Floats, sine: Floats, season: float) -> Floats:
    """(level, lat) zonal mean, m**2 s**-2: exact integral of a temperature that is linear between rows of the table."""
    knots, temperature = np.log(_REFERENCE / _CLIMATE[:, 0]), _climate_temperature(sine, season)
    step = np.diff(knots)[:, np.newaxis]
    layers = _DRY_AIR * step * (temperature[1:] + temperature[:-1]) / 2
    base = np.cumsum(np.concatenate([_sea_level_geopotential(temperature[:1], sine), layers]), axis=0)
    row = np.clip(np.searchsorted(knots, height, side="right") - 1, 0, len(knots) - 2)
    above, slope = (height - knots[row])[:, np.newaxis], np.diff(temperature, axis=0) / step
    return np.asarray(base[row] + _DRY_AIR * above * (temperature[row] + slope[row] * above / 2))


def _climate_temperature(sine: Floats, season: float) -> Floats:
    """(row of the table, lat) K: the cubic in the squared sine through the four latitudes, and the odd part."""
    anchors = np.vander(np.sin(np.deg2rad([0, 30, 60, 90])) ** 2, increasing=True)
    even = np.linalg.solve(anchors, _CLIMATE[:, 1:5].T).T @ np.vander(sine**2, 4, increasing=True).T
    odd = (5 * sine**3 - 3 * sine**5) / 2  # flat at the poles and in the tropics
    warmth = _CLIMATE[:, 5:6] / 2 + _CLIMATE[:, 6:7] * season * (1 + 0.3 * sine)
    return np.asarray(even + warmth * odd)


def _sea_level_geopotential(temperature: Floats, sine: Floats) -> Floats:
    """(1, lat) geopotential of 1000 hPa below belts of pressure at sea level."""
    hectopascal = 1012 + sum(high * np.exp(-(((sine - at) / width) ** 2)) for high, at, width in _PRESSURE_BELTS)
    return np.asarray(_DRY_AIR * temperature * np.log(hectopascal / _REFERENCE))


def _eastward_slope(modes: Modes, latitude: Floats) -> Modes:
    """Derivative along the eastward direction, per m, of (wavenumber, level, lat) amplitudes; 0 at the poles."""
    circle = _RADIUS * np.maximum(_cosine(latitude), 1e-9)
    return np.asarray(1j * np.arange(modes.shape[0])[:, np.newaxis, np.newaxis] / circle * modes)


def _inverse_coriolis(latitude: Floats) -> Floats:
    """(lat,) s: 1/f, that turns over 6 degrees from the equator and is 0 there, where nothing balances a slope."""
    coriolis, least = 2 * _ROTATION * np.sin(latitude), 2 * _ROTATION * np.sin(np.deg2rad(6))
    return np.asarray(coriolis / (coriolis**2 + least**2))


def _stability(pressure: Floats) -> Floats:
    """(level,) K Pa**-1: how much warmer than its surroundings sinking air becomes, in the climate's mean."""
    knots, mean = _CLIMATE[::-1, 0], _CLIMATE[::-1, 2:4].mean(axis=1)
    warming = _KAPPA * mean / knots - np.gradient(mean, knots)
    return np.asarray(np.interp(pressure, knots, warming) / 100)


def _saturation(temperature: Floats, pressure: Floats) -> Floats:
    """Specific humidity, kg kg**-1, of saturated air; over water (Bolton 1980, Monthly Weather Review 108, eq. 10)."""
    vapour = 611.2 * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))
    return np.asarray(0.622 * vapour / (100 * pressure - 0.378 * vapour))


def _cosine(latitude: Floats) -> Floats:
    """Cosine that is exactly 0 at the poles, so that longitude has no say there."""
    return np.where(np.abs(latitude) > np.pi / 2 - 1e-6, 0, np.cos(latitude))


def _mean_sea_level_pressure(air: _Air) -> Floats:
    """Pa: down from 1000 hPa through air that warms by the standard lapse."""
    geopotential = air.geopotential[-1]
    mean = air.temperature[-1] + _LAPSE * geopotential / (2 * _GRAVITY)
    return np.asarray(100 * _REFERENCE * np.exp(geopotential / (_DRY_AIR * mean)))


def _two_metre_temperature(air: _Air) -> Floats:
    """K: sea damps the weather, mountains are cold, land follows the season and the local solar time."""
    ground, low = air.ground, air.temperature[-1]
    mean = air.temperature_modes(ground.latitude)[0, -1].real[:, np.newaxis]
    sea = (low + mean) / 2
    sine, hour = np.sin(ground.latitude), 24 * np.mod(air.days, 1) + np.rad2deg(ground.longitude) / 15
    day = 5 * np.outer(_cosine(ground.latitude), np.cos(2 * np.pi * (hour - 15) / 24))  # warmest at 15 h
    continental = 14 * air.season * _cosine(ground.latitude) * sine * np.abs(sine)
    land = low + continental[:, np.newaxis] + day - _LAPSE * ground.height
    return np.asarray(sea + ground.land * (land - sea))


def _ten_metre_wind(air: _Air) -> Modes:
    """(lat, lon) u + iv, m s**-1: friction slows the lowest wind and turns it toward low pressure."""
    land = air.ground.land
    turn = np.deg2rad(15 + 15 * land) * np.tanh(air.ground.latitude / 0.15)[:, np.newaxis]
    return np.asarray(
        (0.85 - 0.35 * land) * np.exp(1j * turn) * (air.field(air.u_modes)[-1] + 1j * air.field(air.v_modes)[-1])
    )


def _precipitation(air: _Air) -> Floats:
    """M of water in 6 h: what rises at 700 hPa rains out the vapour that it lifts from below."""
    lifted = np.maximum(-air.vertical_velocity[0] - 0.01, 0) * air.humidity[0]
    return np.asarray(1.5 * lifted / _GRAVITY / 1000 * 6 * 3600)


_ON_LEVELS: dict[str, Callable[[_Air], Floats]] = {
    "temperature": lambda air: air.temperature,
    "geopotential": lambda air: air.geopotential,
    "u_component_of_wind": lambda air: air.field(air.u_modes),
    "v_component_of_wind": lambda air: air.field(air.v_modes),
    "vertical_velocity": lambda air: air.vertical_velocity,
    "specific_humidity": lambda air: air.humidity,
}
_AT_SURFACE: dict[str, Callable[[_Air], Floats]] = {
    "2m_temperature": _two_metre_temperature,
    "mean_sea_level_pressure": _mean_sea_level_pressure,
    "10m_u_component_of_wind": lambda air: _ten_metre_wind(air).real,
    "10m_v_component_of_wind": lambda air: _ten_metre_wind(air).imag,
    "total_precipitation_6hr": _precipitation,
}
_STATIC: dict[str, Callable[[_Ground], Floats]] = {
    "geopotential_at_surface": lambda ground: _GRAVITY * ground.height,
    "land_sea_mask": lambda ground: ground.land,
}
