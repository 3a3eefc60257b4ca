"""GraphCast's dataset files: their names, their Cases, and what is refused."""

import datetime
import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.errors import ConfigError, InputError, InputNotFoundError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.quality.checks import check_inputs
from graphcast_batch.inputs.sources.dataset_file import DatasetName, parse_dataset_name
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS
from graphcast_batch.sun import solar_radiation
from graphcast_batch.variables import LEVELS_13, VARIABLES

SUN = "toa_incident_solar_radiation"


@pytest.fixture
def write(tmp_path, made, as_dataset):
    """A function that writes a dataset file, changed as a test wants."""

    def write(name, change=lambda fields: fields, **what):
        change(as_dataset(made(**what))).to_netcdf(tmp_path / name, engine="netcdf4")
        return tmp_path / name

    return write


def only_case(path, task, steps=2):
    cases, aside = DatasetFiles(str(path)).cases(steps, task)
    assert aside == ()
    (case,) = cases
    return case


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "source-era5_date-2022-01-01_res-1.0_levels-13_steps-04.nc",
            DatasetName("era5", datetime.date(2022, 1, 1), 1.0, 13, 4),
        ),
        (
            "source-hres_date-2022-12-31_res-0.25_levels-37_steps-12.nc",
            DatasetName("hres", datetime.date(2022, 12, 31), 0.25, 37, 12),
        ),
        ("source-era5_date-2022-02-30_res-1.0_levels-13_steps-04.nc", None),
        ("source-era5_date-2022-01-01_res-1.0_levels-13_steps-04.zarr", None),
        ("era5_2022-01-01.nc", None),
        ("", None),
    ],
)
def test_a_name_is_read_by_its_parts(name, expected):
    assert parse_dataset_name(name) == expected


@given(
    source=st.from_regex(r"[a-z0-9_-]+", fullmatch=True),
    day=st.dates(min_value=datetime.date(1900, 1, 1)),
    resolution=st.sampled_from(["0.25", "1.0", "10.0", "2"]),
    levels=st.integers(0, 137),
    steps=st.integers(0, 99),
)
def test_a_name_made_of_parts_gives_the_parts_back(source, day, resolution, levels, steps):
    name = f"source-{source}_date-{day}_res-{resolution}_levels-{levels}_steps-{steps:02d}.nc"
    assert parse_dataset_name(name) == DatasetName(source, day, float(resolution), levels, steps)


@given(st.text())
def test_any_other_name_is_no_name(name):
    assert parse_dataset_name(name) is None


def test_the_initial_time_is_that_of_the_last_frame_that_goes_in(write, task):
    path = write("a.nc", first="2020-01-01T00")
    assert only_case(path, task) == Case(np.datetime64("2020-01-01T06", "h"), 2, 6, str(path))
    one = task.model_copy(update={"input_duration": "6h"})
    assert only_case(path, one).key == "2020-01-01T00"
    three = task.model_copy(update={"input_duration": "18h"})
    assert only_case(path, three).key == "2020-01-01T12"


def test_a_file_gives_the_same_state_as_an_archive_of_its_fields(write, made, task):
    path = write("a.nc")
    files = DatasetFiles(str(path))
    case = only_case(path, task, steps=4)
    inputs = files.read(case, task)
    fields = made()
    expected = fields.sel(level=[300, 850]).drop_vars("total_precipitation_6hr")
    xr.testing.assert_equal(inputs.frames, expected.isel(time=[0, 1]))
    xr.testing.assert_equal(inputs.forcings, fields[["toa_incident_solar_radiation"]].isel(time=slice(2, None)))
    truth = files.truth(case, task.target_variables, levels=task.pressure_levels)
    np.testing.assert_array_equal(truth["temperature"], expected["temperature"][2:])
    assert truth["time"].values == case.init_time
    assert set(truth.data_vars) == set(task.target_variables)
    check_inputs(inputs, task, files.grid, 30)


def test_two_frames_are_enough_and_give_no_truth(write, task):
    path = write("a.nc", frames=2)
    files, case = DatasetFiles(str(path)), only_case(path, task)
    inputs = files.read(case, task)
    check_inputs(inputs, task, files.grid, 30)
    assert inputs.forcings.sizes["time"] == 0
    assert files.truth(case, task.target_variables) is None


def test_dims_are_told_without_batch(write):
    dims = DatasetFiles(str(write("a.nc"))).dims
    assert dims["temperature"] == ("time", "level", "latitude", "longitude")
    assert dims["land_sea_mask"] == ("latitude", "longitude")


def test_a_static_field_stored_with_batch_and_time_loses_both(write, made, task):
    def repeat(fields):
        mask = fields["land_sea_mask"].expand_dims(batch=1, time=fields["time"])
        return fields.assign(land_sea_mask=mask)

    path = write("a.nc", repeat)
    mask = DatasetFiles(str(path)).read(only_case(path, task), task).frames["land_sea_mask"]
    assert mask.dims == ("latitude", "longitude")
    np.testing.assert_array_equal(mask, made()["land_sea_mask"])


def test_every_file_is_a_case_in_order_of_time(write, tmp_path, task):
    for number, first in enumerate(["2020-03-01", "2020-01-01T06", "2020-02-01"]):
        write(f"{number}.nc", first=first, seed=number)
    cases, aside = DatasetFiles(f"{tmp_path}/*.nc").cases(3, task)
    assert [case.key for case in cases] == ["2020-01-01T12", "2020-02-01T06", "2020-03-01T06"]
    assert {case.steps for case in cases} == {3}
    assert aside == ()


def test_a_pattern_finds_files_in_folders(write, tmp_path, task):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write("deep/er/a.nc")
    assert len(DatasetFiles(f"{tmp_path}/**/*.nc").cases(1, task)[0]) == 1


def test_a_name_with_brackets_is_taken_as_it_stands(write, task):
    assert only_case(write("a[1].nc"), task)


def test_a_pattern_without_match_names_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputNotFoundError, match=rf"data/\*\.nc must match .* \(working directory: {tmp_path}\)"):
        DatasetFiles("data/*.nc")


def test_files_that_do_not_fit_are_set_aside_with_their_reason(write, tmp_path, task):
    write("1-good.nc")
    write("2-short.nc", first="2020-02-01", frames=1)
    write("3-coarse.nc", first="2020-03-01", degrees=45)
    write("4-hourly.nc", first="2020-04-01", hours=1)
    write("5-poor.nc", lambda fields: fields.drop_vars("2m_temperature"), first="2020-05-01")
    write("6-half.nc", first="2020-06-01T00:30")
    write("7-no-level.nc", lambda fields: fields.isel(level=[0]), first="2020-07-01")
    (tmp_path / "8-broken.nc").write_bytes(b"broken")
    cases, aside = DatasetFiles(f"{tmp_path}/*.nc").cases(2, task)
    assert [case.key for case in cases] == ["2020-01-01T06"]
    reasons = dict(aside)
    assert re.search("must hold the 2 frames that go into the model, but holds 1", reasons["2-short.nc"])
    assert re.search(r"1-good\.nc has 7 x 12 \(30°\) and .*3-coarse\.nc has 5 x 8", reasons["3-coarse.nc"])
    assert re.search(r"must be 6 h apart, but are at 2020-04-01T00:00, 2020-04-01T01:00", reasons["4-hourly.nc"])
    assert re.search("lacks the variables 2m_temperature", reasons["5-poor.nc"])
    assert re.search("must start at a whole hour, but starts at 2020-06-01T06:30", reasons["6-half.nc"])
    assert re.search(r"\[850\] are missing from \[300\]", reasons["7-no-level.nc"])
    assert re.search("complete netCDF file", reasons["8-broken.nc"])
    assert len(reasons) == 7


def test_no_file_left_is_an_error_with_the_first_reason(write, tmp_path, task):
    write("a.nc", frames=1)
    with pytest.raises(
        InputError, match=r"none of the 1 dataset files of .* the first: .*a\.nc must hold the 2 frames"
    ):
        DatasetFiles(f"{tmp_path}/*.nc").cases(1, task)


@pytest.mark.parametrize(
    "ask",
    [
        lambda files: files.grid,
        lambda files: files.times,
        lambda files: files.fields(["temperature"], np.array(["2020-01-01"], "datetime64[ns]"), [500]),
    ],
    ids=["grid", "times", "fields"],
)
def test_no_readable_file_is_an_error_with_the_first_reason(tmp_path, ask):
    (tmp_path / "a.nc").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"none of the 1 dataset files .* can be read; the first: .*a\.nc"):
        ask(DatasetFiles(f"{tmp_path}/*.nc"))


def test_two_files_with_one_initial_time_are_refused_by_name(write, tmp_path, task):
    write("a.nc")
    write("b.nc", seed=1)
    with pytest.raises(ConfigError, match=r"a\.nc and .*b\.nc both start at 2020-01-01T06"):
        DatasetFiles(f"{tmp_path}/*.nc").cases(1, task)


def test_a_file_on_another_grid_cannot_be_read(write, tmp_path, task):
    write("a.nc")
    other = write("b.nc", degrees=45)
    with pytest.raises(InputError, match="all dataset files of a run must have one grid"):
        DatasetFiles(f"{tmp_path}/*.nc").read(Case(np.datetime64("2020-01-01T06", "h"), 1, 6, str(other)), task)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("date-2020-01-02_res-30.0_levels-3_steps-04", "date is 2020-01-02 in the name and 2020-01-01 in the file"),
        ("date-2020-01-01_res-15.0_levels-3_steps-04", "res is 15.0 in the name and 30.0 in the file"),
        ("date-2020-01-01_res-30.0_levels-13_steps-04", "levels is 13 in the name and 3 in the file"),
        ("date-2020-01-01_res-30.0_levels-3_steps-12", "steps is 12 in the name and 4 in the file"),
    ],
)
def test_a_name_that_contradicts_the_content_is_refused_by_part(write, task, name, message):
    path = write(f"source-fake_{name}.nc")
    with pytest.raises(InputError, match=re.escape(message)):
        DatasetFiles(str(path)).cases(1, task)


def test_a_name_that_agrees_is_accepted(write, task):
    assert only_case(write("source-fake_date-2020-01-01_res-30.0_levels-3_steps-04.nc"), task)


def test_the_date_in_a_name_is_that_of_the_first_frame(write, task):
    path = write("source-fake_date-2019-12-31_res-30.0_levels-3_steps-04.nc", first="2019-12-31T18")
    assert only_case(path, task).key == "2020-01-01T00"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop_vars("datetime"), r"must have the dimension time and the coordinate datetime"),
        (lambda f: xr.concat([f, f], "batch", data_vars="minimal"), r"batch of .* must have size 1, but has 2"),
        (
            lambda f: f.assign_coords(datetime=("batch", [0])),
            r"datetime of .* must hold a date for each batch and time",
        ),
    ],
)
def test_files_of_another_layout_are_refused(write, task, change, message):
    with pytest.raises(InputError, match=message):
        DatasetFiles(str(write("a.nc", change))).cases(1, task)


def test_levels_in_pascal_are_named(write, task):
    path = write("a.nc", lambda fields: fields.assign_coords(level=fields["level"] * 100))
    with pytest.raises(InputError, match="look like Pa"):
        DatasetFiles(str(path)).cases(1, task)


@pytest.mark.parametrize(
    ("folder", "name", "resolution", "key"),
    [
        ("small_13", "GraphCast_small", 10, "2022-01-01T06"),
        ("operational_13", "GraphCast_operational", 12, "2021-07-01T00"),
    ],
)
def test_reference_files_start_their_tasks(reference, folder, name, resolution, key):
    task = TASKS[name]
    files = DatasetFiles(str(reference / folder / "source-*.nc"))
    (case,), aside = files.cases(8, task)
    assert case.key == key
    assert aside == ()
    inputs = files.read(case, task)
    check_inputs(inputs, task, files.grid, resolution)
    assert inputs.frames.sizes == {
        "time": 2,
        "level": 13,
        "latitude": files.grid.shape[0],
        "longitude": files.grid.shape[1],
    }
    assert set(inputs.frames.data_vars) == set(task.input_variables) - {
        f"{period}_progress_{wave}" for period in ("year", "day") for wave in ("sin", "cos")
    }
    stored = xr.load_dataset(case.source, decode_timedelta=True)
    np.testing.assert_array_equal(inputs.frames["geopotential"], stored["geopotential"][0, :2])
    truth = files.truth(case, task.target_variables)
    np.testing.assert_array_equal(truth["total_precipitation_6hr"], stored["total_precipitation_6hr"][0, 2:])
    assert inputs.forcings.sizes["time"] == truth.sizes["prediction_timedelta"] == stored.sizes["time"] - 2


def test_radiation_that_is_missing_at_times_to_come_is_computed(tmp_path):
    names = [name for name, variable in VARIABLES.items() if variable.kind != "forcing"]
    grid, times = regular_grid(15), np.datetime64("2019-12-31T18", "ns") + np.arange(4) * np.timedelta64(6, "h")
    fields = SyntheticPlanet().fields(names, times, grid, LEVELS_13).rename(latitude="lat", longitude="lon")
    sun = solar_radiation(times, grid.latitude, grid.longitude)
    sun[2:] = np.nan
    day = np.full((4, grid.longitude.size), np.nan, np.float32)
    moving = fields.assign({SUN: (("time", "lat", "lon"), sun), "day_progress_sin": (("time", "lon"), day)})
    moving = moving.assign_coords(time=times - times[0])
    fixed = [name for name, array in moving.data_vars.items() if "time" not in array.dims]
    frames = xr.merge([moving.drop_vars(fixed).expand_dims("batch"), moving[fixed]])
    frames.assign_coords(datetime=(("batch", "time"), times[None])).to_netcdf(tmp_path / "frames.nc", engine="netcdf4")
    files, task = DatasetFiles(str(tmp_path / "frames.nc")), TASKS["GraphCast_small"]
    (case,), _ = files.cases(2, task)

    inputs = files.read(case, task)

    expected = solar_radiation(times, grid.latitude, grid.longitude)
    np.testing.assert_array_equal(inputs.frames[SUN].values, expected[:2])
    np.testing.assert_array_equal(inputs.forcings[SUN].values, expected[2:])
    assert "day_progress_sin" not in inputs.frames
    check_inputs(inputs, task, files.grid, 15)


def test_a_dataset_that_was_saved_as_zarr_is_read_like_a_file(tmp_path, write, made, as_dataset, task):
    file = write("frames.nc")
    as_dataset(made()).to_zarr(tmp_path / "frames.zarr", zarr_format=2)
    case = only_case(file, task)
    stored = only_case(tmp_path / "frames.zarr", task)
    assert stored.init_time == case.init_time
    read = DatasetFiles(str(tmp_path / "frames.zarr")).read(stored, task)
    xr.testing.assert_identical(read.frames, DatasetFiles(str(file)).read(case, task).frames)


def test_names_and_units_are_told_by_the_config(write, made, task):
    def odd(dataset):
        heat = (dataset["temperature"] - 273.15).assign_attrs(units="")
        return dataset.drop_vars("temperature").assign(warmth=heat)

    files = DatasetFiles(str(write("odd.nc", odd)), names={"warmth": "temperature"}, units={"temperature": "degC"})
    (case,), _ = files.cases(2, task)
    right = DatasetFiles(str(write("right.nc")))
    np.testing.assert_allclose(
        files.read(case, task).frames["temperature"],
        right.read(right.cases(2, task)[0][0], task).frames["temperature"],
        rtol=0,
        atol=1e-4,
    )
    assert files.changes == {"converted": "temperature from degC"}


def test_names_of_files_tell_whose_data_they_are(write):
    write("source-era5_x.nc")
    assert DatasetFiles(str(write("source-era5_y.nc").parent / "source*.nc")).changes == {"data": "ERA5 (by its name)"}
