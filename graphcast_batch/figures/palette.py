"""A map's colours become a table that a page paints fields with."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray


def palette(name: str) -> NDArray[np.uint8]:
    """The colours of one of matplotlib's colour maps, from the lowest value to the highest.

    Args:
        name: of the colour map, such as ``viridis``.

    Returns:
        (256, 3) red, green and blue.
    """
    colours: NDArray[np.uint8] = colormaps[name](np.arange(256), bytes=True)
    return colours[:, :3]
