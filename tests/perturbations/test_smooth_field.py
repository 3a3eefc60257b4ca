import math

import numpy as np
import pytest
from numpy.polynomial.legendre import legval
from scipy.stats import chi2

from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import Grid, cell_area, regular_grid
from graphcast_batch.perturbations.draws import Draw
from graphcast_batch.perturbations.smooth_field import EARTH_RADIUS_KM, SmoothField
from tests.perturbations.states import INIT_TIME

STEP_KM = math.radians(10) * EARTH_RADIUS_KM
LENGTH_KM = 3 * STEP_KM
COUNT = 3000


def drawn(field, count=COUNT, levels=(None,), name="2m_temperature"):
    """Return many fields: (number, level, lat, lon)."""
    return np.asarray([list(field(name, levels, Draw(0, number, INIT_TIME))) for number in range(count)])


@pytest.fixture(scope="module")
def sample():
    return drawn(SmoothField(regular_grid(10), LENGTH_KM, 1.0, (500,)))[:, 0]


def test_every_point_has_mean_0_and_standard_deviation_1(sample):
    squares = (sample**2).sum(axis=0)

    assert np.all(np.abs(sample.mean(axis=0)) < 5.5 / math.sqrt(COUNT))
    assert np.all((chi2.ppf(1e-7, COUNT) < squares) & (squares < chi2.isf(1e-7, COUNT)))
    area = cell_area(regular_grid(10).latitude)[:, np.newaxis]
    assert (squares * area).mean() / COUNT == pytest.approx(1, abs=0.02)


def test_poles_and_equator_have_the_same_variance(sample):
    variance = sample.var(axis=0).mean(axis=-1)

    assert variance[[0, -1]].mean() == pytest.approx(1, abs=0.08)  # two numbers of each field
    assert variance[9] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_the_correlation_falls_with_the_distance_as_that_of_the_stated_power(sample, steps):
    angle = steps * math.radians(10)
    half_square = (LENGTH_KM / EARTH_RADIUS_KM) ** 2 / 2
    degrees = np.arange(60)
    power = (2 * degrees + 1) * np.exp(-degrees * (degrees + 1) * half_square)
    expected = legval(math.cos(angle), power) / power.sum()

    along_equator = np.mean(sample[:, 9] * np.roll(sample[:, 9], steps, axis=-1))
    from_pole = np.mean(sample[:, 0] * sample[:, steps])
    across_pole = np.mean(sample[:, 3, :18] * sample[:, 3, 18:])  # 60 degrees from 60 south to 60 south

    assert along_equator == pytest.approx(expected, abs=0.05)
    assert from_pole == pytest.approx(expected, abs=0.05)
    if steps == 3:
        assert expected == pytest.approx(math.exp(-0.5), rel=0.025)
    if steps == 6:
        assert across_pole == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("length_km", [500.0, 1000.0, 2000.0])
def test_the_correlation_at_the_length_is_the_root_of_1_over_e(length_km):
    grid = Grid(np.linspace(-90, 90, 73, dtype=np.float32), np.arange(0, 360, 2.5, dtype=np.float32))
    fields = drawn(SmoothField(grid, length_km + 60, 1.0, (500,)), count=40)[:, 0]

    # Differences along the equator give the correlation at all multiples of 2.5 degrees, which are interpolated.
    lags = np.arange(16)
    found = [np.mean(fields[:, 36] * np.roll(fields[:, 36], lag, axis=-1)) for lag in lags]
    distance = lags * math.radians(2.5) * EARTH_RADIUS_KM
    at_length = np.interp(length_km + 60, distance, np.asarray(found) / found[0])

    assert at_length == pytest.approx(math.exp(-0.5), abs=0.08)


def test_a_field_is_one_number_along_a_pole_and_has_no_seam():
    (field,) = drawn(SmoothField(regular_grid(5), 1500.0, 1.0, (500,)), count=1)[0]

    np.testing.assert_allclose(field[[0, -1]], field[[0, -1], :1] * np.ones(72), atol=1e-12)
    steps = np.abs(np.diff(field, axis=-1, append=field[:, :1]))
    assert steps[:, -1].max() <= steps[:, :-1].max()
    assert np.abs(field[1] - field[0]).max() < 1  # 5 degrees are a third of the length


def test_grids_have_the_same_field_at_the_points_that_they_share():
    fine = Grid(np.linspace(-87.5, 87.5, 36, dtype=np.float32), np.arange(0, 360, 5, dtype=np.float32))
    coarse = Grid(np.linspace(-82.5, 82.5, 12, dtype=np.float32), np.arange(5, 360, 15, dtype=np.float32))

    (one,), (other,) = (drawn(SmoothField(grid, 4000.0, 1.0, (500,)), count=1)[0] for grid in (fine, coarse))

    np.testing.assert_allclose(one[1::3, 1::3], other, atol=1e-5)  # coordinates are float32


def test_the_correlation_of_levels_falls_with_the_ratio_of_their_pressures():
    levels = (100, 200, 850)
    fields = drawn(SmoothField(regular_grid(15), 4000.0, 2.0, levels), levels=levels, name="temperature")
    area = cell_area(regular_grid(15).latitude)[:, np.newaxis]

    for one, other in ((0, 1), (1, 2), (0, 2)):
        found = (fields[:, one] * fields[:, other] * area).mean()
        assert found == pytest.approx((levels[one] / levels[other]) ** 0.5, abs=0.02)
    np.testing.assert_allclose((fields**2 * area).mean(axis=(0, 2, 3)), 1, atol=0.03)


def test_vertical_scales_far_beyond_the_column_give_one_field_and_far_below_independent_ones():
    levels = (200, 500, 850)
    same, apart = (
        drawn(SmoothField(regular_grid(15), 4000.0, scale, levels), 50, levels, "temperature") for scale in (1e9, 1e-3)
    )

    np.testing.assert_allclose(same[:, 0], same[:, 2], atol=1e-3)
    assert abs(np.corrcoef(apart[:, 1, 6].ravel(), apart[:, 2, 6].ravel())[0, 1]) < 0.3


def test_the_shortest_length_that_a_grid_resolves_is_named_and_works():
    grid = Grid(np.linspace(-90, 90, 19, dtype=np.float32), np.arange(0, 360, 5, dtype=np.float32))
    with pytest.raises(ConfigError, match=r"length_km must be at least 2224 on the grid 19 x 72 .*, but is 2223;"):
        SmoothField(grid, 2223, 1.0, (500,))

    fields = drawn(SmoothField(grid, 2224, 1.0, (500,)), count=400)

    assert (fields[:, 0, 9] ** 2).mean() == pytest.approx(1, abs=0.08)
