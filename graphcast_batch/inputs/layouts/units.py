"""Find the conversion from a unit that data state to the model's unit.

Units are parsed by pint. This module adds the spellings that pint does not know or takes for another unit, and the
quantities that are converted to the model's: height to geopotential, the mass of water to its depth, and a flux to a
sum over an hour.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from graphcast_batch.errors import InputError
from graphcast_batch.variables import VARIABLES

if TYPE_CHECKING:
    from pint import Unit, UnitRegistry


@dataclass(frozen=True)
class Conversion:
    """A linear conversion: value in the model's unit = factor * value + offset."""

    factor: float = 1.0
    offset: float = 0.0


SAME: Final = Conversion()
LEVEL: Final = "level"
"""Name of the level coordinate, for which units are given like for variables."""

_MODEL_UNITS: Final[Mapping[str, str]] = {
    LEVEL: "hPa",
    "total_precipitation": "m",  # the model's variable, over 6 h, is computed from it
    **{name: variable.units for name, variable in VARIABLES.items()},
}

_EXAMPLES: Final[Mapping[str, str]] = {
    "K": "K, degC",
    "Pa": "Pa, hPa",
    "hPa": "hPa, Pa",
    "m": "m, mm, kg m-2",
    "m s-1": "m s-1, knots",
    "m2 s-2": "m2 s-2, gpm, m, dam",
    "Pa s-1": "Pa s-1, hPa s-1",
    "kg kg-1": "kg kg-1, g kg-1",
    "J m-2": "J m-2, W m-2",
    "1": "1, %",
}
"""Examples of units that are accepted, by the model's unit in the spelling of `_plain`."""
_BESIDE: Final[Mapping[str, tuple[str, float]]] = {
    "m2 s-2": ("m", 9.80665),  # standard gravity, m s**-2, by which geopotential height is defined (WMO-No. 49)
    "m": ("kg m-2", 1e-3),  # depth of water of 1000 kg m**-3
    "J m-2": ("W m-2", 3600.0),  # the mean over an hour; the model's unit is that of the sum over the hour
}
"""By the model's unit: the unit of another quantity that is converted to it, and the factor."""
_ITS_OWN: Final[Mapping[str, re.Pattern[str]]] = {
    "kg kg-1": re.compile(r"\w*gram|dimensionless"),
    "1": re.compile("percent|dimensionless"),
}
"""Names of units that are accepted for fractions, by the model's unit. Humidity in % is relative humidity, for
example, and must not be converted to kg kg-1."""

_DEFINITIONS: Final = (
    "millibar = 100 * pascal = mbar = mb",  # pint's mb is a millibarn
    "geopotential_meter = 9.80665 * joule / kilogram = gpm",
    "geopotential_decameter = 98.0665 * joule / kilogram = gpdm = gpdam",
)
_ONES: Final = frozenset({"1", "fraction", "proportion", "dimensionless", "unitless", "ratio"})
_FROM_0_TO_1: Final = re.compile(r"\(?\s*0\s*(?:-|to|\.\.)\s*1\s*\)?")
"""Matches ``(0 - 1)``, which ECMWF writes for fractions."""
_SUPERSCRIPTS: Final = str.maketrans({"⁻": "-", "¹": "1", "²": "2", "³": "3", "·": "*", "⋅": "*", "^": "**", ".": "*"})
_RESPELLED: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(?<=[A-Za-z)])(?:\*\*)?([+-]?\d)"), r"**\1"),  # m2 s-2
    (re.compile(r"%"), " percent "),
    (re.compile(r"(?i)(?:\bdeg(?:ree)?s?|°)[ _]*c(?:elsius)?\b"), "degC"),
    (re.compile(r"(?i)(?:\bdeg(?:ree)?s?|°)[ _]*k(?:elvin)?\b"), "K"),
    (re.compile(r"(?i)\b(?:geopotential|gp)[ _]*m(?:et(?:er|re)s?)?\b"), "gpm"),
)
_CAPITAL: Final = re.compile(r"\b(?:[A-Z][a-z]{3,}|[A-Z]{4,})\b")
"""Matches names of units with capitals, such as Kelvin, but no symbols, which are shorter and case-sensitive."""
_OF_WATER: Final = re.compile(r"\s+of water(?:\s+equivalent)?$")
_GRAMMAR: Final = re.compile(r"(?:[A-Za-zµμ_()*/ ]|(?<=\*\*)[+-]?\d(?!\d|\*\*)){1,80}")
"""Matches names with small exponents; any other text of a file is not passed to pint, whose parser would compute it."""


def conversion(name: str, unit: str, origin: str) -> Conversion:
    """Return the conversion of a variable, or of the coordinate ``level``, to the model's unit.

    Radiation in the unit of a flux is taken as the mean over an hour, and converted to the sum over that hour.

    Args:
        name: the model's name of the variable; one that is not in `VARIABLES` keeps its unit.
        unit: unit that the data or the configuration state; empty for the model's.
        origin: path or address of the data, for messages.

    Raises:
        InputError: the unit is not a unit of this variable.
    """
    wanted = _MODEL_UNITS.get(name, "")
    if not wanted or not unit.strip():
        return SAME
    found = _conversion(_plain(wanted), _plain(unit))
    if found is None:
        rate = ", a rate" if _is_rate(_plain(wanted), _plain(unit)) else ""
        remedy = "multiply it by the length of its time window in seconds" if rate else "convert it"
        raise InputError(
            f"{name} of {origin} must be in {wanted} or a unit that can be converted to it (such as "
            f"{_EXAMPLES[_plain(wanted)]}), but is in {unit!r}{rate}; {remedy}, or if the data are wrong about it, "
            f"state the unit: inputs.units {{{name}: {wanted!r}}}"
        )
    return found


def is_pressure(unit: str) -> bool:
    """Return whether a unit is one of pressure."""
    return bool(unit.strip()) and _conversion("hPa", _plain(unit)) is not None


def _plain(unit: str) -> str:
    """Return a unit in one spelling of powers and spaces: ``m2 s-2`` for ``m**2 s**-2`` and ``m^2 s^-2``."""
    return " ".join(unit.replace("**", "").replace("^", "").split())


@functools.cache
def _conversion(wanted: str, unit: str) -> Conversion | None:
    """Return the conversion to the model's unit; None if ``unit`` is unknown or that of another quantity."""
    if unit == wanted:
        return SAME
    if unit == "C" and wanted == "K":  # for pint a coulomb
        unit = "degC"
    found = _unit(_OF_WATER.sub("", unit) if wanted == "m" else unit)
    if found is None or not _is_its_own(wanted, found):
        return None
    alike = [pair for pair in ((wanted, 1.0), _BESIDE.get(wanted)) if pair and found.is_compatible_with(_unit(pair[0]))]
    if not alike:
        return None
    target, scale = _unit(alike[0][0]), alike[0][1]
    zero, one = (_registry().Quantity(value, found).to(target).magnitude for value in (0.0, 1.0))
    # 14 digits, because 274.15 - 273.15 is not exactly 1.
    return Conversion(float(f"{scale * (one - zero):.14g}"), float(f"{scale * zero:.14g}"))


def _is_its_own(wanted: str, found: "Unit") -> bool:
    names = _ITS_OWN.get(wanted)
    return names is None or all(names.fullmatch(name) for name in re.findall(r"[a-z_]+", f"{found:D}"))


def _is_rate(wanted: str, unit: str) -> bool:
    """Return whether a unit is that of a precipitation rate, which is no depth without the length of its window."""
    found = _unit(unit) if wanted == "m" else None
    return found is not None and _conversion(wanted, f"({unit}) s") is not None


@functools.cache
def _unit(unit: str) -> "Unit | None":
    """Return a unit of pint; None if the text is not a unit."""
    text = unit.strip()
    if text.lower() in _ONES or _FROM_0_TO_1.fullmatch(text):
        return _registry().Unit("")
    text = text.translate(_SUPERSCRIPTS)
    for pattern, meant in _RESPELLED:
        text = pattern.sub(meant, text)
    text = _CAPITAL.sub(lambda word: word[0].lower(), text).strip()
    if not _GRAMMAR.fullmatch(text):
        return None
    try:
        return _registry().parse_units(text)
    except Exception:  # errors of Python's tokenizer, of pint's parser and of arithmetic
        return None


@functools.cache
def _registry() -> "UnitRegistry[float]":
    """Return the registry of units; made only when a unit must be converted, because that takes half a second."""
    from pint import UnitRegistry

    registry: UnitRegistry[float] = UnitRegistry(on_redefinition="ignore")
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry
