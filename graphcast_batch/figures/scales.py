"""Choose color limits, power of ten, ticks, labels and contour values from the values of fields."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

_MOST_CONTOURS: Final = 16
"""The most contours of a field; more would cover a map of the globe."""
_MOST_SORTED: Final = 2**21
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Color limits of a field, and how its numbers are written.

    Attributes:
        low: lower limit, in the field's units.
        high: upper limit, above ``low``.
        units: of the field, in CF spelling; empty or ``1`` for plain numbers.
        beyond: whether the field has values below the lower limit, and above the upper limit.
        is_empty: whether the field has no value at all, so that the limits are meaningless.
    """

    low: float
    high: float
    units: str
    beyond: tuple[bool, bool] = (False, False)
    is_empty: bool = False

    @cached_property
    def exponent(self) -> int:
        """Power of ten, a multiple of 3, by which written numbers are divided; 0 for numbers of ordinary size."""
        most = max(abs(self.low), abs(self.high))
        return 0 if 0.1 <= most < 1e6 else 3 * math.floor(math.log10(most) / 3)

    @cached_property
    def label(self) -> str:
        """The power of ten and the units, like ``10⁻³ kg kg⁻¹``; empty without either."""
        power = f"10{str(self.exponent).translate(_SUPERSCRIPTS)}" if self.exponent else ""
        return " ".join(part for part in (power, units_text(self.units)) if part)

    @cached_property
    def suffix(self) -> str:
        """The text after a number, like `` ×10⁻³ kg kg⁻¹``; empty without power and units."""
        return f" {'×' if self.exponent else ''}{self.label}" if self.label else ""

    @cached_property
    def extend(self) -> Literal["neither", "both", "min", "max"]:
        """Which ends of the color bar are pointed, as matplotlib's argument ``extend``."""
        below, above = self.beyond
        if below and above:
            return "both"
        return "min" if below else "max" if above else "neither"

    def ticks(self, most: int = 9) -> tuple[list[float], list[str]]:
        """Return round values within the limits, in the field's units, and their labels; none for an empty field."""
        if self.is_empty:
            return [], []
        low, high = self._shown(self.low), self._shown(self.high)
        round_values = np.asarray(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        room = 1e-6 * (high - low)
        shown = round_values[(round_values >= low - room) & (round_values <= high + room)]
        step = float(np.diff(shown).min()) if shown.size > 1 else 1.0
        decimals = next((n for n in range(12) if np.allclose(np.round(shown, n), shown, rtol=0, atol=1e-3 * step)), 12)
        return [float(tick * 10.0**self.exponent) for tick in shown], [_number(tick, decimals) for tick in shown]

    def number(self, value: float) -> str:
        """Write a value of the field to about a hundredth of the limits' span, in units of `label`."""
        return _number(self._shown(value), max(0, 2 - math.floor(math.log10(self._shown(self.high - self.low)))))

    def _shown(self, value: float) -> float:
        return value / 10.0**self.exponent


def field_scale(fields: list[NDArray[np.float32]], units: str) -> Scale:
    """Return one scale for several fields: from the 2nd to the 98th percentile of their finite values.

    Where these are equal, as for a field that is zero nearly everywhere, the minimum and maximum are used instead.
    """
    values = _finite(fields)
    if not values.size:
        return Scale(0.0, 1.0, units, is_empty=True)
    least, most = float(values.min()), float(values.max())
    low, high = _percentiles(values, 2, 98)
    low, high = (low, high) if _differ(low, high) else (least, most)
    if not _differ(low, high):
        middle, half = (low + high) / 2, 0.01 * abs(low) or 1.0
        low, high = middle - half, middle + half
    return Scale(low, high, units, beyond=(least < low, most > high))


def difference_scale(fields: list[NDArray[np.float32]], units: str) -> Scale:
    """Return one scale for several fields of differences, symmetric about zero.

    It reaches to the 98th percentile of the finite absolute values, or to the largest where that percentile is zero.
    """
    values = _finite(fields)
    if not values.size:
        return Scale(-1.0, 1.0, units, is_empty=True)
    sizes = np.abs(values)
    (percentile,) = _percentiles(sizes, 98)
    limit = percentile or float(sizes.max()) or 1.0
    return Scale(-limit, limit, units, beyond=(bool(values.min() < -limit), bool(values.max() > limit)))


def units_text(units: str) -> str:
    """Write units with superscript powers, like ``m² s⁻²`` for ``m**2 s**-2``; empty for a number without units."""
    raised = re.sub(r"(?:\*\*|\^)(-?\d+)", lambda power: power[1].translate(_SUPERSCRIPTS), units)
    return "" if units == "1" else raised


def contour_levels(fields: list[NDArray[np.float32]], interval: float | None) -> NDArray[np.float64]:
    """Return the values at which several fields have contours: multiples of an interval, `_MOST_CONTOURS` at most.

    Args:
        fields: in displayed units.
        interval: the usual one, doubled until there are few enough contours; None to choose a round one.

    Returns:
        (levels,) ascending; empty for fields that have one value or none.
    """
    values = _finite(fields)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not _differ(low, high):
        return np.empty(0)
    if interval is None:
        locator = MaxNLocator(_MOST_CONTOURS - 1, steps=[1, 2, 2.5, 5, 10])
        levels = np.asarray(locator.tick_values(low, high), np.float64)
        return levels[(levels >= low) & (levels <= high)]
    while (high - low) / interval > _MOST_CONTOURS - 1:
        interval *= 2
    return interval * np.arange(math.ceil(low / interval), math.floor(high / interval) + 1, dtype=np.float64)


def _finite(fields: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    finite = [field[np.isfinite(field)] for field in fields]
    return np.concatenate(finite) if finite else np.empty(0, np.float32)


def _percentiles(values: NDArray[np.float32], *ranks: int) -> list[float]:
    """Compute percentiles, from every n-th value where sorting all values would take seconds."""
    some = values[:: max(1, values.size // _MOST_SORTED)]
    return [float(percentile) for percentile in np.percentile(some.astype(np.float64), ranks)]


def _differ(low: float, high: float) -> bool:
    """Whether two limits differ by enough float32 values for a color bar between them."""
    return high - low > 1e-5 * max(abs(low), abs(high))


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
