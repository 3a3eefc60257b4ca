"""A variable becomes what people expect of its map: the colours and the step between contours."""

from dataclasses import dataclass
from typing import Final

DIFFERENCES: Final = "RdBu_r"
"""Colours of differences: red where the prediction is more."""


@dataclass(frozen=True)
class Convention:
    """How maps show a variable.

    Attributes:
        colours: name of a colour map that is told apart by those who see few colours, and in black and white: it grows
            lighter or darker all the way (viridis and plasma: Smith and van der Walt 2015; YlGnBu: Brewer 2003), or
            towards the middle for a signed variable (PuOr: Brewer 2003).
        is_signed: whether zero is in the middle of the colours.
        interval: between contours in the unit that is shown, where charts have a usual one.
    """

    colours: str = "viridis"
    is_signed: bool = False
    interval: float | None = None


def convention(variable: str) -> Convention:
    """How maps show a variable."""
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
