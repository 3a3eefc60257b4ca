import math

import numpy as np
import pytest
from scipy.special import sph_harm_y

from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.perturbations.harmonics import Harmonics

COLUMNS = np.arange(0, 360, 10, dtype=np.float32)
GRIDS = {
    "with poles": regular_grid(10),
    "without poles": Grid(np.linspace(-85, 85, 18, dtype=np.float32), COLUMNS),
    "from 5 degrees east": Grid(np.linspace(-85, 85, 18, dtype=np.float32), COLUMNS + 5),
    "coarse rows": Grid(np.linspace(-90, 90, 10, dtype=np.float32), COLUMNS),
}


def field(grid, highest, degree, order, sine=False):
    coefficients = np.zeros((1, 2, highest + 1, highest + 1))
    coefficients[0, int(sine), degree, order] = 1
    return next(iter(Harmonics(grid, highest).fields(coefficients)))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (3, 1), (7, 7), (17, 5)])
def test_each_harmonic_is_that_of_scipy(grid, degree, order):
    latitude, longitude = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    expected = sph_harm_y(degree, order, np.pi / 2 - latitude.astype(np.float64), longitude.astype(np.float64))

    factor = math.sqrt(2) if order else 1
    np.testing.assert_allclose(field(grid, 17, degree, order), factor * expected.real, atol=2e-6)
    if order:
        np.testing.assert_allclose(field(grid, 17, degree, order, sine=True), factor * expected.imag, atol=2e-6)


def test_the_squares_of_all_harmonics_of_a_degree_have_the_same_sum_everywhere():
    highest = 40
    coefficients = np.zeros((2 * highest + 1, 2, highest + 1, highest + 1))
    for order in range(highest + 1):
        coefficients[order, 0, highest, order] = 1
    for order in range(1, highest + 1):
        coefficients[highest + order, 1, highest, order] = 1

    squares = sum(each**2 for each in Harmonics(regular_grid(3), highest).fields(coefficients))

    np.testing.assert_allclose(squares, (2 * highest + 1) / (4 * math.pi), rtol=1e-11)  # the addition theorem


def test_a_sum_does_not_depend_on_the_fields_that_are_summed_beside_it():
    harmonics = Harmonics(regular_grid(5), 20)
    coefficients = np.random.default_rng(0).standard_normal((13, 2, 21, 21))

    together = list(harmonics.fields(coefficients))

    for index in (0, 6, 12):
        (alone,) = harmonics.fields(coefficients[index : index + 1])
        np.testing.assert_array_equal(alone, together[index])
