"""Values in the unit that a variable is stored in become those that people know it in."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.figures.scales import units_text
from graphcast_batch.variables import attributes

STANDARD_GRAVITY: Final = 9.80665
"""m s**-2, which turns geopotential into geopotential height (3rd CGPM, 1901)."""


@dataclass(frozen=True)
class Unit:
    """How the values of a variable are told.

    Attributes:
        text: of the unit; empty for plain numbers.
        factor: from the stored unit to this one.
        offset: added to a value once it is multiplied; a difference of two values has none.
        difference: the unit of differences, where it is another.
    """

    text: str
    factor: float = 1.0
    offset: float = 0.0
    difference: str | None = None

    @property
    def of_differences(self) -> "Unit":
        """How differences of values are told, and errors."""
        return Unit(self.text if self.difference is None else self.difference, self.factor)

    def heading(self, name: str) -> str:
        """What is shown with its unit, like ``Temperature (K)``."""
        return f"{name} ({self.text})" if self.text else name

    def told(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Stored values in this unit."""
        return np.asarray(values, np.float64) * self.factor + self.offset


_KNOWN: Final = {
    "K": Unit("°C", offset=-273.15, difference="K"),
    "Pa": Unit("hPa", factor=1e-2),
    "m": Unit("dam", factor=0.1),
    "kg kg**-1": Unit("g/kg", factor=1e3),
    "m s**-1": Unit("m/s"),
    "Pa s**-1": Unit("Pa/s"),
    "m**2 s**-2": Unit("dam", factor=0.1 / STANDARD_GRAVITY),
}


_RAIN: Final = Unit("mm", factor=1e3)
"""Its height; other heights in m are those of levels."""


def unit_of(variable: str, units: str) -> Unit:
    """How values of a variable are told.

    Args:
        variable: which.
        units: as CF attributes spell them; values in units that nobody knows better are told as they are.
    """
    if units == "m" and "precipitation" in variable:
        return _RAIN
    return _KNOWN.get(units, Unit(units_text(units)))


def named(variable: str, level: int | None = None) -> str:
    """What a variable is called in a picture, like ``Temperature at 850 hPa``."""
    known = _CALLED.get(variable) or attributes(variable)["long_name"]
    text = known[:1].upper() + known[1:]
    return text if level is None else f"{text} at {level} hPa"


_CALLED: Final = {
    "geopotential": "geopotential height",
    "wind_vector": "wind vector",
    "10m_wind_vector": "10 metre wind vector",
    "10m_u_component_of_wind": "10 metre U wind",
    "10m_v_component_of_wind": "10 metre V wind",
    "u_component_of_wind": "U wind",
    "v_component_of_wind": "V wind",
    "total_precipitation_6hr": "precipitation in 6 h",
}
"""Shorter than in the attributes, or true to the unit that is told."""
