"""The land outlines that ship with the package become lines in degrees.

They are the 1:110 million land outlines of Natural Earth (naturalearthdata.com, public domain), as the npm package
world-atlas 2.0.2 holds them in ``land-110m.json``: rounded to hundredths of a degree, broken at the date line, and
without the edges along it that only close a polygon on a flat map.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray


@cache
def coastlines() -> tuple[NDArray[np.float32], ...]:
    """The lines of all coasts, islands and inland seas.

    Returns:
        One (vertices, 2) read-only array for each line: longitude in -180..180 and latitude in -90..90, degrees.
    """
    stored_lines = files("graphcast_batch.figures") / "coastlines.npz"
    with stored_lines.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        hundredths, offsets = stored["vertices"], stored["offsets"]
    vertices = np.asarray(hundredths / np.float32(100), np.float32)
    vertices.flags.writeable = False
    return tuple(np.split(vertices, offsets[1:-1]))
