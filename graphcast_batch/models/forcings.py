"""Compute the forcings that follow from time and place alone: solar radiation, time of year, time of day.

Everything is computed in float64: in float32 the count of days alone would be wrong by 40 s.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import TaskError
from graphcast_batch.sun import Floats, Times, days_since, fraction, solar_radiation

FORCINGS: Final = frozenset(
    {
        "toa_incident_solar_radiation",
        "year_progress_sin",
        "year_progress_cos",
        "day_progress_sin",
        "day_progress_cos",
    }
)
"""Names of the variables that `forcing` computes; any other must be read from the inputs."""

_TROPICAL_YEAR = 365.24219  # days in a mean tropical year, as GraphCast's features were made with


def forcing(
    name: str, times: Times, latitude: NDArray[np.floating], longitude: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Compute a forcing variable by its name, as GraphCast takes it.

    Args:
        name: one of `FORCINGS`.
        times: (time,) valid times, UTC.
        latitude: (lat,) degrees.
        longitude: (lon,) degrees east.

    Returns:
        (time, lat, lon) J m**-2 for the radiation; (time, lon) in -1..1 for ``day_progress``, (time,) in -1..1 for
        ``year_progress``.

    Raises:
        TaskError: ``name`` cannot be computed.
    """
    if name not in FORCINGS:
        raise TaskError(
            f"the forcing {name} cannot be computed, only {', '.join(sorted(FORCINGS))} can; any other must be in "
            "the inputs at every time of the forecast"
        )
    if name == "toa_incident_solar_radiation":
        return solar_radiation(times, latitude, longitude)
    progress = day_progress(times, longitude) if name.startswith("day") else year_progress(times)
    wave = np.sin if name.endswith("sin") else np.cos
    return np.asarray(wave(2 * np.pi * progress), np.float32)


def year_progress(times: Times) -> Floats:
    """Compute the fraction of the tropical year that has passed, counted from 1970-01-01.

    Args:
        times: (time,) UTC.

    Returns:
        (time,) in [0, 1).
    """
    return fraction(days_since(times, np.datetime64(0, "us")) / _TROPICAL_YEAR)


def day_progress(times: Times, longitude: NDArray[np.floating]) -> Floats:
    """Compute the fraction of the local mean solar day that has passed.

    Args:
        times: (time,) UTC.
        longitude: (lon,) degrees east.

    Returns:
        (time, lon) in [0, 1), 0 at local midnight.
    """
    greenwich = fraction(days_since(times, np.datetime64(0, "us")))
    return fraction(greenwich[:, np.newaxis] + np.asarray(longitude, np.float64) / 360)
