"""Integrals stay, closed forms are met, and a missing value reaches the cells it belongs to and no other."""

import pickle
import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from graphcast_batch.errors import GridError
from graphcast_batch.grid import Grid, cell_area, regular_grid
from graphcast_batch.inputs.layouts.regridding import Regridder

METHODS = ("subsample", "conservative", "linear")


def between_poles(step, first_column=0.0):
    """A grid whose rows lie half a step off the poles."""
    rows = round(180 / step)
    latitude = ((np.arange(rows) + 0.5) * step - 90).astype(np.float32)
    return Grid(latitude, (first_column + np.arange(2 * rows) * step).astype(np.float32))


SOURCES = {
    "rows at the poles": regular_grid(5),
    "rows between the poles": between_poles(5),
    "cells from 0°": between_poles(5, 2.5),
    "steps that float32 rounds": regular_grid(3.6),
    "wide columns": Grid(np.linspace(-90, 90, 61, dtype=np.float32), np.arange(0, 360, 7.5, dtype=np.float32)),
    "a whole step off the poles": Grid(np.linspace(-85, 85, 35, dtype=np.float32), np.arange(0, 360, 5.0, np.float32)),
}
sources = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


def noise(grid, *leading, seed=0):
    return np.random.default_rng(seed).normal(280, 30, (*leading, *grid.shape)).astype(np.float32)


def on(grid, values):
    dims = ("time", "level", "latitude", "longitude")[4 - np.ndim(values) :]
    return xr.Dataset({"value": (dims, values)}, {"latitude": grid.latitude, "longitude": grid.longitude})


def regridded(source, resolution, method, values):
    return Regridder(source, resolution, method).regrid(on(source, values))["value"].values


def row_bounds(grid):
    latitude = grid.latitude.astype(float)
    return np.deg2rad(np.concatenate([[-90], (latitude[1:] + latitude[:-1]) / 2, [90]]))


def column_bounds(grid):
    longitude = grid.longitude.astype(float)
    return np.deg2rad(np.append(longitude, longitude[0] + 360) - 180 / longitude.size)


def cell_means(grid, wave):
    """Means over each cell of sin(latitude) cos(latitude) cos(wave longitude), from its primitives."""
    rows, columns = row_bounds(grid), column_bounds(grid)
    by_row = -np.diff(np.cos(rows) ** 3) / 3 / np.diff(np.sin(rows))
    by_column = np.diff(np.sin(wave * columns)) / wave / np.diff(columns)
    return np.outer(by_row, by_column).astype(np.float32)


@sources
@pytest.mark.parametrize("resolution", [7.5, 9, 10, 30, 90])
def test_the_integral_over_the_globe_stays(source, resolution):
    values = noise(source, 3)

    coarse = regridded(source, resolution, "conservative", values)

    target = regular_grid(resolution)
    before = (values.mean(-1, dtype=float) * cell_area(source.latitude)).mean(-1)
    after = (coarse.mean(-1, dtype=float) * cell_area(target.latitude)).mean(-1)
    np.testing.assert_allclose(after, before, rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "resolution"),
    [(regular_grid(5), 15), (regular_grid(3.6), 18), (regular_grid(4), 20), (between_poles(5, 2.5), 10)],
)
@pytest.mark.parametrize("wave", [1, 2])
def test_cells_made_of_whole_cells_hold_the_exact_mean_of_a_spherical_harmonic(source, resolution, wave):
    coarse = regridded(source, resolution, "conservative", cell_means(source, wave))

    np.testing.assert_allclose(coarse, cell_means(regular_grid(resolution), wave), atol=1e-6)


@sources
@pytest.mark.parametrize("resolution", [7.5, 9, 10, 36])
def test_rows_that_are_cut_give_each_part_its_area(source, resolution):
    by_row = noise(source)[:, 0]

    coarse = regridded(source, resolution, "conservative", np.tile(by_row[:, None], source.shape[1]))

    # A step function's primitive is a broken line, whose differences over the new cells are their integrals.
    fine, wide = np.sin(row_bounds(source)), np.sin(row_bounds(regular_grid(resolution)))
    primitive = np.append(0, np.cumsum(by_row * np.diff(fine)))
    expected = np.diff(np.interp(wide, fine, primitive)) / np.diff(wide)
    np.testing.assert_allclose(coarse, np.tile(expected[:, None], coarse.shape[1]), rtol=2e-6)


@sources
@pytest.mark.parametrize("resolution", [7.5, 9, 10, 36])
def test_columns_that_are_cut_give_each_part_its_width_around_the_globe(source, resolution):
    by_column = noise(source)[0]

    coarse = regridded(source, resolution, "conservative", np.tile(by_column, (source.shape[0], 1)))

    fine, wide = column_bounds(source), column_bounds(regular_grid(resolution))
    around = np.concatenate([fine[:-1] - 2 * np.pi, fine, fine[1:] + 2 * np.pi])
    primitive = np.append(0, np.cumsum(np.tile(by_column, 3) * np.diff(around)))
    expected = np.diff(np.interp(wide, around, primitive)) / np.diff(wide)
    np.testing.assert_allclose(coarse, np.tile(expected, (coarse.shape[0], 1)), rtol=2e-6)


def test_the_polar_row_counts_as_the_cap_that_it_is():
    source = regular_grid(10)
    values = np.zeros(source.shape, np.float32)
    values[-1] = 1

    coarse = regridded(source, 30, "conservative", values)

    share = (1 - np.sin(np.deg2rad(85))) / (1 - np.sin(np.deg2rad(75)))
    np.testing.assert_allclose(coarse[-1], share, rtol=1e-6)
    np.testing.assert_array_equal(coarse[:-1], 0)


@pytest.mark.parametrize("resolution", [7.5, 9, 10, 36])
@sources
def test_linear_is_what_scipy_interpolates_with_the_globe_closed_and_the_last_rows_held(source, resolution):
    values = noise(source)
    latitude, longitude = source.latitude.astype(float), source.longitude.astype(float)
    closed = np.concatenate([longitude[-1:] - 360, longitude, longitude[:1] + 360])
    reached = np.concatenate([[-91], latitude, [91]])
    padded = np.pad(np.pad(values, ((0, 0), (1, 1)), "wrap"), ((1, 1), (0, 0)), "edge")
    target = regular_grid(resolution)

    coarse = regridded(source, resolution, "linear", values)

    expected = RegularGridInterpolator((reached, closed), padded)(
        tuple(np.meshgrid(target.latitude.astype(float), target.longitude.astype(float), indexing="ij"))
    )
    np.testing.assert_allclose(coarse, expected, rtol=2e-6)


@pytest.mark.parametrize("multiple", [1, 2, 5, 10])
def test_subsample_takes_shared_points_bit_for_bit(multiple):
    source = regular_grid(3.6)
    values = noise(source, 2, 3)
    values[0, 0, 0, 0], values[0, 0, 0, multiple] = np.nan, -0.0

    coarse = regridded(source, 3.6 * multiple, "subsample", values)

    np.testing.assert_array_equal(coarse.view(np.int32), values[..., ::multiple, ::multiple].view(np.int32))
    assert coarse.flags["C_CONTIGUOUS"]
    assert not np.shares_memory(coarse, values)


def test_linear_leaves_shared_points_alone():
    source = regular_grid(3.6)
    values = noise(source)
    values[1, 1] = np.nan  # beside a shared point, and none itself

    np.testing.assert_array_equal(regridded(source, 7.2, "linear", values), values[::2, ::2])


@pytest.mark.parametrize("method", METHODS)
@given(value=st.floats(-(2**99), 2**99, width=32), turn=st.integers(0, 11))
def test_a_constant_stays_and_a_turn_of_the_globe_turns_the_result(method, value, turn):
    source = regular_grid(10)
    regridder = Regridder(source, 30, method)
    field = noise(source)

    constant = regridder.regrid(on(source, np.full(source.shape, value, np.float32)))["value"].values
    turned = regridder.regrid(on(source, np.roll(field, 3 * turn, axis=-1)))["value"].values

    np.testing.assert_allclose(constant, value, rtol=1e-6)
    unturned = regridder.regrid(on(source, field))["value"].values
    np.testing.assert_allclose(turned, np.roll(unturned, turn, axis=-1), rtol=1e-6)


@pytest.mark.parametrize(("step", "multiple"), [(0.6, 3), (1.2, 5), (4, 3)])
@given(data=st.data())
def test_a_missing_value_is_missing_in_its_coarse_cell_and_nowhere_else(step, multiple, data):
    source = regular_grid(step)
    row = data.draw(st.integers(0, source.shape[0] - 1))
    column = data.draw(st.integers(0, source.shape[1] - 1))
    values = np.zeros(source.shape, np.float32)
    values[row, column] = np.nan

    coarse = regridded(source, step * multiple, "conservative", values)

    # Odd multiples: each cell lies in one coarse cell, that of the nearest point.
    expected = np.zeros_like(coarse)
    expected[round(row / multiple), round(column / multiple) % coarse.shape[1]] = np.nan
    np.testing.assert_array_equal(coarse, expected)


@pytest.mark.parametrize("method", ["conservative", "linear"])
@given(row=st.integers(0, 35), column=st.integers(0, 71))
def test_a_missing_value_is_missing_wherever_another_value_would_show(method, row, column):
    source = between_poles(5, 2.5)
    values = np.zeros(source.shape, np.float32)
    values[row, column] = 1

    shown = regridded(source, 7.5, method, values) > 0
    values[row, column] = np.nan

    np.testing.assert_array_equal(np.isnan(regridded(source, 7.5, method, values)), shown)


@pytest.mark.parametrize("method", METHODS)
def test_every_field_is_regridded_and_the_rest_stays(method):
    source = regular_grid(10)
    fields = on(source, noise(source, 2, 3)).assign_coords(level=[300, 500, 850])
    fields["mask"] = ("latitude", "longitude"), noise(source), {"units": "1"}
    fields["progress"] = "time", np.float32([0.25, 0.5])

    coarse = Regridder(source, 30, method).regrid(fields)

    target = regular_grid(30)
    assert dict(coarse.sizes) == {"time": 2, "level": 3, "latitude": 7, "longitude": 12}
    assert Grid(coarse["latitude"].values, coarse["longitude"].values) == target
    assert coarse["mask"].attrs == {"units": "1"}
    assert {array.dtype for array in coarse.data_vars.values()} == {np.dtype(np.float32)}
    xr.testing.assert_identical(coarse["progress"], fields["progress"])
    xr.testing.assert_identical(coarse["level"], fields["level"])
    alone = Regridder(source, 30, method).regrid(fields.isel(time=1, level=2))
    np.testing.assert_array_equal(coarse["value"][1, 2], alone["value"])


@pytest.mark.parametrize("method", METHODS)
def test_a_regridder_knows_its_grid_and_survives_pickling(method):
    source = regular_grid(10)
    fields = on(source, noise(source))
    regridder = Regridder(source, 30, method)
    before = regridder.regrid(fields)

    copy = pickle.loads(pickle.dumps(regridder))

    assert copy == regridder
    assert copy.grid == regular_grid(30)
    xr.testing.assert_identical(copy.regrid(fields), before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", [regular_grid(2), SOURCES["wide columns"], between_poles(2)])
def test_coarser_grids_are_not_made_finer(method, source):
    with pytest.raises(GridError, match=f"{re.escape(str(source))}.* not to 1°"):
        Regridder(source, 1, method)


@pytest.mark.parametrize(
    ("source", "resolution", "message"),
    [
        (regular_grid(2), 5, "whole multiple of the data's steps, but 5° is none of 91 x 180 .2°.; .* conservative or"),
        (between_poles(2), 4, "rows at the poles .* the first row is at -89° .*; use the method conservative or"),
        (between_poles(2, 1), 4, "a column at 0°, but .* the first column at 1°; use"),
        (regular_grid(2), 7, "a resolution must divide 180°, but is 7°"),
    ],
)
def test_points_that_are_not_shared_are_not_taken(source, resolution, message):
    with pytest.raises(GridError, match=message):
        Regridder(source, resolution, "subsample")


@pytest.mark.parametrize(
    "fields",
    [
        on(regular_grid(5), noise(regular_grid(5))),
        on(regular_grid(10), noise(regular_grid(10))).isel(latitude=slice(None, None, -1)),
        on(between_poles(10, 5), noise(between_poles(10, 5))),
    ],
)
def test_fields_on_another_grid_are_refused(fields):
    with pytest.raises(GridError, match=r"must be on the grid 19 x 36 \(10°\).*make a regridder for their grid"):
        Regridder(regular_grid(10), 30, "linear").regrid(fields)
