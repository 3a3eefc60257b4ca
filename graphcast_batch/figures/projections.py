"""Project points from the globe to a map, and back.

Formulae are those of Snyder (1987), Map Projections: A Working Manual, USGS Professional Paper 1395, on a sphere of
radius 1; plate carrée alone is in degrees. Longitudes are -180..180, with Greenwich in the middle of the world maps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from graphcast_batch.errors import FigureError
from graphcast_batch.grid import Grid

Numbers = NDArray[np.float64]
Name = Literal["plate_carree", "robinson", "orthographic", "north_polar", "south_polar"]

_POLAR_EDGE: Final = 20.0
"""Latitude at which the maps of a pole end, degrees: the storm tracks are within."""
# Parallels of 0, 5, ... 90 degrees: their length, and their distance from the equator (Snyder and Voxland 1989, An
# Album of Map Projections, USGS Professional Paper 1453, pages 82 and 222).
_ROBINSON_LENGTHS: Final = (
    *(1.0, 0.9986, 0.9954, 0.99, 0.9822, 0.973, 0.96, 0.9427, 0.9216, 0.8962),
    *(0.8679, 0.835, 0.7986, 0.7597, 0.7186, 0.6732, 0.6213, 0.5722, 0.5322),
)
_ROBINSON_HEIGHTS: Final = (
    *(0.0, 0.062, 0.124, 0.186, 0.248, 0.31, 0.372, 0.434, 0.4958, 0.5571),
    *(0.6176, 0.6769, 0.7346, 0.7903, 0.8435, 0.8936, 0.9394, 0.9761, 1.0),
)


@dataclass(frozen=True)
class Projection(ABC):
    """A map projection of the globe."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the projection."""

    @cached_property
    @abstractmethod
    def outline(self) -> Numbers:
        """Edge of the map, (vertices, 2): x and y of a closed line."""

    @abstractmethod
    def forward(self, longitude: Numbers, latitude: Numbers) -> tuple[Numbers, Numbers]:
        """Project points to the map: x and y in the shape of the arguments, NaN for points that are not visible.

        Args:
            longitude: degrees, -180..180; values beyond continue a world map past its edge, without wrapping.
            latitude: degrees, of the same shape.
        """

    @abstractmethod
    def inverse(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Project positions on the map back to longitude and latitude in degrees, NaN off the map."""

    @cached_property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the map."""
        (left, bottom), (right, top) = self.outline.min(axis=0), self.outline.max(axis=0)
        return float(left), float(right), float(bottom), float(top)

    @property
    def aspect(self) -> float:
        """Width over height of the map."""
        left, right, bottom, top = self.extent
        return (right - left) / (top - bottom)

    def places(self, columns: int) -> tuple[Numbers, Numbers]:
        """Return the centers of pixels that cover the map: x, (columns,), and y upwards, (rows,), of square pixels."""
        left, right, bottom, top = self.extent
        rows = round(columns / self.aspect)
        x = left + (np.arange(columns) + 0.5) * (right - left) / columns
        return x, bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows

    def directions(
        self, longitude: Numbers, latitude: Numbers, eastward: Numbers, northward: Numbers
    ) -> tuple[Numbers, Numbers]:
        """Turn wind to its direction on the map, without changing its speed.

        Args:
            longitude: degrees.
            latitude: degrees, not at a pole, where there is no east.
            eastward: component of the wind there, in any unit.
            northward: component of the wind there, in the same unit.

        Returns:
            components along x and y, NaN where the point is not visible.
        """
        speed = np.hypot(eastward, northward)
        step = 1e-3 / np.where(speed > 0, speed, 1.0)  # degrees of a great circle for each unit of wind
        x, y = self.forward(longitude, latitude)
        ahead = (longitude + step * eastward / np.cos(np.radians(latitude)), latitude + step * northward)
        along_x, along_y = (there - here for there, here in zip(self.forward(*ahead), (x, y), strict=True))
        length = np.hypot(along_x, along_y)
        stretch = speed / np.where(length > 0, length, 1.0)
        return along_x * stretch, along_y * stretch


@dataclass(frozen=True)
class PlateCarree(Projection):
    """Longitude and latitude in degrees as x and y."""

    @property
    def title(self) -> str:
        return "plate carrée"

    @cached_property
    def outline(self) -> Numbers:
        return np.array([(-180, -90), (180, -90), (180, 90), (-180, 90), (-180, -90)], np.float64)

    def forward(self, longitude: Numbers, latitude: Numbers) -> tuple[Numbers, Numbers]:
        return longitude, latitude

    def inverse(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        return _where((np.abs(x) <= 180) & (np.abs(y) <= 90), x, y)


@dataclass(frozen=True)
class Robinson(Projection):
    """The Robinson projection of atlases: a compromise that distorts both areas and angles a little."""

    @property
    def title(self) -> str:
        return "Robinson projection"

    @cached_property
    def outline(self) -> Numbers:
        latitude = np.concatenate([np.arange(-90.0, 91), np.arange(90.0, -91, -1), [-90.0]])
        longitude = np.concatenate([np.full(181, 180.0), np.full(181, -180.0), [180.0]])
        return np.stack(self.forward(longitude, latitude), axis=-1)

    def forward(self, longitude: Numbers, latitude: Numbers) -> tuple[Numbers, Numbers]:
        degrees, lengths, heights = _robinson()
        length, height = (np.interp(np.abs(latitude), degrees, table) for table in (lengths, heights))
        return length * np.radians(longitude), np.sign(latitude) * height

    def inverse(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        degrees, lengths, heights = _robinson()
        latitude = np.interp(np.abs(y), heights, degrees)
        longitude = np.degrees(x / np.interp(latitude, degrees, lengths))
        return _where((np.abs(y) <= heights[-1]) & (np.abs(longitude) <= 180), longitude, np.sign(y) * latitude)


@dataclass(frozen=True)
class Orthographic(Projection):
    """The globe seen from far away: the hemisphere around a center.

    Attributes:
        latitude: of the center, degrees.
        longitude: of the center, degrees.
    """

    latitude: float
    longitude: float

    @property
    def title(self) -> str:
        return "orthographic projection"

    @cached_property
    def outline(self) -> Numbers:
        return _circle(1.0)

    def forward(self, longitude: Numbers, latitude: Numbers) -> tuple[Numbers, Numbers]:
        east, north, middle = np.radians(longitude - self.longitude), np.radians(latitude), np.radians(self.latitude)
        x = np.cos(north) * np.sin(east)
        y = np.cos(middle) * np.sin(north) - np.sin(middle) * np.cos(north) * np.cos(east)  # Snyder's 20-4
        toward = np.sin(middle) * np.sin(north) + np.cos(middle) * np.cos(north) * np.cos(east)
        return _where(toward >= 0, x, y)

    def inverse(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        middle = np.radians(self.latitude)
        toward = np.sqrt(np.maximum(0, 1 - x**2 - y**2))
        sine = np.clip(toward * np.sin(middle) + y * np.cos(middle), -1, 1)
        east = np.arctan2(x, toward * np.cos(middle) - y * np.sin(middle))  # Snyder's 20-15
        return _where(np.hypot(x, y) <= 1, _wrapped(self.longitude + np.degrees(east)), np.degrees(np.arcsin(sine)))


@dataclass(frozen=True)
class Polar(Projection):
    """A stereographic (angle-preserving) map around a pole, with Greenwich below the north pole.

    Attributes:
        side: 1 for the north pole; -1 for the south pole, with Greenwich above it.
    """

    side: Literal[1, -1]

    @property
    def title(self) -> str:
        return f"stereographic projection of the {'north' if self.side > 0 else 'south'}"

    @cached_property
    def outline(self) -> Numbers:
        return _circle(2 * np.tan(np.radians(90 - _POLAR_EDGE) / 2))

    def forward(self, longitude: Numbers, latitude: Numbers) -> tuple[Numbers, Numbers]:
        radius = 2 * np.tan(np.radians(90 - self.side * latitude) / 2)  # Snyder's 21-5 and 21-9
        east = np.radians(longitude)
        return _where(self.side * latitude >= 0, radius * np.sin(east), -self.side * radius * np.cos(east))

    def inverse(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        latitude = self.side * (90 - 2 * np.degrees(np.arctan(np.hypot(x, y) / 2)))
        return _where(self.side * latitude >= _POLAR_EDGE, np.degrees(np.arctan2(x, -self.side * y)), latitude)


PLATE_CARREE: Final = PlateCarree()


def projection_called(name: Name, center: tuple[float, float] | None = None) -> Projection:
    """Return the projection of a name.

    Args:
        name: of the projection.
        center: latitude and longitude of the center of an orthographic map, degrees; unused for others.

    Raises:
        FigureError: an orthographic projection has no center.
    """
    if name != "orthographic":
        return {
            "plate_carree": PLATE_CARREE,
            "robinson": Robinson(),
            "north_polar": Polar(1),
            "south_polar": Polar(-1),
        }[name]
    if center is None:
        raise FigureError("an orthographic map needs the latitude and longitude of its center, but has none; give it")
    return Orthographic(*center)


def cells(projection: Projection, grid: Grid, columns: int) -> NDArray[np.intp]:
    """Find the cell of a grid that each pixel of a map shows.

    Cells reach half-way to their neighbors, and the polar rows to the pole.

    Returns:
        (rows, columns), rows upwards: indices into a flattened field of the grid; arbitrary off the map.
    """
    longitude, latitude = projection.inverse(*np.meshgrid(*projection.places(columns)))
    row = np.rint((np.nan_to_num(latitude) - float(grid.latitude[0])) / grid.latitude_step)
    column = np.rint((np.nan_to_num(longitude) - float(grid.longitude[0])) / grid.resolution) % grid.longitude.size
    index: NDArray[np.intp] = (np.clip(row, 0, grid.latitude.size - 1) * grid.longitude.size + column).astype(np.intp)
    return index


def lines(projection: Projection, on_globe: tuple[NDArray[np.floating], ...]) -> list[Numbers]:
    """Project lines from the globe to a map, broken where they are not visible.

    Args:
        projection: of the map.
        on_globe: (vertices, 2) for each line: longitude -180..180 and latitude, degrees; broken at the date line.

    Returns:
        (vertices, 2) for each visible part: x and y.
    """
    seen = []
    for line in on_globe:
        projected = np.stack(projection.forward(*line.T.astype(np.float64)), axis=-1)
        hidden = np.flatnonzero(np.isnan(projected[:, 0]))
        parts = (part[~np.isnan(part[:, 0])] for part in np.split(projected, hidden))
        seen += [part for part in parts if len(part) > 1]
    return seen


@cache
def _robinson() -> tuple[Numbers, Numbers, Numbers]:
    """Interpolate latitude, length and height of parallels so densely that linear interpolation between is smooth."""
    tabled, degrees = np.arange(0.0, 91, 5), np.linspace(0, 90, 9001)
    lengths, heights = (PchipInterpolator(tabled, table)(degrees) for table in (_ROBINSON_LENGTHS, _ROBINSON_HEIGHTS))
    return degrees, 0.8487 * lengths, 1.3523 * heights


def _circle(radius: float) -> Numbers:
    around = np.linspace(0, 2 * np.pi, 361)
    return radius * np.stack([np.cos(around), np.sin(around)], axis=-1)


def _where(seen: NDArray[np.bool_], first: Numbers, second: Numbers) -> tuple[Numbers, Numbers]:
    return np.where(seen, first, np.nan), np.where(seen, second, np.nan)


def _wrapped(longitude: Numbers) -> Numbers:
    return (longitude + 180) % 360 - 180
