"""An archive in any order of its axes gives one and the same state."""

import json

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import GridError, InputError, InputNotFoundError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.quality.checks import check_inputs, find_gap
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS, Task

SECOND = Case(np.datetime64("2020-01-01T06", "h"), 3, 6)


@pytest.fixture
def written(tmp_path, made):
    """A function that writes an archive, changed as a test wants, and opens it."""

    def write(change=lambda fields: fields, **what):
        change(made(**what)).to_netcdf(tmp_path / "archive.nc", engine="netcdf4")
        return Archive(tmp_path / "archive.nc")

    return write


def without(task, *names):
    fields = ("input_variables", "target_variables", "forcing_variables")
    return task.model_copy(update={field: tuple(n for n in getattr(task, field) if n not in names) for field in fields})


def with_input(task, name):
    return task.model_copy(update={"input_variables": (*task.input_variables, name)})


def test_frames_end_at_the_initial_time_and_hold_exactly_the_tasks_levels(written, made, task):
    frames = written().read(SECOND, task).frames
    expected = made().sel(level=[300, 850]).isel(time=[0, 1]).drop_vars("total_precipitation_6hr")
    xr.testing.assert_equal(frames, expected)
    assert frames["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert frames["land_sea_mask"].dims == ("latitude", "longitude")
    assert {array.dtype for array in frames.data_vars.values()} == {np.dtype(np.float32)}
    assert frames["level"].dtype == np.int32
    assert frames["time"].dtype == np.dtype("datetime64[ns]")
    assert frames["latitude"].dtype == frames["longitude"].dtype == np.float32


def test_forcings_are_those_held_at_the_valid_times_held(written, made, task):
    late = Case(np.datetime64("2020-01-02T00", "h"), 3, 6)
    forcings = written().read(late, task).forcings
    xr.testing.assert_equal(forcings, made()[["toa_incident_solar_radiation"]].isel(time=[5]))
    last = Case(np.datetime64("2020-01-02T06", "h"), 3, 6)
    assert written().read(last, task).forcings.sizes["time"] == 0


def test_forcings_are_none_where_the_archive_holds_none(written, task):
    forcings = written(lambda fields: fields.drop_vars("toa_incident_solar_radiation")).read(SECOND, task).forcings
    assert not forcings.data_vars
    assert forcings.sizes["time"] == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_as_many_frames_go_in_as_the_task_says(written, task, frames):
    longer = task.model_copy(update={"input_duration": f"{6 * frames}h"})
    times = written().read(Case(np.datetime64("2020-01-01T12", "h"), 1, 6), longer).frames["time"].values
    assert (
        times.tolist()
        == (np.datetime64("2020-01-01T12", "ns") - np.timedelta64(6, "h") * np.arange(frames))[::-1].tolist()
    )


@given(
    south_last=st.booleans(),
    west_first=st.booleans(),
    start=st.integers(0, 11),
    levels=st.permutations([0, 1, 2]),
    dims=st.permutations(["time", "level", "latitude", "longitude"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    short_names=st.booleans(),
    as_zarr=st.booleans(),
)
@settings(max_examples=16, deadline=None)
def test_the_order_of_axes_does_not_matter(
    tmp_path_factory, made, task, south_last, west_first, start, levels, dims, dtype, short_names, as_zarr
):
    fields = made()
    folder = tmp_path_factory.mktemp("turned")
    fields.to_netcdf(folder / "plain.nc", engine="netcdf4")
    turned = fields.isel(level=levels, latitude=slice(None, None, -1 if south_last else 1)).roll(
        longitude=start, roll_coords=True
    )
    if west_first:
        turned = turned.assign_coords(longitude=(turned["longitude"] + 180) % 360 - 180)
    turned = turned.transpose(*dims).astype(dtype)
    turned = turned.assign_coords(
        {name: turned[name].astype(dtype) for name in ("latitude", "longitude", "level")},
    )
    if short_names:
        turned = turned.rename(latitude="lat", longitude="lon")
    if as_zarr:
        turned.to_zarr(folder / "turned", zarr_format=2)
    else:
        turned.to_netcdf(folder / "turned", engine="netcdf4")
    plain, other = Archive(folder / "plain.nc"), Archive(folder / "turned")
    assert other.grid == plain.grid
    assert other.levels == plain.levels
    for wanted, found in zip(_all(plain, task), _all(other, task), strict=True):
        xr.testing.assert_identical(found, wanted)


def _all(archive, task):
    inputs = archive.read(SECOND, task)
    return inputs.frames, inputs.forcings, archive.truth(SECOND, task.target_variables)


def test_packed_integers_become_numbers(written, made, task):
    def packed(fields):
        fields["temperature"].encoding = {
            "dtype": "int16",
            "scale_factor": 0.01,
            "add_offset": 280.0,
            "_FillValue": -32768,
        }
        return fields

    found = written(packed).read(SECOND, task).frames["temperature"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, made()["temperature"].sel(level=[300, 850])[:2], atol=0.0051)


def test_only_the_times_needed_are_read(tmp_path, made, task):
    made(frames=40).to_zarr(tmp_path / "a.zarr", zarr_format=2, encoding={"temperature": {"chunks": (1, 3, 7, 12)}})
    for chunk in (tmp_path / "a.zarr" / "temperature").glob("[!.]*"):
        if int(chunk.name.split(".")[0]) > 1:
            chunk.write_bytes(b"damaged")
    archive = Archive(tmp_path / "a.zarr")
    assert archive.read(SECOND, task).frames["temperature"].notnull().all()
    with pytest.raises(InputError, match=r"a\.zarr must be complete"):
        archive.truth(SECOND, ["temperature"])


def test_an_hourly_archive_gives_every_sixth_frame(written, made, task):
    frames = written(hours=1, frames=30).read(SECOND, task).frames
    expected = made(hours=1, frames=30)["2m_temperature"].isel(time=[0, 6])
    np.testing.assert_array_equal(frames["2m_temperature"], expected)


def test_a_static_field_stored_with_time_loses_it(written, made, task):
    fields = made()
    repeated = fields["land_sea_mask"].expand_dims(time=fields["time"])
    archive = written(lambda _: fields.assign(land_sea_mask=repeated))
    assert archive.dims["land_sea_mask"][0] == "time"
    found = archive.read(SECOND, task).frames["land_sea_mask"]
    assert found.dims == ("latitude", "longitude")
    np.testing.assert_array_equal(found, fields["land_sea_mask"])


def test_a_field_that_changes_later_is_not_taken_for_static(written, made, task):
    fields = made()
    slow = fields["land_sea_mask"].expand_dims(time=fields["time"]).copy()
    slow[-1] += 1
    frames = written(lambda _: fields.assign(sea_ice_cover=slow)).read(SECOND, with_input(task, "sea_ice_cover")).frames
    assert frames["sea_ice_cover"].sizes["time"] == 2


def test_a_forcing_that_cannot_be_computed_must_be_held_at_every_valid_time(written, made, task):
    task = task.model_copy(
        update={"forcing_variables": ("ozone",), "input_variables": (*task.input_variables, "ozone")}
    )
    archive = written(lambda fields: fields.assign(ozone=fields["2m_temperature"]))
    inputs = archive.read(SECOND, task)
    assert inputs.forcings["ozone"].sizes["time"] == 3
    assert inputs.frames["ozone"].sizes["time"] == 2
    late = Case(SECOND.init_time, 6, 6)
    with pytest.raises(InputError, match=r"valid times of ozone 2020-01-02T12:00, 2020-01-02T18:00 are missing"):
        archive.read(late, task)


def test_truth_is_given_by_lead_time(written, made, task):
    truth = written().truth(Case(SECOND.init_time, 9, 6), ["temperature", "2m_temperature", "geopotential"])
    assert truth["temperature"].dims == ("prediction_timedelta", "level", "latitude", "longitude")
    assert truth["2m_temperature"].dims == ("prediction_timedelta", "latitude", "longitude")
    assert truth["time"].values == SECOND.init_time
    assert truth["prediction_timedelta"].values.astype("timedelta64[h]").astype(int).tolist() == [6, 12, 18, 24]
    np.testing.assert_array_equal(truth["temperature"], made()["temperature"][2:])
    assert set(truth.data_vars) == {"temperature", "2m_temperature"}


def test_truth_is_given_on_the_levels_asked_for(written, made):
    truth = written().truth(SECOND, ["temperature"], levels=[850, 300, 7])
    assert truth["level"].values.tolist() == [300, 850]
    np.testing.assert_array_equal(truth["temperature"], made()["temperature"].sel(level=[300, 850])[2:5])


def test_there_is_no_truth_without_variables_or_times(written):
    assert written().truth(SECOND, ["geopotential"]) is None
    assert written().truth(Case(np.datetime64("2020-01-02T06", "h"), 3, 6), ["temperature"]) is None


def test_all_missing_variables_are_named(written, task):
    archive = written(lambda fields: fields.drop_vars(["temperature", "land_sea_mask"]))
    with pytest.raises(InputError, match="lacks the variables land_sea_mask, temperature and has 2m_temperature"):
        archive.read(SECOND, task)


def test_missing_levels_are_named(written, task):
    archive = written(lambda fields: fields.sel(level=[500, 850]))
    with pytest.raises(
        InputError, match=r"temperature must be on the levels \[300, 850\] hPa, but \[300\] are missing"
    ):
        archive.read(SECOND, task)


def test_levels_in_pascal_are_named(written, task):
    archive = written(lambda fields: fields.assign_coords(level=fields["level"] * 100))
    with pytest.raises(InputError, match=r"look like Pa: set inputs\.units: \{level: Pa\}"):
        archive.read(SECOND, task)


def test_missing_times_are_named(written, task):
    with pytest.raises(
        InputError, match=r"input times 2019-12-31T18:00 are missing from its 6 times, 2020-01-01T00:00"
    ):
        written().read(Case(np.datetime64("2020-01-01T00", "h"), 1, 6), task)


def test_a_surface_archive_needs_no_levels(written, task):
    task = without(task, "temperature")
    frames = written(lambda fields: fields.drop_dims("level")).read(SECOND, task).frames
    assert "level" not in frames.coords


def test_another_dimension_is_refused_where_it_is_needed(written, task):
    archive = written(lambda fields: fields.assign(temperature=fields["temperature"].expand_dims(number=2)))
    with pytest.raises(InputError, match=r"temperature .* has number, time.*; select one place along number"):
        archive.read(SECOND, task)
    assert archive.read(SECOND, without(task, "temperature")).frames


def test_text_is_refused(written, task):
    def spoilt(fields):
        return fields.assign(land_sea_mask=("latitude", np.asarray(["land"] * fields.sizes["latitude"])))

    with pytest.raises(InputError, match=r"land_sea_mask of .* must hold numbers"):
        written(spoilt).read(SECOND, task)


@pytest.mark.parametrize(
    ("places", "message"),
    [([0, 2, 1, 3], "2020-01-01T06.* follows 2020-01-01T12"), ([0, 1, 1, 2], "2020-01-01T06.* is there twice")],
)
def test_times_out_of_order_are_refused_by_the_first(written, places, message):
    with pytest.raises(InputError, match=message):
        written(lambda fields: fields.isel(time=places))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop_vars("time"), "must have the dimension time with dates .* but has none"),
        (lambda f: f.assign_coords(time=np.arange(6)), "the coordinate time of .* must hold dates .* but holds int64"),
        (lambda f: f.drop_vars("latitude"), "must have the coordinate latitude of one dimension"),
        (lambda f: f.isel(time=[]), "must hold at least one time"),
        (lambda f: f.isel(level=[0, 0, 1]), r"must hold each level once, but is \[300, 300, 500\]"),
    ],
)
def test_unusable_coordinates_are_refused(written, change, message):
    with pytest.raises(InputError, match=message):
        written(change)


def test_a_calendar_without_leap_days_is_refused(written):
    def noleap(fields):
        return fields.assign_coords(
            time=("time", np.arange(6) * 6, {"units": "hours since 2020-01-01", "calendar": "noleap"})
        )

    with pytest.raises(InputError, match="dates of the standard calendar"):
        written(noleap)


def test_a_regional_archive_is_refused_by_its_name(written):
    with pytest.raises(GridError, match=r"the grid of .*archive\.nc cannot be used: longitude must go once"):
        written(lambda fields: fields.isel(longitude=slice(0, 6)))


def test_a_dataset_file_is_pointed_to_its_own_kind(written, as_dataset):
    with pytest.raises(InputError, match=r"use inputs\.kind: datasets"):
        written(as_dataset)


def test_a_missing_archive_is_not_found(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"none\.zarr"):
        Archive(tmp_path / "none.zarr")


@pytest.mark.parametrize("step", [0.4, 1 / 3, 1.2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coordinates_of_a_regular_source_are_exactly_regular(tmp_path, step, dtype):
    columns = round(360 / step)
    longitude = (np.cumsum(np.full(columns, step)) - 180).astype(dtype)  # sums that miss 0 by 1e-12 or 1e-5
    latitude = (np.cumsum(np.full(columns // 2 + 1, step)) - step - 90).astype(dtype)
    values = np.arange(columns, dtype=np.float32) + np.zeros((1, latitude.size, 1), np.float32)
    xr.Dataset(
        {"2m_temperature": (("time", "latitude", "longitude"), values)},
        {"time": [np.datetime64("2020-01-01", "ns")], "latitude": latitude, "longitude": longitude},
    ).to_netcdf(tmp_path / "a.nc", engine="netcdf4")

    archive = Archive(tmp_path / "a.nc")

    assert archive.grid == regular_grid(step)
    found = archive.fields(["2m_temperature"], archive.times, ())["2m_temperature"]
    assert found.sel(latitude=-90, longitude=0).item() == values[0, 0, np.abs(longitude).argmin()]


def test_longitudes_that_round_to_360_are_0(written, made):
    places = np.asarray(made()["longitude"], np.float64)
    places[0] = -1e-9
    assert written(lambda fields: fields.assign_coords(longitude=places)).grid.longitude[0] == 0


class Steady:
    """A planet whose every value is the hour of the day."""

    def fields(self, names, times, grid, levels):
        hours = (times.astype("datetime64[h]").astype(int) % 24).astype(np.float32)
        sizes = {"time": times, "level": list(levels), "latitude": grid.latitude, "longitude": grid.longitude}
        dims = SyntheticArchive(self, 30, levels).dims
        return xr.Dataset(
            {
                name: xr.DataArray(hours, dims="time")
                .expand_dims({dim: len(sizes[dim]) for dim in dims[name] if dim != "time"})
                .transpose(*dims[name])
                if "time" in dims[name]
                else (dims[name], np.ones(grid.shape, np.float32))
                for name in names
            },
            coords=sizes if any("level" in dims[name] for name in names) else {**sizes, "level": []},
        )


def test_a_planet_is_an_archive_of_every_time(task):
    planet = SyntheticArchive(Steady(), 30, (300, 850))
    case = Case(np.datetime64("1900-01-01T06", "h"), 2, 6)
    assert planet.times is None
    inputs = planet.read(case, task)
    assert inputs.frames["temperature"][:, 0, 0, 0].values.tolist() == [0, 6]
    assert not inputs.forcings.data_vars
    assert planet.truth(case, ["2m_temperature"])["2m_temperature"][:, 0, 0].values.tolist() == [12, 18]


def test_the_planet_of_the_package_starts_a_published_task():
    task = TASKS["GraphCast_operational"]
    planet = SyntheticArchive(SyntheticPlanet(1), 20, task.pressure_levels)
    case = Case(np.datetime64("2020-07-01T06", "h"), 2, 6)
    check_inputs(planet.read(case, task), task, planet.grid, 20)
    truth = planet.truth(case, task.target_variables)
    later = planet.read(Case(np.datetime64("2020-07-01T18", "h"), 1, 6), task).frames
    np.testing.assert_array_equal(truth["temperature"], later["temperature"])


def test_a_planet_lacks_levels_it_was_not_made_with(task):
    with pytest.raises(InputError, match=r"the synthetic planet cannot .* \[300\] are missing from \[850\]"):
        SyntheticArchive(Steady(), 30, (850,)).read(SECOND, task)


@pytest.mark.parametrize(
    ("resolution", "shape"), [(30, (7, 12)), (1, (181, 360)), (0.25, (721, 1440)), (180 / 7, (8, 14))]
)
def test_a_regular_grid_has_rows_on_both_poles(resolution, shape):
    grid = regular_grid(resolution)
    assert grid.shape == shape
    assert (grid.latitude[0], grid.latitude[-1]) == (-90, 90)
    assert grid.longitude[0] == 0


def test_a_resolution_that_does_not_fit_the_globe_is_refused():
    with pytest.raises(GridError, match="must divide 180°, but is 7°"):
        regular_grid(7)


@pytest.fixture(scope="module")
def wind_task():
    return Task(
        input_variables=("temperature", "u_component_of_wind", "land_sea_mask", "year_progress_sin"),
        target_variables=("temperature", "u_component_of_wind"),
        forcing_variables=("year_progress_sin",),
        pressure_levels=(300, 500, 1000),
    )


def test_real_forecasts_are_read_as_an_archive(shared_data, wind_task):
    archive = Archive(shared_data / "hres_2024-06-03_res-10.0_levels-6.nc")
    case = Case(np.datetime64("2024-06-03T06", "h"), 9, 6)
    inputs = archive.read(case, wind_task)
    check_inputs(inputs, wind_task, archive.grid, 10)
    warmest = inputs.frames["temperature"].sel(level=1000).mean(("time", "longitude")).idxmax("latitude")
    assert abs(float(warmest)) <= 30
    assert archive.truth(case, ["temperature"]).sizes["prediction_timedelta"] == 6


def test_a_real_state_with_a_missing_level_is_stopped(shared_data, wind_task):
    archive = Archive(shared_data / "gfs_2011-10-11T00_res-2.5_levels-13.nc")
    task = (
        with_input(wind_task, "vertical_velocity")
        .model_copy(
            update={
                "target_variables": ("temperature", "u_component_of_wind", "vertical_velocity"),
                "pressure_levels": (50, 500),
            }
        )
        .model_copy(update={"input_duration": "6h"})
    )
    inputs = archive.read(Case(np.datetime64("2011-10-11T00", "h"), 1, 6), task)
    with pytest.raises(InputError, match=r"vertical_velocity must be finite, but 10512 of 21024 .* level 50"):
        check_inputs(inputs, task, archive.grid, 0)


FIRST = np.datetime64("2020-01-01T00", "ns")
LEADS = np.array([0, 6, 12])


def of_one_start(fields):
    """As cfgrib and xarray write a forecast of one start: no dimension of its time, and one of its steps."""
    frames = fields.isel(time=slice(0, 3)).drop_vars("total_precipitation_6hr")
    valid = ("step", frames["time"].values)
    frames = frames.rename(time="step", level="isobaricInhPa")
    return frames.assign_coords(step=("step", LEADS, {"units": "hours"}), valid_time=valid, time=FIRST)


def of_two_starts(fields):
    """The same of several starts, whose valid times have two dimensions."""
    frames = fields.drop_vars("total_precipitation_6hr")
    runs = [frames.isel(time=[n, n + 1]).rename(time="step").assign_coords(step=[0, 6]) for n in (0, 2)]
    moving = [name for name, array in frames.data_vars.items() if "time" in array.dims]
    complete = xr.concat([run[moving] for run in runs], "time").assign_coords(time=frames["time"].values[[0, 2]])
    complete = xr.merge([complete, frames.drop_vars([*moving, "time"])]).rename(level="isobaricInhPa")
    return complete.assign_coords(valid_time=complete["time"] + complete["step"] * np.timedelta64(1, "h"))


@pytest.mark.parametrize("change", [of_one_start, of_two_starts])
def test_forecasts_as_cfgrib_writes_them_are_fields_at_the_times_they_are_valid_at(written, made, change):
    archive, names = written(change), ["2m_temperature", "temperature", "land_sea_mask"]
    times = made()["time"].values[:3]
    found = archive.fields(names, times, [300, 850])
    xr.testing.assert_equal(found, made()[names].isel(time=slice(0, 3)).sel(level=[300, 850]))
    assert times[0] == FIRST


def test_analyses_as_cfgrib_writes_them_are_fields_at_their_time(written, made):
    def as_cfgrib(fields):
        valid = ("time", fields["time"].values)
        return fields.rename(level="isobaricInhPa").assign_coords(step=0, valid_time=valid)

    xr.testing.assert_equal(
        written(as_cfgrib).fields(["temperature"], made()["time"].values, [300, 850]),
        made()[["temperature"]].sel(level=[300, 850]),
    )


def test_zeros_that_a_fill_value_of_0_hides_are_data_as_soon_as_it_is_none(tmp_path, made, task):
    fields = made()
    fields["land_sea_mask"].values[:3] = 0
    fields.to_zarr(tmp_path / "a.zarr", zarr_format=2, encoding={"land_sea_mask": {"_FillValue": 0.0}})
    gap = find_gap(Archive(tmp_path / "a.zarr").read(SECOND, task).frames["land_sea_mask"])
    assert "its fill value is 0, so its zeros read as missing" in gap.remedy
    assert "set fill_value to null in its .zarray and consolidate the metadata" in gap.remedy
    array = tmp_path / "a.zarr" / "land_sea_mask" / ".zarray"
    array.write_text(json.dumps(json.loads(array.read_text()) | {"fill_value": None}))
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    found = Archive(tmp_path / "a.zarr").read(SECOND, task).frames["land_sea_mask"]
    xr.testing.assert_equal(found, fields["land_sea_mask"])
