"""Find the grid point nearest to a city or to a latitude and longitude, for time series."""

import difflib
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError

_EARTH_KM: Final = 6371.0
"""Mean radius."""


@dataclass(frozen=True)
class NamedPoint:
    """A named point on the globe.

    Attributes:
        name: of the city, or the coordinates as text.
        latitude: degrees north.
        longitude: degrees east, -180..180.
    """

    name: str
    latitude: float
    longitude: float


@dataclass(frozen=True)
class GridPoint:
    """The grid point nearest to a named point.

    Attributes:
        place: the named point.
        row: index of the latitude.
        column: index of the longitude.
        latitude: of the point, degrees north.
        longitude: of the point, degrees east, -180..180.
    """

    place: NamedPoint
    row: int
    column: int
    latitude: float
    longitude: float

    @property
    def kilometers(self) -> float:
        """Distance to the named point along a great circle, km."""
        return _distance(self.place, self.latitude, self.longitude)

    @property
    def description(self) -> str:
        """Coordinates of the grid point and distance, as text."""
        at = f"{_degrees(self.latitude, 'SN')} {_degrees(self.longitude, 'WE')}"
        return f"grid point {at}, {self.kilometers:.0f} km away"


def place_of(text: str) -> NamedPoint:
    """Return the point that a text like ``Berlin`` or ``52.5, 13.4`` (latitude, longitude) stands for.

    Raises:
        FigureError: the text is neither a city of the table nor two numbers within their ranges.
    """
    numbers = re.fullmatch(r"\s*(-?\d+(?:\.\d*)?)\s*,\s*(-?\d+(?:\.\d*)?)\s*", text)
    if numbers:
        latitude, longitude = float(numbers[1]), float(numbers[2])
        if abs(latitude) > 90 or not -180 <= longitude <= 360:
            raise FigureError(
                f"figures.points: a place must be latitude -90..90, longitude -180..360, but is {text}; mind the order"
            )
        longitude -= 360 if longitude >= 180 else 0
        return NamedPoint(f"{_degrees(latitude, 'SN')} {_degrees(longitude, 'WE')}", latitude, longitude)
    known = {name.casefold(): name for name in CITIES}
    name = known.get(text.strip().casefold())
    if name is None:
        near = difflib.get_close_matches(text.casefold(), known, n=1)
        hint = f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(CITIES)}"
        raise FigureError(
            f'figures.points: {text} is not in the table of cities; {hint}; or give "LATITUDE, LONGITUDE"'
        )
    return NamedPoint(name, *CITIES[name])


def nearest(place: NamedPoint, latitude: NDArray[np.floating], longitude: NDArray[np.floating]) -> GridPoint:
    """Find the grid point nearest to a point on a sphere.

    Args:
        place: the point.
        latitude: (lat,) degrees.
        longitude: (lon,) degrees, once around the globe.
    """
    row, column = np.unravel_index(
        np.argmin(_distance(place, np.asarray(latitude, np.float64)[:, np.newaxis], np.asarray(longitude, np.float64))),
        (latitude.size, longitude.size),
    )
    wrapped = (float(longitude[column]) + 180) % 360 - 180
    return GridPoint(place, int(row), int(column), float(latitude[row]), wrapped)


def _distance(
    place: NamedPoint, latitude: "NDArray[np.float64] | float", longitude: "NDArray[np.float64] | float"
) -> float:
    """Compute the distance along a great circle in km, by the haversine formula."""
    south, north = np.deg2rad(place.latitude), np.deg2rad(latitude)
    east = np.deg2rad(longitude) - np.deg2rad(place.longitude)
    half = np.sin((north - south) / 2) ** 2 + np.cos(south) * np.cos(north) * np.sin(east / 2) ** 2
    return 2 * _EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))  # type: ignore[no-any-return]


def _degrees(value: float, sides: str) -> str:
    return f"{abs(value):g}°{sides[int(value > 0)] if value else ''}"


CITIES: Final[dict[str, tuple[float, float]]] = {
    "Accra": (5.56, -0.20),
    "Addis Ababa": (9.03, 38.74),
    "Anchorage": (61.22, -149.90),
    "Ankara": (39.93, 32.86),
    "Athens": (37.98, 23.73),
    "Auckland": (-36.85, 174.76),
    "Baghdad": (33.31, 44.36),
    "Bangkok": (13.76, 100.50),
    "Beijing": (39.90, 116.41),
    "Berlin": (52.52, 13.40),
    "Bogota": (4.71, -74.07),
    "Buenos Aires": (-34.60, -58.38),
    "Cairo": (30.04, 31.24),
    "Cape Town": (-33.92, 18.42),
    "Caracas": (10.48, -66.90),
    "Chicago": (41.88, -87.63),
    "Dakar": (14.72, -17.47),
    "Delhi": (28.61, 77.21),
    "Denver": (39.74, -104.99),
    "Dhaka": (23.81, 90.41),
    "Dubai": (25.20, 55.27),
    "Helsinki": (60.17, 24.94),
    "Ho Chi Minh City": (10.82, 106.63),
    "Hong Kong": (22.32, 114.17),
    "Honolulu": (21.31, -157.86),
    "Istanbul": (41.01, 28.98),
    "Jakarta": (-6.21, 106.85),
    "Johannesburg": (-26.20, 28.05),
    "Karachi": (24.86, 67.00),
    "Kinshasa": (-4.44, 15.27),
    "Kyiv": (50.45, 30.52),
    "Lagos": (6.52, 3.38),
    "Lima": (-12.05, -77.04),
    "Lisbon": (38.72, -9.14),
    "London": (51.51, -0.13),
    "Los Angeles": (34.05, -118.24),
    "Madrid": (40.42, -3.70),
    "Manila": (14.60, 120.98),
    "Melbourne": (-37.81, 144.96),
    "Mexico City": (19.43, -99.13),
    "Miami": (25.76, -80.19),
    "Moscow": (55.76, 37.62),
    "Mumbai": (19.08, 72.88),
    "Nairobi": (-1.29, 36.82),
    "New York": (40.71, -74.01),
    "Oslo": (59.91, 10.75),
    "Paris": (48.86, 2.35),
    "Perth": (-31.95, 115.86),
    "Reykjavik": (64.15, -21.94),
    "Rio de Janeiro": (-22.91, -43.17),
    "Rome": (41.90, 12.50),
    "Santiago": (-33.45, -70.67),
    "Sao Paulo": (-23.55, -46.63),
    "Seoul": (37.57, 126.98),
    "Shanghai": (31.23, 121.47),
    "Singapore": (1.35, 103.82),
    "Stockholm": (59.33, 18.07),
    "Sydney": (-33.87, 151.21),
    "Tehran": (35.69, 51.39),
    "Tokyo": (35.68, 139.69),
    "Toronto": (43.65, -79.38),
    "Vancouver": (49.28, -123.12),
    "Vienna": (48.21, 16.37),
    "Warsaw": (52.23, 21.01),
    "Washington": (38.91, -77.04),
    "Yakutsk": (62.03, 129.73),
    "Zurich": (47.38, 8.54),
}
"""Latitude and longitude of city centers, to about a kilometer."""
