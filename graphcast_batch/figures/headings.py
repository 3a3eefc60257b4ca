"""Counts and times become the words and ticks that stand around a picture."""

import math

import numpy as np
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from graphcast_batch.variables import HOUR


def counted(cases: int) -> str:
    """How many initial times."""
    return f"{cases} initial time{'s' if cases != 1 else ''}"


def complete_hours(leads: NDArray[np.timedelta64]) -> list[int]:
    """Lead times in hours."""
    return [int(hours) for hours in leads // HOUR]


def lead_words(hours: int) -> str:
    """A lead time, in days if it is a number of them."""
    return f"{hours // 24} d" if hours % 24 == 0 else f"{hours} h"


def time_unit(last_hours: float) -> tuple[str, int]:
    """What lead times are shown in, and its hours: days, if there are more than two of them."""
    return ("Lead time (days)", 24) if last_hours > 48 else ("Lead time (h)", 1)


def lead_ticks(last_hours: float, hours_a_unit: int) -> MultipleLocator:
    """Ticks at days, ten at most, or every six hours."""
    return MultipleLocator(6 if hours_a_unit == 1 else max(1, math.ceil(last_hours / 240)))
