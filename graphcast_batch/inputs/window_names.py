"""Name what a GRIB file tells of the windows of time over which its fields are summed up or averaged."""

from typing import Final

PERIODS: Final = "step_lengths"
"""Attribute of what GRIB messages sum up or average: the different lengths of time over which they do, hours."""
WINDOW: Final = "window"
"""Dimension of precipitation in GRIB: each message is summed up over a window of its own."""
WINDOW_BOUNDS: Final = ("window_start", "window_end", "window_init_time")
"""Coordinates along it, datetime64[ns]: where the sum begins (NaT where the message does not say that it is one), where
it ends, and the initial time of its forecast."""
