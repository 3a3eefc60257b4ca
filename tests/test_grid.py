import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.errors import GridError
from graphcast_batch.grid import Grid, cell_area, exact_grid, mean_over_globe

LONGITUDE = np.arange(0, 360, 30, dtype=np.float32)
LATITUDE = np.linspace(-90, 90, 7, dtype=np.float32)


@given(st.integers(2, 60), st.booleans())
def test_cell_areas_are_the_exact_integrals_between_the_middles(rows, ascending):
    latitude = np.linspace(-90, 90, rows)[:: 1 if ascending else -1]

    area = cell_area(latitude)

    bounds = np.deg2rad(np.concatenate([[-90], (np.sort(latitude)[1:] + np.sort(latitude)[:-1]) / 2, [90]]))
    np.testing.assert_allclose(area * 2 / rows, np.diff(np.sin(bounds)), atol=1e-12)  # the sphere: 2 in all
    assert area.mean() == pytest.approx(1)


def test_the_mean_over_the_globe_is_that_of_the_sphere_where_there_are_values():
    """The mean of the square of the sine of latitude is 1/3, of the sphere and of each half of it."""
    grid = Grid(np.linspace(-90, 90, 721, dtype=np.float32), LONGITUDE)
    values = np.repeat(np.sin(np.deg2rad(grid.latitude.astype(np.float64)))[:, np.newaxis] ** 2, LONGITUDE.size, axis=1)

    assert mean_over_globe(grid, values) == pytest.approx(1 / 3, abs=1e-4)
    values[:, :6] = np.nan
    assert mean_over_globe(grid, values) == pytest.approx(1 / 3, abs=1e-4)
    assert np.isnan(mean_over_globe(grid, np.full_like(values, np.nan)))


def test_a_grid_knows_its_size_and_resolution():
    grid = Grid(LATITUDE, LONGITUDE)

    assert (grid.shape, grid.size, grid.resolution, str(grid)) == ((7, 12), 84, 30.0, "7 x 12 (30°)")
    assert grid == Grid(LATITUDE.copy(), LONGITUDE.copy())
    assert hash(grid) == hash(Grid(LATITUDE.copy(), LONGITUDE.copy()))
    assert grid != Grid(LATITUDE, np.arange(0, 360, 10, dtype=np.float32))
    assert grid.fits(0) and grid.fits(30) and not grid.fits(15)  # noqa: PT018 - one rule, three sides


def test_rows_and_columns_of_different_steps_are_both_told_and_both_must_fit():
    grid = Grid(np.linspace(-90, 90, 10, dtype=np.float32), np.arange(0, 360, 10, dtype=np.float32))

    assert str(grid) == "10 x 36 (20° x 10°)"
    assert not grid.fits(10)
    assert not grid.fits(20)
    assert grid.fits(0)


@pytest.mark.parametrize("step", [0.25, 1.0, 5.625, 0.1])
def test_rows_between_the_poles_are_a_grid_of_their_step(step):
    rows = round(180 / step)
    latitude = ((np.arange(rows) + 0.5) * step - 90).astype(np.float32)

    grid = Grid(latitude, (np.arange(2 * rows) * step).astype(np.float32))

    assert str(grid) == f"{rows} x {2 * rows} ({step:g}°)"
    assert grid.fits(step)


@given(st.integers(2, 900), st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.5]), st.floats(-4e-4, 4e-4))
def test_coordinates_with_rounding_errors_mean_exact_ones(rows, row_offset, column_offset, error):
    step = 180 / rows
    count = rows if row_offset else rows + 1
    latitude = -90 + (np.arange(count) + row_offset) * step
    longitude = (np.arange(2 * rows) + column_offset) * step

    noise = error * np.cos(np.arange(2 * rows)) * (1 if step > 0.5 else 0.1)
    found = exact_grid(latitude + np.resize(noise, count), longitude + np.abs(noise))

    np.testing.assert_array_equal(found.longitude, longitude.astype(np.float32))
    np.testing.assert_allclose(found.latitude, latitude, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.latitude, -found.latitude[::-1])
    if not row_offset:
        assert (found.latitude[0], found.latitude[-1]) == (-90, 90)
    if count % 2:
        assert found.latitude[count // 2] == 0


def test_columns_that_begin_elsewhere_stay_there():
    found = exact_grid(LATITUDE, LONGITUDE + 7.0)

    np.testing.assert_array_equal(found.longitude, LONGITUDE + 7)


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        (LATITUDE[::-1], LONGITUDE, "latitude must ascend.*sort the data"),
        (LATITUDE[:1], LONGITUDE, "latitude must be one dimension of 2 or more"),
        (np.float32([-90, 0, 80, 90]), LONGITUDE, "latitude must be uniformly spaced"),
        (LATITUDE[2:5], LONGITUDE, "latitude must reach both poles to within one step"),
        (
            LATITUDE[:-1],
            LONGITUDE,
            "latitude must hold both poles or neither, but lacks the row at 90°: -90, -60 .* add it",
        ),
        (LATITUDE[1:], LONGITUDE, "latitude must hold both poles or neither, but lacks the row at -90°"),
        (LATITUDE[:-1] + 10, LONGITUDE, r"latitude must be symmetric about the equator, but is -80, -50 \.\.\. 70"),
        (LATITUDE * 2, LONGITUDE, r"latitude must lie in -90\.\.90"),
        (np.float32([-90, np.nan, 90]), LONGITUDE, "latitude must ascend"),
        (LATITUDE, LONGITUDE - 180, r"longitude must lie in 0\.\.360"),
        (LATITUDE, LONGITUDE[:-1], "longitude must go once around the globe"),
        (LATITUDE, LONGITUDE[::-1], "longitude must ascend"),
    ],
)
def test_what_is_no_global_grid_is_refused_with_the_reason(latitude, longitude, message):
    with pytest.raises(GridError, match=message):
        Grid(latitude, longitude)


def test_areas_need_a_monotonic_latitude():
    with pytest.raises(GridError, match="latitude must be strictly monotonic"):
        cell_area(np.array([0.0, 10.0, 5.0]))
