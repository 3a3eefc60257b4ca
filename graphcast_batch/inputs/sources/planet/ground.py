"""Compute the ground of the synthetic planet, with continents and mountains roughly at the Earth's.

Locations, sizes and heights were chosen by eye on maps, so that land covers three tenths of the globe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from graphcast_batch.grid import Grid
from graphcast_batch.inputs.sources.planet.earth import RADIUS, STEP, Floats, cosine

# Round patches of land: latitude, longitude, radius, in degrees.
_LAND = (
    (52, 255, 20),  # western Canada
    (64, 250, 16),  # northern Canada
    (38, 262, 13),  # United States
    (54, 287, 10),  # Quebec
    (22, 258, 6),  # Mexico
    (14, 272, 4),  # Central America
    (73, 318, 11),  # Greenland
    (-4, 300, 15),  # Amazon
    (-12, 310, 13),  # Brazil
    (-28, 298, 11),  # Argentina
    (-42, 291, 6),  # northern Patagonia
    (-50, 289, 4),  # southern Patagonia
    (18, 6, 16),  # western Sahara
    (20, 24, 15),  # eastern Sahara
    (6, 30, 13),  # South Sudan
    (-8, 24, 13),  # Congo
    (-23, 25, 11),  # southern Africa
    (-19, 46, 4),  # Madagascar
    (24, 46, 8),  # Arabia
    (50, 12, 10),  # central Europe
    (62, 22, 8),  # Scandinavia
    (55, 40, 14),  # Russia
    (60, 70, 16),  # western Siberia
    (62, 100, 17),  # central Siberia
    (64, 135, 14),  # eastern Siberia
    (48, 85, 16),  # Kazakhstan
    (45, 112, 13),  # Mongolia
    (33, 65, 11),  # Afghanistan
    (22, 78, 9),  # India
    (32, 87, 11),  # Tibet
    (30, 107, 11),  # China
    (17, 102, 5),  # Indochina
    (0, 113, 5),  # Borneo
    (-5, 141, 4),  # New Guinea
    (-25, 127, 10),  # western Australia
    (-25, 142, 10),  # eastern Australia
    (36, 139, 3),  # Japan
    (-88, 60, 17),  # South Pole
    (-77, 95, 13),  # East Antarctica
    (-77, 30, 12),  # Queen Maud Land
    (-80, 255, 10),  # West Antarctica
    (-42, 172, 3),  # New Zealand
    (65, 176, 7),  # Chukotka
    (54, 357, 4),  # Britain
)
# Round mountains: latitude, longitude and radius in degrees, then the height in m.
_MOUNTAINS = (
    (33, 82, 6, 2400),  # western Tibet
    (33, 92, 7, 2600),  # eastern Tibet
    (40, 74, 5, 2000),  # Tian Shan
    (48, 97, 8, 1500),  # Altai
    (34, 52, 7, 1100),  # Iran
    (62, 130, 9, 600),  # eastern Siberia
    (50, 243, 6, 1300),  # Canadian Rockies
    (41, 250, 7, 1900),  # Rocky Mountains
    (32, 254, 6, 1500),  # Sierra Madre
    (62, 220, 6, 1000),  # Yukon
    (73, 319, 9, 2500),  # Greenland
    (-3, 281, 4, 2400),  # Andes, from north to south
    (-12, 287, 4, 3000),
    (-20, 292, 5, 3500),
    (-30, 290, 4, 2600),
    (-42, 289, 4, 1000),
    (9, 38, 6, 1700),  # Ethiopia
    (-4, 33, 7, 900),  # East Africa
    (-26, 26, 9, 900),  # southern Africa
    (46, 10, 3, 1100),  # Alps
    (42, 44, 4, 1000),  # Caucasus
    (-82, 70, 14, 2400),  # East Antarctica
    (-77, 30, 9, 1600),  # Queen Maud Land
    (-80, 240, 9, 1100),  # West Antarctica
)
_PLAIN = 250  # m, height of land without mountains
_SHORE, _COAST = 0.33, 0.2  # sum of the patches where land begins, and its increase up to a land fraction of 1


@dataclass(frozen=True, eq=False)
class Ground:
    """The points of a grid, with land and mountains.

    Attributes:
        latitude: (lat,) latitudes in radians.
        longitude: (lon,) longitudes in radians.
        land: (lat, lon) land fraction in 0..1, exactly 0 at sea.
        height: (lat, lon) height in m, exactly 0 at sea.
        eastward_slope: (lat, lon) slope of the height toward the east, m per m; 0 at the poles.
        northward_slope: (lat, lon) slope of the height toward the north, m per m.
    """

    latitude: Floats
    longitude: Floats
    land: Floats
    height: Floats
    eastward_slope: Floats
    northward_slope: Floats


@lru_cache(maxsize=2)
def ground_of(grid: Grid) -> Ground:
    """Return the ground at the points of a grid."""
    latitude, longitude = (np.deg2rad(degrees.astype(np.float64)) for degrees in (grid.latitude, grid.longitude))
    points = _on_sphere(latitude, longitude)
    land = _land(points)
    height = _height(points, land)
    beside, above = (_on_sphere(latitude, longitude + STEP), _on_sphere(latitude + STEP, longitude))
    circle = np.maximum(cosine(latitude), 1e-9)[:, np.newaxis]  # 1e-9: avoids a division by 0 at the poles
    eastward, northward = ((_height(place, _land(place)) - height) / (RADIUS * STEP) for place in (beside, above))
    return Ground(latitude, longitude, land, height, eastward / circle, northward)


def _on_sphere(latitude: Floats, longitude: Floats) -> Floats:
    """Return (3, lat, lon) points near the unit sphere, in whose coordinates date line and poles are not special."""
    circle, z = cosine(latitude)[:, np.newaxis], np.sin(latitude)[:, np.newaxis]
    return _bent(np.stack(np.broadcast_arrays(circle * np.cos(longitude), circle * np.sin(longitude), z)))


def _bent(points: Floats) -> Floats:
    """Shift points by 3 degrees at most, so that round patches get irregular outlines."""
    x, y, z = points
    large = np.stack([np.sin(9 * y + 14 * z), np.sin(11 * z - 13 * x), np.sin(12 * x + 10 * y)])
    small = np.stack([np.sin(37 * z - 29 * y), np.sin(41 * x + 23 * z), np.sin(31 * y - 35 * x)])
    return np.asarray(points + 0.025 * large + 0.012 * small)


def _land(points: Floats) -> Floats:
    """Return the land fraction (lat, lon): the patches, with large and small bays along the coasts."""
    x, y, z = points
    bays = 0.2 * np.sin(13 * x + 9 * z) * np.sin(14 * y - 8 * z)
    bays = bays + 0.12 * np.sin(37 * x - 31 * y) * np.sin(41 * z + 9 * x)
    level = bays + sum(_bump(points, patch, 2) for patch in _LAND)
    share = np.clip((level - _SHORE) / _COAST, 0, 1)
    return np.asarray(share**2 * (3 - 2 * share))  # smooth at both ends


def _height(points: Floats, land: Floats) -> Floats:
    """Return the height (lat, lon), m: mountains with ridges, down to the sea at the coast."""
    x, y, z = points
    peaks = _PLAIN + sum(height * _bump(points, place, 1) for *place, height in _MOUNTAINS)
    ridges = 1 + 0.3 * np.sin(31 * x + 17 * z) * np.sin(29 * y - 13 * z)
    return np.asarray(land * peaks * ridges)


def _bump(points: Floats, place: Sequence[float], steepness: int) -> Floats:
    """Return a round bump (lat, lon) of height 1.

    Args:
        points: (3, lat, lon) coordinates near the unit sphere.
        place: latitude, longitude and radius in degrees.
        steepness: 1 for a Gaussian, 2 for a bump with a flat top.
    """
    phi, lam, radius = np.deg2rad(place)
    center = np.array([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    squared = (1 + np.sum(points**2, axis=0) - 2 * np.tensordot(center, points, 1)) / radius**2
    return np.asarray(np.exp(-(squared**steepness)))
