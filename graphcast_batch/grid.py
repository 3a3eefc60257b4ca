"""Check the latitudes and longitudes of a global grid and compute exact cell areas."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import GridError

SAME_PLACE_DEGREES: Final = 1e-3
"""Largest difference of two coordinates that count as equal: float32 coordinates of 0.25° are off by 1e-5."""
_TOLERANCE = 2e-3  # degrees; GRIB 1 rounds both ends to thousandths, float32 coordinates of 0.25° are off by 1e-5


@dataclass(frozen=True, eq=False)
class Grid:
    """A global latitude-longitude grid, in the order in which GraphCast takes its points.

    Attributes:
        latitude: (lat,) float32 degrees, uniformly spaced, ascending.
        longitude: (lon,) float32 degrees, uniformly spaced, ascending from 0, once around the globe.

    Raises:
        GridError: the coordinates are not such a grid.
    """

    latitude: NDArray[np.float32]
    longitude: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_latitude(self.latitude)
        _check_longitude(self.longitude)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows (latitudes) and of columns (longitudes)."""
        return self.latitude.size, self.longitude.size

    @property
    def size(self) -> int:
        """Number of points."""
        return self.latitude.size * self.longitude.size

    @property
    def resolution(self) -> float:
        """Spacing of the longitudes, degrees."""
        return 360.0 / self.longitude.size

    @property
    def latitude_step(self) -> float:
        """Spacing of the latitudes, degrees."""
        return float(self.latitude[-1] - self.latitude[0]) / (self.latitude.size - 1)

    @property
    def square_step(self) -> float:
        """Spacing in degrees if that of rows and columns is equal; else 0, which stands for any spacing."""
        return round(self.resolution, 4) if self.fits(self.resolution) else 0.0

    def fits(self, resolution: float) -> bool:
        """Return whether weights that were trained for a resolution may be used on this grid.

        Args:
            resolution: spacing in degrees; 0 stands for any spacing.
        """
        steps = (self.latitude_step, self.resolution)
        return not resolution or all(abs(step - resolution) <= _TOLERANCE for step in steps)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and np.array_equal(self.latitude, other.latitude)
            and np.array_equal(self.longitude, other.longitude)
        )

    def __hash__(self) -> int:
        return hash((self.latitude.tobytes(), self.longitude.tobytes()))

    def __str__(self) -> str:
        rows, columns = self.shape
        even = abs(self.latitude_step - self.resolution) <= _TOLERANCE
        steps = f"{self.resolution:g}°" if even else f"{self.latitude_step:g}° x {self.resolution:g}°"
        return f"{rows} x {columns} ({steps})"


def regular_grid(resolution: float) -> Grid:
    """Return the grid with rows on both poles and a column at 0°.

    Args:
        resolution: spacing in degrees, a divisor of 180.

    Raises:
        GridError: 180° is not a multiple of ``resolution``.
    """
    rows = round(180 / resolution)
    if rows < 1 or abs(rows * resolution - 180) > 1e-6 * rows:
        raise GridError(f"a resolution must divide 180°, but is {resolution:g}°; take 180 over a whole number")
    return Grid(_rows(rows + 1, 90.0), _columns(2 * rows, 0.0))


def exact_grid(latitude: NDArray[np.floating], longitude: NDArray[np.floating]) -> Grid:
    """Return the grid of given coordinates without their rounding errors.

    Sums of steps such as 0.4° miss 0° by 1e-12, and GRIB edition 1 rounds thirds of a degree to thousandths. Rows on
    both poles, or half a step away from them, and columns at 0°, or half a step away from it, are set to these exact
    values; the other rows and columns are spaced evenly from the first one.

    Args:
        latitude: (lat,) degrees, ascending.
        longitude: (lon,) degrees in 0..360, ascending.

    Raises:
        GridError: the coordinates do not form a global grid.
    """
    given = Grid(np.asarray(latitude, np.float32), np.asarray(longitude, np.float32))
    rows, columns = given.shape
    last = (float(latitude[-1]) - float(latitude[0])) / 2
    exact = (90.0, 90.0 - 90.0 / rows)
    edge = next((place for place in exact if abs(place - last) <= _TOLERANCE), last)
    first, half = float(longitude[0]), given.resolution / 2
    near = round(first / half) * half
    return Grid(_rows(rows, edge), _columns(columns, near if abs(near - first) <= _TOLERANCE else first))


def mean_over_globe(grid: Grid, values: NDArray[np.floating]) -> float:
    """Return the mean of a field over the area of the globe where it has values; NaN where it has none.

    Args:
        grid: of the field.
        values: (lat, lon); values that are not finite are left out.
    """
    known = np.isfinite(values)
    weights = np.where(known, cell_area(grid.latitude)[:, np.newaxis], 0.0)
    total = float(weights.sum())
    return float((weights * np.where(known, values, 0.0)).sum()) / total if total else float("nan")


def cell_area(latitude: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the weight of each latitude row, proportional to the area of its cells.

    A cell reaches half-way to its neighbors, and the polar rows end at the pole,
    so the weight is the exact integral of cos(latitude) over the row.

    Args:
        latitude: (lat,) cell centers in degrees, strictly monotonic.

    Returns:
        (lat,) weights, dimensionless, with mean 1.

    Raises:
        GridError: ``latitude`` is not strictly monotonic.
    """
    degrees = np.asarray(latitude, np.float64)
    steps = np.diff(degrees)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise GridError(f"latitude must be strictly monotonic, but is {_sample(degrees)}")
    middles = (degrees[1:] + degrees[:-1]) / 2
    poles = (-90.0, 90.0) if steps[0] > 0 else (90.0, -90.0)
    bounds = np.deg2rad(np.concatenate([poles[:1], middles, poles[1:]]))
    area = np.abs(np.diff(np.sin(bounds)))
    return np.asarray(area / area.mean(), np.float64)


def same_points(one: Grid, other: Grid) -> bool:
    """Return whether two grids are equal, apart from the rounding of their coordinates."""
    return one.shape == other.shape and all(
        np.allclose(a, b, rtol=0, atol=SAME_PLACE_DEGREES)
        for a, b in ((one.latitude, other.latitude), (one.longitude, other.longitude))
    )


def _rows(count: int, last: float) -> NDArray[np.float32]:
    """Return latitudes from ``-last`` to ``last``, exactly symmetric about the equator."""
    return ((2 * np.arange(count) - (count - 1)) * last / (count - 1)).astype(np.float32)


def _columns(count: int, first: float) -> NDArray[np.float32]:
    """Return evenly spaced longitudes once around the globe."""
    return (first + np.arange(count) * 360.0 / count).astype(np.float32)


def _check_latitude(latitude: NDArray[np.float32]) -> None:
    if latitude.ndim != 1 or latitude.size < 2:
        raise GridError(f"latitude must be one dimension of 2 or more values, but has shape {latitude.shape}")
    steps = np.diff(latitude.astype(np.float64))
    if not np.all(np.isfinite(latitude)) or np.any(steps <= 0):
        raise GridError(f"latitude must ascend, but is {_sample(latitude)}; sort the data by latitude")
    if np.ptp(steps) > _TOLERANCE:
        raise GridError(
            f"latitude must be uniformly spaced, but its steps run from {steps.min():g} to {steps.max():g} degrees; "
            "regrid the data to a regular latitude-longitude grid"
        )
    if latitude[0] < -90 - _TOLERANCE or latitude[-1] > 90 + _TOLERANCE:
        raise GridError(f"latitude must lie in -90..90 degrees, but is {_sample(latitude)}; correct it")
    edge = max(latitude[0] + 90, 90 - latitude[-1])
    if edge > steps[0]:
        raise GridError(
            f"latitude must reach both poles to within one step ({steps[0]:g}°), but is {_sample(latitude)}; "
            "give global data, in degrees"
        )
    if abs(latitude[0] + latitude[-1]) <= _TOLERANCE:
        return
    pole = 90.0 if latitude[-1] < -latitude[0] else -90.0
    other = latitude[0] if pole > 0 else latitude[-1]
    if abs(other + pole) <= _TOLERANCE and abs(edge - steps[0]) <= _TOLERANCE:
        raise GridError(
            f"latitude must hold both poles or neither, but lacks the row at {pole:g}°: {_sample(latitude)}; download "
            "that row as well, or add it as the mean of the row beside it"
        )
    raise GridError(
        f"latitude must be symmetric about the equator, but is {_sample(latitude)}; "
        "add the rows that are missing, or regrid the data"
    )


def _check_longitude(longitude: NDArray[np.float32]) -> None:
    if longitude.ndim != 1 or longitude.size < 2:
        raise GridError(f"longitude must be one dimension of 2 or more values, but has shape {longitude.shape}")
    steps = np.diff(longitude.astype(np.float64))
    if not np.all(np.isfinite(longitude)) or np.any(steps <= 0):
        raise GridError(f"longitude must ascend, but is {_sample(longitude)}; sort the data by longitude (0..360)")
    expected = 360.0 / longitude.size
    if np.any(np.abs(steps - expected) > _TOLERANCE):
        raise GridError(
            f"longitude must go once around the globe in {longitude.size} equal steps of {expected:g}°, "
            f"but its steps run from {steps.min():g} to {steps.max():g}°; give global data, on a regular grid"
        )
    if longitude[0] < -_TOLERANCE or longitude[-1] >= 360:
        raise GridError(f"longitude must lie in 0..360 degrees, but is {_sample(longitude)}")


def _sample(values: NDArray[np.floating]) -> str:
    if values.size <= 4:
        return ", ".join(f"{value:g}" for value in values)
    return f"{values[0]:g}, {values[1]:g} ... {values[-1]:g} ({values.size} values)"
