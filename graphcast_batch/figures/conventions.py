"""Define how maps usually show each variable: color map, and interval between contours."""

from dataclasses import dataclass
from typing import Final

DIFFERENCES: Final = "RdBu_r"
"""Color map of differences: red where the prediction is higher."""


@dataclass(frozen=True)
class Convention:
    """How maps show a variable.

    Attributes:
        colors: name of a color map that can be read with color blindness and in black and white: its lightness rises
            or falls all the way (viridis and plasma: Smith and van der Walt 2015; YlGnBu: Brewer 2003), or toward the
            middle for a signed variable (PuOr: Brewer 2003).
        is_signed: whether zero is in the middle of the color map.
        interval: usual interval between contours on charts, in the displayed unit; None if there is none.
    """

    colors: str = "viridis"
    is_signed: bool = False
    interval: float | None = None


def convention(variable: str) -> Convention:
    """Return how maps show a variable."""
    return _KNOWN.get(variable, Convention())


_TEMPERATURE: Final = Convention("plasma", interval=5)
_MOISTURE: Final = Convention("YlGnBu")
_SIGNED: Final = Convention("PuOr_r", is_signed=True)
_KNOWN: Final = {
    "2m_temperature": _TEMPERATURE,
    "temperature": _TEMPERATURE,
    "total_precipitation_6hr": _MOISTURE,
    "specific_humidity": _MOISTURE,
    "10m_u_component_of_wind": _SIGNED,
    "10m_v_component_of_wind": _SIGNED,
    "u_component_of_wind": _SIGNED,
    "v_component_of_wind": _SIGNED,
    "vertical_velocity": _SIGNED,
    # 6 dam and 4 hPa are the steps of the charts of the US National Weather Service.
    "geopotential": Convention(interval=6),
    "mean_sea_level_pressure": Convention(interval=4),
}
