"""Convert units that data state to those that the model takes.

What a unit means is pint's to know. Here stand the spellings that pint lacks or takes for another unit, and which
quantities may stand for ours: height for geopotential, the mass of water for its depth, a flux for an hour's sum.
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
    """value in our unit = factor * value + offset."""

    factor: float = 1.0
    offset: float = 0.0


SAME: Final = Conversion()
LEVEL: Final = "level"
"""Stands beside the variables' names where units are given, for the coordinate."""

_OURS: Final[Mapping[str, str]] = {
    LEVEL: "hPa",
    "total_precipitation": "m",  # of which the model's own, over 6 h, is made
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
"""By our unit, spelled as `_plain` has it: some of those that are taken."""
_BESIDE: Final[Mapping[str, tuple[str, float]]] = {
    "m2 s-2": ("m", 9.80665),  # standard gravity, m s**-2, by which geopotential height is defined (WMO-No. 49)
    "m": ("kg m-2", 1e-3),  # depth of water of 1000 kg m**-3
    "J m-2": ("W m-2", 3600.0),  # the mean over the hour of which ours is the sum
}
"""By our unit: another quantity that stands for it, and how much of ours 1 of it is."""
_ITS_OWN: Final[Mapping[str, re.Pattern[str]]] = {
    "kg kg-1": re.compile(r"\w*gram|dimensionless"),
    "1": re.compile("percent|dimensionless"),
}
"""By our unit, where it is a share of something: the only names that its units have. Humidity in % is relative."""

_DEFINITIONS: Final = (
    "millibar = 100 * pascal = mbar = mb",  # pint's mb is a millibarn
    "geopotential_meter = 9.80665 * joule / kilogram = gpm",
    "geopotential_decameter = 98.0665 * joule / kilogram = gpdm = gpdam",
)
_ONES: Final = frozenset({"1", "fraction", "proportion", "dimensionless", "unitless", "ratio"})
_FROM_0_TO_1: Final = re.compile(r"\(?\s*0\s*(?:-|to|\.\.)\s*1\s*\)?")
"""ECMWF's ``(0 - 1)``."""
_SUPERSCRIPTS: Final = str.maketrans({"⁻": "-", "¹": "1", "²": "2", "³": "3", "·": "*", "⋅": "*", "^": "**", ".": "*"})
_RESPELLED: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(?<=[A-Za-z)])(?:\*\*)?([+-]?\d)"), r"**\1"),  # m2 s-2
    (re.compile(r"%"), " percent "),
    (re.compile(r"(?i)(?:\bdeg(?:ree)?s?|°)[ _]*c(?:elsius)?\b"), "degC"),
    (re.compile(r"(?i)(?:\bdeg(?:ree)?s?|°)[ _]*k(?:elvin)?\b"), "K"),
    (re.compile(r"(?i)\b(?:geopotential|gp)[ _]*m(?:et(?:er|re)s?)?\b"), "gpm"),
)
_CAPITAL: Final = re.compile(r"\b(?:[A-Z][a-z]{3,}|[A-Z]{4,})\b")
"""Words, such as Kelvin; symbols are shorter, and theirs have a meaning."""
_OF_WATER: Final = re.compile(r"\s+of water(?:\s+equivalent)?$")
_GRAMMAR: Final = re.compile(r"(?:[A-Za-zµμ_()*/ ]|(?<=\*\*)[+-]?\d(?!\d|\*\*)){1,80}")
"""Names with small exponents: what else a file may say is not given to a parser that computes with it."""


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
    ours = _OURS.get(name, "")
    if not ours or not unit.strip():
        return SAME
    found = _conversion(_plain(ours), _plain(unit))
    if found is None:
        rate = ", a rate" if _is_rate(_plain(ours), _plain(unit)) else ""
        remedy = "multiply it by the seconds that it holds for" if rate else "convert it"
        raise InputError(
            f"{name} of {origin} must be in {ours} or a unit that can be converted to it (such as "
            f"{_EXAMPLES[_plain(ours)]}), but is in {unit!r}{rate}; {remedy}, or if the data are wrong about it, state "
            f"the unit: inputs.units {{{name}: {ours!r}}}"
        )
    return found


def is_pressure(unit: str) -> bool:
    """Whether a coordinate in this unit tells levels of pressure."""
    return bool(unit.strip()) and _conversion("hPa", _plain(unit)) is not None


def _plain(unit: str) -> str:
    """One spelling for powers and spaces: ``m**2 s**-2``, ``m^2 s^-2`` and ``m2 s-2`` are the same."""
    return " ".join(unit.replace("**", "").replace("^", "").split())


@functools.cache
def _conversion(ours: str, unit: str) -> Conversion | None:
    """None where the unit is none, or of another quantity."""
    if unit == ours:
        return SAME
    if unit == "C" and ours == "K":  # a coulomb elsewhere
        unit = "degC"
    found = _unit(_OF_WATER.sub("", unit) if ours == "m" else unit)
    if found is None or not _is_its_own(ours, found):
        return None
    alike = [pair for pair in ((ours, 1.0), _BESIDE.get(ours)) if pair and found.is_compatible_with(_unit(pair[0]))]
    if not alike:
        return None
    target, scale = _unit(alike[0][0]), alike[0][1]
    zero, one = (_registry().Quantity(value, found).to(target).magnitude for value in (0.0, 1.0))
    # 14 digits, as 274.15 less 273.15 is not quite 1.
    return Conversion(float(f"{scale * (one - zero):.14g}"), float(f"{scale * zero:.14g}"))


def _is_its_own(ours: str, found: "Unit") -> bool:
    names = _ITS_OWN.get(ours)
    return names is None or all(names.fullmatch(name) for name in re.findall(r"[a-z_]+", f"{found:D}"))


def _is_rate(ours: str, unit: str) -> bool:
    """Whether it is what falls in a time, of which nothing says how long it lasted."""
    found = _unit(unit) if ours == "m" else None
    return found is not None and _conversion(ours, f"({unit}) s") is not None


@functools.cache
def _unit(unit: str) -> "Unit | None":
    """None where it is none."""
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
    except Exception:  # of Python's tokenizer, of pint's parser, of arithmetic: whatever text may cause
        return None


@functools.cache
def _registry() -> "UnitRegistry[float]":
    """Made when the first unit is not ours, as that takes half a second."""
    from pint import UnitRegistry

    registry: UnitRegistry[float] = UnitRegistry(on_redefinition="ignore")
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry
