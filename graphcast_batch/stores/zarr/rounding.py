"""Round float32 values to fewer bits of the mantissa, so that they compress better."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_MANTISSA_BITS: Final = 23
_SMALLEST_NORMAL: Final = 1 << _MANTISSA_BITS
_INFINITY: Final = 0xFF << _MANTISSA_BITS
_PIECE: Final = 2**16
"""Values that are rounded at once: they and what is computed from them fit into a core's cache."""


def keep_bits(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round the mantissa of every value to its first bits: to the nearest, and to even half-way between two.

    So every finite value changes by 2**-(bits + 1) of itself at most, without bias. Values for which that could not
    hold are left as they are: numbers below the smallest normal one, those that would round to infinity, infinities and
    NaN.
    See Klöwer et al. (2021), https://doi.org/10.1038/s43588-021-00156-2.

    Args:
        values: of any shape, contiguous.
        bits: how many bits of the mantissa to keep, 1 to 22 of 23; the leading bit, which is not stored, is not
            counted.

    Returns:
        New values, float32 of the same shape.
    """
    rounded = np.empty_like(values)
    source, target = values.reshape(-1).view(np.uint32), rounded.reshape(-1).view(np.uint32)
    for start in range(0, source.size, _PIECE):
        _round(source[start : start + _PIECE], target[start : start + _PIECE], _MANTISSA_BITS - bits)
    return rounded


def _round(source: NDArray[np.uint32], target: NDArray[np.uint32], dropped: int) -> None:
    half = 1 << (dropped - 1)
    np.right_shift(source, np.uint32(dropped), out=target)
    target &= np.uint32(1)
    target += source
    target += np.uint32(half - 1)
    target &= np.uint32(2**32 - (1 << dropped))
    # Numbers below the smallest normal one wrap around, so that one comparison finds them too.
    magnitude = source & np.uint32(2**31 - 1)
    magnitude -= np.uint32(_SMALLEST_NORMAL)
    np.copyto(target, source, where=magnitude >= np.uint32(_INFINITY - half - _SMALLEST_NORMAL))
