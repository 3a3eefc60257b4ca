"""Write counts and times as text, and label the axes of lead times and valid times."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from graphcast_batch.variables import HOUR


def initial_times_text(cases: int) -> str:
    """Return the number of initial times as text."""
    return f"{cases} initial time{'s' if cases != 1 else ''}"


def lead_hours_of(leads: NDArray[np.timedelta64]) -> list[int]:
    """Convert lead times to hours."""
    return [int(hours) for hours in leads // HOUR]


def lead_time_text(hours: int) -> str:
    """Return a lead time as text, in days where it is a multiple of 24 h."""
    return f"{hours // 24} d" if hours % 24 == 0 else f"{hours} h"


def time_unit(last_hours: float) -> tuple[str, int]:
    """Return the title of a lead time axis and the hours of its unit: days beyond 48 h, else hours."""
    return ("Lead time (days)", 24) if last_hours > 48 else ("Lead time (h)", 1)


def lead_ticks(last_hours: float, hours_a_unit: int) -> MultipleLocator:
    """Return ticks at days, ten at most, or every six hours."""
    return MultipleLocator(6 if hours_a_unit == 1 else max(1, math.ceil(last_hours / 240)))


def label_valid_times(axes: Axes) -> None:
    """Label the horizontal axis, of valid times, with its title and with dates as short as they can be."""
    locator = AutoDateLocator(minticks=4, maxticks=8)  # type: ignore[no-untyped-call]  # matplotlib has none
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlabel("Valid time (UTC)")
