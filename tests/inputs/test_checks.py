"""Every fault of the inputs is named with what was expected, what was found and what to do."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import InputError, TaskError
from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.quality.checks import check_inputs, find_faults
from graphcast_batch.inputs.quality.values import find_gap
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS, Task
from graphcast_batch.sun import solar_radiation
from graphcast_batch.variables import VARIABLES

SUN = "toa_incident_solar_radiation"


@pytest.fixture(scope="module")
def good():
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(4) * np.timedelta64(6, "h")
    names = ["2m_temperature", "temperature", "land_sea_mask"]
    fields = SyntheticPlanet().fields(names, times, regular_grid(30), (300, 850))
    sun = solar_radiation(times, fields["latitude"].values, fields["longitude"].values)
    fields[SUN] = ("time", "latitude", "longitude"), sun
    return CaseInputs(frames=fields.isel(time=[0, 1]), forcings=fields[[SUN]].isel(time=[2, 3]))


@pytest.fixture(scope="module")
def complete():
    """Every variable of a published task."""
    task = TASKS["GraphCast"]
    planet = SyntheticArchive(SyntheticPlanet(1), 15, task.pressure_levels)
    return planet.read(Case(np.datetime64("2020-07-01T06", "h"), 1, 6), task)


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
    assert str(fault).startswith(
        f"temperature must be finite, but {len(places)} of {2 * 2 * 7 * 12} values are missing"
    )
    stamp = frames["time"].values[time].astype("datetime64[m]")
    assert (
        f"the first at time {stamp}, level {(300, 850)[level]}, latitude {frames['latitude'].values[row]:g}, "
        in str(fault)
    )
    assert f"longitude {frames['longitude'].values[column]:g}, in {len({p[1] for p in places})} of 2 levels" in str(
        fault
    )
    assert (fault.variable, fault.level, fault.time) == ("temperature", (300, 850)[level], frames["time"].values[time])


def test_forcings_are_searched_for_gaps_too(good, task, grid):
    forcings = good.forcings.copy(deep=True)
    forcings["toa_incident_solar_radiation"][1, 2, 3] = np.nan
    with pytest.raises(
        InputError, match=r"toa_incident_solar_radiation must be finite, but 1 of 168 .* in 1 of 2 times"
    ):
        check_inputs(dataclasses.replace(good, forcings=forcings), task, grid, 30)


def test_a_gap_without_coordinates_is_placed_by_number():
    assert "the first at x number 1" in str(find_gap(xr.DataArray([0, np.nan], dims="x", name="value")))
    assert "the first at its only value" in str(find_gap(xr.DataArray(np.nan, name="value")))


def test_what_has_no_gap_gives_nothing():
    assert find_gap(xr.DataArray([0.0, -9e35, 9e35], dims="x")) is None
    assert find_gap(xr.DataArray(np.zeros((0, 2)), dims=("time", "latitude"))) is None


def test_an_input_that_changes_but_is_never_predicted_is_an_error_of_the_task(good, task, grid):
    ice = task.model_copy(update={"input_variables": (*task.input_variables, "sea_ice_cover")})
    inputs = with_frames(good, lambda frames: frames.assign(sea_ice_cover=frames["2m_temperature"]))
    with pytest.raises(
        TaskError, match=r"sea_ice_cover must be a target or a forcing, .* is neither, so that later steps"
    ):
        check_inputs(inputs, ice, grid, 30)


def test_every_fault_is_told_in_one_error_with_the_time(good, task, grid):
    def spoil(frames):
        frames["land_sea_mask"][0, 0] = np.nan
        return frames.drop_vars("2m_temperature")

    with pytest.raises(InputError, match=r"inputs at 2020-01-01T06:00 cannot start") as caught:
        check_inputs(with_frames(good, spoil), task, grid, 1)
    assert len(str(caught.value).splitlines()) == 4


def of_whole(inputs):
    task = TASKS["GraphCast"]
    return find_faults(inputs, task, Grid(inputs.frames["latitude"].values, inputs.frames["longitude"].values), 0)


def changed(inputs, name, change):
    return with_frames(inputs, lambda frames: frames.assign({name: change(frames[name])}))


def the_fault(inputs):
    (fault,) = of_whole(inputs)
    return fault


@pytest.mark.parametrize("day", ["2020-01-15T00", "2020-04-15T06", "2020-07-15T12", "2020-10-15T18"])
def test_the_synthetic_planet_passes_in_every_season(day):
    task = TASKS["GraphCast"]
    planet = SyntheticArchive(SyntheticPlanet(2), 15, task.pressure_levels)
    check_inputs(planet.read(Case(np.datetime64(day, "h"), 1, 6), task), task, planet.grid, 15)


@pytest.mark.parametrize(
    ("name", "unit", "wrong"),
    [
        ("temperature", "C", lambda x: x - 273.15),
        ("2m_temperature", "C", lambda x: x - 273.15),
        ("mean_sea_level_pressure", "hPa", lambda x: x / 100),
        ("geopotential", "m", lambda x: x / 9.80665),
        ("geopotential", "dam", lambda x: x / 98.0665),
        ("specific_humidity", "g kg-1", lambda x: x * 1000),
        ("total_precipitation_6hr", "mm", lambda x: x * 1000),
        ("geopotential_at_surface", "m", lambda x: x / 9.80665),
        ("land_sea_mask", "%", lambda x: x * 100),
    ],
)
def test_a_wrong_unit_is_recognized_and_the_setting_for_it_named(complete, name, unit, wrong):
    fault = the_fault(changed(complete, name, wrong))
    assert fault.variable == name
    assert fault.remedy == f"this looks like {unit}: give inputs.units {{{name}: '{unit}'}}, or convert it"


def test_a_share_is_told_without_a_unit(complete):
    assert (
        the_fault(changed(complete, "land_sea_mask", lambda array: 2 * array)).expected == "lie within -0.05 and 1.05"
    )


def test_radiation_in_watts_is_recognized_though_no_limit_is_passed(good, task, grid):
    weak = dataclasses.replace(good, forcings=good.forcings / 3600)
    (fault,) = find_faults(weak, task, grid, 30)
    assert str(fault).startswith(f"{SUN} must reach 1e+06 J m**-2 somewhere on the globe, but 2 of 2 fields do not")
    assert fault.remedy.startswith("this looks like W m-2: give inputs.units")


def test_no_unit_is_guessed_for_a_planet_without_mountains(complete):
    fault = the_fault(changed(complete, "geopotential_at_surface", lambda array: 1e-4 * array))
    assert fault.expected == "reach 9000 m**2 s**-2 somewhere on the globe"
    assert fault.remedy == "correct the data, or use others"


def test_one_value_off_the_limits_of_its_level_is_counted_and_placed_without_a_guess_at_its_unit(complete):
    def spoil(array):
        array.values[1, 17, 2, 3] = 330  # 330 K may be found at 850 hPa, not at 300
        return array

    fault = the_fault(changed(complete, "temperature", spoil))
    assert (fault.level, fault.time) == (300, np.datetime64("2020-07-01T06"))
    assert fault.expected == "lie within 165 and 290 K at 300 hPa"
    assert fault.found.startswith(f"1 of {2 * 37 * 13 * 24} values lie beyond such limits, at ")
    assert "330 in all, the first at time 2020-07-01T06:00, level 300, latitude -60, longitude 45, in 1 of 37" in str(
        fault
    )
    assert fault.remedy == "correct the data, or use others"


def test_a_value_on_a_limit_is_within_it(complete):
    def touch(array):
        array.values[:, 0, 0] = 110
        return array

    touching = changed(complete, "10m_u_component_of_wind", touch)
    assert of_whole(touching) == []

    def pass_by(array):
        array.values[0, 5, 6] = 111
        return array

    assert the_fault(changed(touching, "10m_u_component_of_wind", pass_by)).found.startswith("1 of ")


def test_a_variable_of_another_task_has_no_limits(good, task, grid):
    ozone = with_frames(good, lambda frames: frames.assign(ozone=1e9 * frames["2m_temperature"][0]))
    assert find_faults(ozone, task, grid, 30) == []


@pytest.mark.parametrize("name", [v.name for v in VARIABLES.values() if v.kind in ("surface", "level")])
def test_a_field_of_one_value_is_no_weather(complete, name):
    def flatten(array):
        array.values[1] = array.values[1].mean(axis=(-2, -1), keepdims=True)
        return array

    faults = of_whole(changed(complete, name, flatten))
    (fault,) = faults
    if name == "total_precipitation_6hr":
        assert fault.expected == "reach 0.0005 m somewhere on the globe"
        return
    assert fault.expected == "vary over the globe"
    assert fault.time == np.datetime64("2020-07-01T06")
    assert fault.level == {"level": 300 if name == "specific_humidity" else 1}.get(VARIABLES[name].kind)


NEVER_ZERO = [
    *("2m_temperature", "mean_sea_level_pressure", "10m_u_component_of_wind", "10m_v_component_of_wind"),
    *("temperature", "geopotential", "u_component_of_wind", "v_component_of_wind", "vertical_velocity"),
]


@pytest.mark.parametrize("name", NEVER_ZERO)
def test_a_chunk_of_zeros_is_taken_for_one_that_was_never_written(complete, name):
    def erase(array):
        array.values[0, ..., 1:4, :12] = 0  # 36 of the 264 points between the poles
        return array

    fault = the_fault(changed(complete, name, erase))
    assert fault.expected == "be exactly 0 in no more than 10% of a field"
    assert "fields are 0 in up to 14%, the first at time 2020-07-01T00:00" in fault.found
    assert fault.level == (None if name in NEVER_ZERO[:4] else 100 if name == "vertical_velocity" else 1)
    assert "never written" in fault.remedy


@pytest.mark.parametrize("name", ["specific_humidity", "total_precipitation_6hr", "land_sea_mask"])
def test_zeros_are_in_order_where_nothing_may_be(complete, name):
    assert of_whole(changed(complete, name, lambda array: array.where(array["longitude"] > 60, 0))) == []


def test_no_wind_at_the_poles_is_in_order(complete):
    calm = changed(complete, "u_component_of_wind", lambda array: array.where(np.abs(array["latitude"]) < 90, 0))
    assert of_whole(calm) == []


def test_two_frames_that_are_one_are_recognized(complete):
    def repeat(frames):
        return frames.map(lambda array: array.copy(data=array.values[[0, 0]]) if "time" in array.dims else array)

    fault = the_fault(with_frames(complete, repeat))
    assert fault.variable.split(", ") == sorted(
        v.name for v in VARIABLES.values() if v.kind in ("surface", "level") and v.name != "total_precipitation_6hr"
    )
    assert fault.time == np.datetime64("2020-07-01T06")
    assert "must change within 6 h, but the frames number 1 and 2 are the same in every value" in str(fault)


def test_one_variable_that_repeats_among_others_that_change_is_recognized(complete):
    fault = the_fault(changed(complete, "geopotential", lambda array: array.copy(data=array.values[[1, 1]])))
    assert fault.variable == "geopotential"


def test_one_level_that_stays_the_same_is_in_order(complete):
    def hold(array):
        array.values[1, 0] = array.values[0, 0]
        return array

    assert of_whole(changed(complete, "temperature", hold)) == []


def noise(complete, seed):
    """Random numbers as large as temperatures are at the surface, in every variable."""
    draw = np.random.default_rng(seed)
    return with_frames(complete, lambda frames: frames.map(lambda a: a.copy(data=draw.normal(280, 10, a.shape))))


@given(st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_random_numbers_need_only_be_finite(complete, seed):
    random = noise(complete, seed)
    assert of_whole(random) == []
    (gap,) = of_whole(changed(random, "mean_sea_level_pressure", lambda array: array.where(array["latitude"] > 0)))
    assert gap.expected == "be finite"


@pytest.mark.parametrize("name", ["temperature", "2m_temperature", "geopotential"])
def test_one_smooth_field_among_random_numbers_is_enough_to_be_held_against_the_earth(complete, name):
    found = of_whole(changed(noise(complete, 0), name, lambda array: complete.frames[name]))
    assert "mean_sea_level_pressure" in {fault.variable for fault in found}


def test_single_broken_values_do_not_make_noise_of_weather(complete):
    def spike(frames):
        for name in ("temperature", "2m_temperature", "geopotential"):
            frames[name].values[..., 6, 7] = 1e30
        return frames

    assert len(of_whole(with_frames(complete, spike))) == 3


@pytest.mark.parametrize(
    ("folder", "name"), [("small_13", "GraphCast_small"), ("operational_13", "GraphCast_operational")]
)
def test_the_random_numbers_of_the_reference_pass(reference, folder, name):
    files = DatasetFiles(str(reference / folder / "source-fake_*.nc"))
    inputs = files.read(files.cases(1, TASKS[name])[0][0], TASKS[name])
    assert find_faults(inputs, TASKS[name], files.grid, 0) == []


def test_a_real_analysis_passes_on_all_levels_that_are_whole(shared_data):
    archive = Archive(shared_data / "gfs_2011-10-11T00_res-2.5_levels-13.nc")
    above_gap = {"pressure_levels": TASKS["GraphCast_small"].pressure_levels[1:], "input_duration": "6h"}
    task = TASKS["GraphCast_small"].model_copy(update=above_gap)
    inputs = archive.read(Case(np.datetime64("2011-10-11T00", "h"), 1, 6), task)
    assert find_faults(inputs, task, archive.grid, 2.5) == []


def test_real_forecasts_pass(shared_data):
    archive = Archive(shared_data / "hres_2024-06-03_res-10.0_levels-6.nc")
    targets = ("temperature", "geopotential", "u_component_of_wind", "v_component_of_wind", "specific_humidity")
    task = Task(
        input_variables=(*targets, "geopotential_at_surface", "land_sea_mask"),
        target_variables=targets,
        forcing_variables=(),
        pressure_levels=archive.levels,
    )
    for init_time in archive.times[1:]:
        check_inputs(archive.read(Case(init_time.astype("datetime64[h]"), 1, 6), task), task, archive.grid, 10)
