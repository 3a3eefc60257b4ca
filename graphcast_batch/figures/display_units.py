"""Convert values from stored units to the units of weather charts, and name variables in figures."""

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
    """The unit in which values of a variable are displayed.

    Attributes:
        text: name of the unit; empty for plain numbers.
        factor: from the stored unit to this one.
        offset: added to a value after the multiplication; not applied to differences.
        difference: name of the unit of differences, where it is another; else None.
    """

    text: str
    factor: float = 1.0
    offset: float = 0.0
    difference: str | None = None

    @property
    def of_differences(self) -> "Unit":
        """The unit of differences and errors of values."""
        return Unit(self.text if self.difference is None else self.difference, self.factor)

    def heading(self, name: str) -> str:
        """Return a name with this unit, like ``Temperature (K)``."""
        return f"{name} ({self.text})" if self.text else name

    def convert(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Convert stored values to this unit."""
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
"""Unit of precipitation; other variables in m are heights of pressure levels, in dam."""


def unit_of(variable: str, units: str) -> Unit:
    """Return the unit in which values of a variable are displayed.

    Args:
        variable: name of the variable.
        units: stored units, in CF spelling; values in unknown units are displayed unchanged.
    """
    if units == "m" and "precipitation" in variable:
        return _RAIN
    return _KNOWN.get(units, Unit(units_text(units)))


def named(variable: str, level: int | None = None) -> str:
    """Return the name of a variable in a figure, like ``Temperature at 850 hPa``."""
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
"""Names that are shorter than those in the attributes, or that agree with the displayed unit."""
