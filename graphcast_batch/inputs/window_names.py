"""Names of attributes, dimensions and coordinates for fields of GRIB that are summed or averaged over a time window."""

from typing import Final

PERIODS: Final = "step_lengths"
"""Attribute of a variable that is summed or averaged over time: the lengths of its windows in hours."""
WINDOW: Final = "window"
"""Dimension of precipitation in GRIB files, one position for each message, since each has a window of its own."""
WINDOW_BOUNDS: Final = ("window_start", "window_end", "window_init_time")
"""Coordinates along the dimension `WINDOW`, datetime64[ns]: begin of the sum (NaT if the message is not marked as a
sum), end of the sum, and initial time of the forecast that the message is from."""
