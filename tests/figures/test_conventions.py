import numpy as np
import pytest
from matplotlib import colormaps

from graphcast_batch.figures.conventions import DIFFERENCES, convention
from graphcast_batch.variables import VARIABLES

USED = {(convention(name).colors, convention(name).is_signed) for name in VARIABLES} | {(DIFFERENCES, True)}


def lightness(colors):
    """CIE 1976 lightness of sRGB colors (IEC 61966-2-1), which is what remains without hues."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)


@pytest.mark.parametrize(("colors", "is_signed"), sorted(USED))
def test_values_can_be_told_apart_without_hues(colors, is_signed):
    steps = np.diff(lightness(colormaps[colors](np.linspace(0, 1, 65))[:, :3]))
    halves = (steps[:32], -steps[32:]) if is_signed else (steps * np.sign(steps.sum()),)
    assert all((half > -0.2).all() and half.sum() > 50 for half in halves)
