"""Return the colors of a map as a table of bytes, for the report's page to draw fields with."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray


def palette(name: str) -> NDArray[np.uint8]:
    """Return the colors of one of matplotlib's color maps, from the lowest value to the highest.

    Args:
        name: of the color map, such as ``viridis``.

    Returns:
        (256, 3) red, green and blue.
    """
    colors: NDArray[np.uint8] = colormaps[name](np.arange(256), bytes=True)
    return colors[:, :3]
