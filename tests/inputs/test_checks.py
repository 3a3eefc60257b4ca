"""Every fault of the inputs is named with what was expected, what was found and what to do."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.errors import InputError, TaskError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.checks import check_inputs, find_faults, find_gap
from graphcast_batch.inputs.states import CaseInputs


@pytest.fixture(scope="module")
def good(made):
    fields = made().sel(level=[300, 850])
    return CaseInputs(
        frames=fields.isel(time=[0, 1]).drop_vars("total_precipitation_6hr"),
        forcings=fields[["toa_incident_solar_radiation"]].isel(time=[2, 3]),
    )


@pytest.fixture(scope="module")
def grid(good):
    return Grid(good.frames["latitude"].values, good.frames["longitude"].values)


def with_frames(inputs, change):
    return dataclasses.replace(inputs, frames=change(inputs.frames.copy(deep=True)))


@pytest.mark.parametrize("resolution", [0, 30, 30.0009])
def test_good_inputs_pass(good, task, grid, resolution):
    check_inputs(good, task, grid, resolution)


def test_computable_forcings_may_be_missing_altogether(good, task, grid):
    inputs = CaseInputs(good.frames.drop_vars("toa_incident_solar_radiation"), xr.Dataset(coords={"time": []}))
    assert find_faults(inputs, task, grid, 30) == []


def test_all_missing_variables_are_named_at_once(good, task, grid):
    inputs = with_frames(good, lambda frames: frames.drop_vars(["temperature", "land_sea_mask"]))
    with pytest.raises(
        InputError, match="input variables land_sea_mask, temperature must be there, but are missing from"
    ):
        check_inputs(inputs, task, grid, 30)


def test_a_forcing_that_cannot_be_computed_must_be_there(good, task, grid):
    ozone = task.model_copy(update={"forcing_variables": ("ozone",)})
    with pytest.raises(InputError, match="forcing variables ozone must be there"):
        check_inputs(with_frames(good, lambda f: f.drop_vars("toa_incident_solar_radiation")), ozone, grid, 30)


def test_a_missing_level_is_named(good, task, grid):
    inputs = with_frames(good, lambda frames: frames.isel(level=[1]))
    with pytest.raises(InputError, match=r"temperature must be on the levels \[300, 850\] hPa, but are on \['850'\]"):
        check_inputs(inputs, task, grid, 30)


def test_levels_in_pascal_are_named(good, task, grid):
    inputs = with_frames(good, lambda frames: frames.assign_coords(level=[30000, 85000]))
    with pytest.raises(InputError, match="look like Pa"):
        check_inputs(inputs, task, grid, 30)


@pytest.mark.parametrize("hours", [1, 3, 12, -6])
def test_a_wrong_spacing_of_time_is_named(good, task, grid, hours):
    times = np.datetime64("2020-01-01T06", "ns") + np.asarray([0, hours]) * np.timedelta64(1, "h")
    inputs = with_frames(good, lambda frames: frames.assign_coords(time=times))
    with pytest.raises(InputError, match="time must hold 2 times 6 h apart, but holds 2020-01-01T06:00, "):
        check_inputs(inputs, task, grid, 30)


def test_too_few_frames_are_named(good, task, grid):
    with pytest.raises(InputError, match="time must hold 2 times 6 h apart, but holds 2020-01-01T00:00; "):
        check_inputs(with_frames(good, lambda frames: frames.isel(time=[0])), task, grid, 30)


def test_another_resolution_than_the_checkpoints_is_refused(good, task, grid):
    with pytest.raises(InputError, match=r"resolution must be 1°, .* but the grid is 7 x 12 \(30°\)"):
        check_inputs(good, task, grid, 1.0)


def test_other_points_than_the_grids_are_refused(good, task, grid):
    inputs = with_frames(good, lambda frames: frames.isel(latitude=slice(None, None, -1)))
    with pytest.raises(InputError, match=r"latitude must be the grid's, -90 to 90° .* but is 90 to -90°"):
        check_inputs(inputs, task, grid, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.transpose("latitude", ...),
            "temperature must have the dimensions time, level, latitude, longitude, but",
        ),
        (lambda f: f.assign(temperature=f["temperature"][:, 0]), "dimensions time, level, .* but has time, latitude"),
        (lambda f: f.assign(temperature=f["temperature"].expand_dims("batch")), "but has batch, time, level"),
        (
            lambda f: f.assign({"2m_temperature": f["2m_temperature"][0]}),
            "2m_temperature must have the dimensions time, lat",
        ),
        (
            lambda f: f.assign(year_progress_sin=np.float32(1)),
            "year_progress_sin must have the dimensions time, but has none",
        ),
    ],
)
def test_wrong_dimensions_are_named(good, task, grid, change, message):
    with pytest.raises(InputError, match=message):
        check_inputs(with_frames(good, change), task, grid, 30)


def test_a_forcing_needs_no_place(good, task, grid):
    inputs = with_frames(good, lambda frames: frames.assign(year_progress_sin=("time", np.ones(2, np.float32))))
    assert find_faults(inputs, task, grid, 30) == []


@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf, 9.96921e36]),
    places=st.sets(st.tuples(*(st.integers(0, size - 1) for size in (2, 2, 7, 12))), min_size=1, max_size=5),
)
def test_values_that_are_not_finite_are_counted_and_the_first_is_placed(good, task, grid, value, places):
    def spoil(frames):
        for place in places:
            frames["temperature"].values[place] = value
        return frames

    frames = good.frames
    time, level, row, column = min(places)
    (fault,) = find_faults(with_frames(good, spoil), task, grid, 30)
    assert fault.startswith(f"temperature must be finite, but {len(places)} of {2 * 2 * 7 * 12} values are missing")
    stamp = frames["time"].values[time].astype("datetime64[m]")
    assert (
        f"the first at time {stamp}, level {(300, 850)[level]}, latitude {frames['latitude'].values[row]:g}, " in fault
    )
    assert f"longitude {frames['longitude'].values[column]:g}, in {len({p[1] for p in places})} of 2 levels" in fault


def test_forcings_are_searched_for_gaps_too(good, task, grid):
    forcings = good.forcings.copy(deep=True)
    forcings["toa_incident_solar_radiation"][1, 2, 3] = np.nan
    with pytest.raises(
        InputError, match=r"toa_incident_solar_radiation must be finite, but 1 of 168 .* in 1 of 2 times"
    ):
        check_inputs(dataclasses.replace(good, forcings=forcings), task, grid, 30)


def test_a_gap_without_coordinates_is_placed_by_number():
    assert "the first at x number 1" in find_gap(xr.DataArray([0, np.nan], dims="x", name="value"))
    assert "the first at its only place" in find_gap(xr.DataArray(np.nan, name="value"))


def test_an_input_that_changes_but_is_never_predicted_is_an_error_of_the_task(good, task, grid):
    ice = task.model_copy(update={"input_variables": (*task.input_variables, "sea_ice_cover")})
    inputs = with_frames(good, lambda frames: frames.assign(sea_ice_cover=frames["2m_temperature"]))
    with pytest.raises(
        TaskError, match="must be a target or a forcing, but sea_ice_cover is neither, so that later steps"
    ):
        check_inputs(inputs, ice, grid, 30)


def test_every_fault_is_told_in_one_error_with_the_time(good, task, grid):
    def spoil(frames):
        frames["land_sea_mask"][0, 0] = np.nan
        return frames.drop_vars("2m_temperature")

    with pytest.raises(InputError, match=r"inputs at 2020-01-01T06:00 cannot start") as caught:
        check_inputs(with_frames(good, spoil), task, grid, 1)
    assert len(str(caught.value).splitlines()) == 4
