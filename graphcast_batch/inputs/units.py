"""The unit that data state becomes a factor and an offset to the unit that the model takes.

Spellings are those that ECMWF's GRIB tables, the CF conventions and CDS downloads use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graphcast_batch.errors import InputError
from graphcast_batch.variables import VARIABLES

_GRAVITY: Final = 9.80665
"""m s**-2, standard gravity, by which geopotential height is defined (WMO-No. 49)."""


@dataclass(frozen=True)
class Conversion:
    """value in our unit = factor * value + offset."""

    factor: float = 1.0
    offset: float = 0.0


SAME: Final = Conversion()
LEVEL: Final = "level"
"""Stands beside the variables' names where units are given, for the coordinate."""

# By our unit, spelled as `_spelled` has it: what is asked for there, and what it takes to come here.
_KNOWN: Final[Mapping[str, Mapping[str, Conversion]]] = {
    "K": {"K": SAME, "kelvin": SAME, **dict.fromkeys(("C", "degC", "°C", "celsius", "Celsius"), Conversion(1, 273.15))},
    "Pa": {
        "Pa": SAME,
        "pascal": SAME,
        **dict.fromkeys(("hPa", "mbar", "mb", "millibar", "millibars"), Conversion(100)),
    },
    "m s-1": {"m s-1": SAME, "m/s": SAME, "knots": Conversion(1852 / 3600), "kt": Conversion(1852 / 3600)},
    "m": {
        **dict.fromkeys(("m", "metre", "m of water equivalent"), SAME),
        **dict.fromkeys(("mm", "kg m-2", "kg/m2", "millimetre"), Conversion(1e-3)),
    },
    "m2 s-2": {
        **dict.fromkeys(("m2 s-2", "m2/s2", "J kg-1", "J/kg"), SAME),
        **dict.fromkeys(("gpm", "m", "metre"), Conversion(_GRAVITY)),
        **dict.fromkeys(("gpdm", "dam", "dagpm"), Conversion(10 * _GRAVITY)),
    },
    "Pa s-1": {"Pa s-1": SAME, "Pa/s": SAME, "hPa s-1": Conversion(100)},
    "kg kg-1": {"kg kg-1": SAME, "kg/kg": SAME, "1": SAME, "g kg-1": Conversion(1e-3), "g/kg": Conversion(1e-3)},
    "J m-2": {"J m-2": SAME, "J/m2": SAME, "W m-2": Conversion(3600), "W m-2 h": Conversion(3600)},
    "1": {
        **dict.fromkeys(("1", "(0 - 1)", "0-1", "fraction", "dimensionless", "Proportion"), SAME),
        "%": Conversion(0.01),
    },
    "hPa": {
        **dict.fromkeys(("hPa", "mbar", "mb", "millibar", "millibars"), SAME),
        **dict.fromkeys(("Pa", "pascal"), Conversion(0.01)),
    },
}


def conversion(name: str, unit: str, origin: str) -> Conversion:
    """What brings a variable, or the coordinate ``level``, to our unit.

    Radiation given as a flux is taken as the mean over an hour, of which our unit is the sum.

    Args:
        name: ours; one that this program does not know keeps its unit.
        unit: as the data or the configuration state it; empty for ours.
        origin: where the data are, for the message.

    Raises:
        InputError: the unit is not one of this variable's.
    """
    ours = "hPa" if name == LEVEL else VARIABLES[name].units if name in VARIABLES else ""
    if not ours or not unit.strip():
        return SAME
    known = _KNOWN[_spelled(ours)]
    found = known.get(_spelled(unit))
    if found is None:
        raise InputError(
            f"{name} of {origin} must be in {ours} or a unit that can be converted to it ({', '.join(known)}), but is "
            f"in {unit!r}; convert it, or state its unit in inputs.units"
        )
    return found


def _spelled(unit: str) -> str:
    """One spelling for powers and spaces: ``m**2 s**-2``, ``m^2 s^-2`` and ``m2 s-2`` are the same."""
    return " ".join(unit.replace("**", "").replace("^", "").split())
