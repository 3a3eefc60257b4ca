"""Compute the permanent highs and lows over continents and oceans of the synthetic planet.

Locations are those on maps of mean pressure in January and July; strengths were chosen by eye.
"""

import numpy as np

from graphcast_batch.inputs.sources.planet.earth import DRY_AIR, REFERENCE, Floats, Modes, cosine, remembered

# Latitude and longitude, and width toward the north and the east, all in degrees; then the difference from the pressure
# around it in January and in July, hPa.
_CENTERS = np.array(
    [
        (50, 100, 13, 32, 15, -6),  # Siberian high
        (50, 185, 12, 26, -13, 3),  # Aleutian low
        (63, 325, 11, 26, -12, -1),  # Icelandic low
        (35, 325, 11, 26, 2, 8),  # Azores high
        (38, 217, 11, 24, 2, 8),  # North Pacific high
        (45, 250, 12, 18, 5, -4),  # North America
        (29, 72, 10, 26, 3, -11),  # monsoon low
        (22, 12, 10, 22, 2, -4),  # Sahara
        (-30, 265, 10, 24, 4, 5),  # South Pacific high
        (-29, 350, 10, 20, 4, 6),  # St Helena high
        (-31, 82, 10, 26, 3, 6),  # Mascarene high
        (-25, 130, 9, 16, -7, 5),  # Australia
        (-22, 22, 9, 14, -5, 4),  # southern Africa
        (-20, 300, 10, 14, -5, 2),  # South America
        (-68, 210, 9, 30, -7, -7),  # Ross Sea
    ]
)
_PLACES, _JANUARY, _JULY = np.deg2rad(_CENTERS[:, :4]), _CENTERS[:, 4], _CENTERS[:, 5]


def centers_of_action(height: Floats, latitude: Floats, season: float, wavenumbers: int) -> Modes:
    """Return the geopotential of highs over cold and lows over warm surfaces, with the opposite sign at high levels.

    Args:
        height: (level,) ln(REFERENCE / pressure).
        latitude: (lat,) radians.
        season: 1 in the middle of the northern summer, -1 half a year later.
        wavenumbers: number of wavenumbers, from 0.

    Returns:
        (wavenumber, level, lat) m**2 s**-2.
    """
    profile = 1.5 * np.exp(-height / 0.8) - 0.5 * np.exp(-((height / 2) ** 2))
    return np.asarray(_on_the_ground(latitude, season, wavenumbers)[:, np.newaxis] * profile[:, np.newaxis])


@remembered
def _on_the_ground(latitude: Floats, season: float, wavenumbers: int) -> Modes:
    """Return the geopotential at 1000 hPa, (wavenumber, lat) m**2 s**-2."""
    north, east, reach, width = _PLACES.T[..., np.newaxis]
    strength = DRY_AIR * 280 / REFERENCE * ((_JANUARY + _JULY) + (_JULY - _JANUARY) * season) / 2  # air of 280 K
    m = np.arange(wavenumbers)
    # The Fourier series of a bell exp(-(away / width)**2) that goes around the globe.
    around = width / np.sqrt(np.pi) * np.exp(-((m * width / 2) ** 2) - 1j * m * east) / np.where(m == 0, 2, 1)
    along = strength[:, np.newaxis] * np.exp(-(((latitude - north) / reach) ** 2)) * cosine(latitude) ** 2
    return np.asarray(around.T @ along)
