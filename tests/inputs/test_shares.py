"""What an archive holds does not depend on how it is cut into files."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from tests.inputs.test_grib import LATITUDE, field, message

NAMES = {"t": "temperature", "q": "specific_humidity", "t2m": "2m_temperature", "msl": "mean_sea_level_pressure"}
ON_LEVELS = ["specific_humidity", "temperature"]
LEVELS, HOURS = (300, 500, 850), (0, 6, 12)
SINGLE = ["2m_temperature", "mean_sea_level_pressure"]


def frames(made):
    """Two variables on levels and two without at three times, and one field without time."""
    fields = made(frames=3).drop_vars(["total_precipitation_6hr", "toa_incident_solar_radiation"])
    fields["specific_humidity"] = fields["temperature"] / 1000
    fields["mean_sea_level_pressure"] = fields["2m_temperature"] * 300
    return fields


def same(archive, complete):
    """Whether an archive holds what another does, as far as anybody can tell."""
    assert archive.levels == complete.levels
    assert {name: set(dims) for name, dims in archive.dims.items()} == {
        n: set(dims) for n, dims in complete.dims.items()
    }
    np.testing.assert_array_equal(archive.times, complete.times)
    names = sorted(complete.dims)
    for times, levels in (
        (complete.times[::-1], complete.levels),
        (complete.times[1:2], complete.levels[::2]),
        (complete.times[:0], ()),
    ):
        expected = complete.fields(names, times, levels)
        xr.testing.assert_identical(archive.fields(names, times, levels)[names], expected[names])


CUTS = {
    "by variable": lambda f: [f[[name]] for name in f.data_vars],
    "levels in two files": lambda f: [
        f[ON_LEVELS].isel(level=[0, 2]),
        f[ON_LEVELS].isel(level=[1]),
        f.drop_dims("level"),
    ],
    "a file a level": lambda f: [*(f[ON_LEVELS].sel(level=[at]) for at in LEVELS), f.drop_dims("level")],
    "a level without its dimension": lambda f: [*(f[ON_LEVELS].sel(level=at) for at in LEVELS), f.drop_dims("level")],
    "a file a level and variable": lambda f: [
        *(f[[name]].sel(level=[at]) for name, at in itertools.product(ON_LEVELS, LEVELS)),
        f.drop_dims("level"),
    ],
    "a file a time": lambda f: [
        *(f.drop_vars("land_sea_mask").isel(time=[at]) for at in range(3)),
        f[["land_sea_mask"]],
    ],
    "other levels at other times": lambda f: [
        f[ON_LEVELS].isel(level=[0, 1], time=[0]),
        f[ON_LEVELS].isel(level=[2], time=[0, 1]),
        f[ON_LEVELS].isel(level=[0], time=[1, 2]),
        f[ON_LEVELS].isel(level=[1], time=[1, 2]),
        f[ON_LEVELS].isel(level=[2], time=[2]),
        f.drop_dims("level"),
    ],
    "twice, alike": lambda f: [f, f[["temperature"]].isel(time=[1, 2]), f[["2m_temperature", "land_sea_mask"]]],
}


@pytest.mark.parametrize("dim", ["latitude", "longitude"])
@pytest.mark.parametrize("name", ["temperature", "2m_temperature"])
def test_a_file_with_one_row_or_column_of_what_others_hold_whole_is_refused(made, tmp_path, name, dim):
    fields = frames(made)
    fields.isel(time=[0, 1]).to_netcdf(tmp_path / "a.nc")
    row = fields[[name]].isel({"time": [2], dim: 0}, drop=True)
    xr.merge([row, fields[["specific_humidity"]].isel(time=[2])]).to_netcdf(tmp_path / "b.nc")
    archive = Archive([str(tmp_path / "a.nc"), str(tmp_path / "b.nc")])

    assert archive.fields(["specific_humidity"], fields["time"].values, LEVELS).sizes["time"] == 3
    with pytest.raises(InputError, match=rf"{name} of .*b\.nc must have the dimensions .*{dim}.*, but has time"):
        archive.fields([name], fields["time"].values, LEVELS)


@pytest.mark.parametrize(
    ("cut", "form"),
    [*((cut, "nc") for cut in CUTS), ("a file a level", "zarr"), ("other levels at other times", "zarr")],
)
def test_parts_in_any_cut_are_the_whole(tmp_path, made, cut, form):
    fields = frames(made)
    fields.to_netcdf(tmp_path / "whole.nc", engine="netcdf4")
    (tmp_path / "parts").mkdir()
    for number, part in enumerate(CUTS[cut](fields)):
        if form == "nc":
            part.to_netcdf(tmp_path / "parts" / f"{number}.nc", engine="netcdf4")
        else:
            part.to_zarr(tmp_path / "parts" / f"{number}.zarr", zarr_format=2)
    same(Archive(tmp_path / "parts"), Archive(tmp_path / "whole.nc"))


@given(st.lists(st.integers(0, 3), min_size=24, max_size=24))
@settings(max_examples=3, deadline=None, phases=[Phase.generate])
def test_messages_in_any_file_are_the_whole(tmp_path_factory, places):
    pytest.importorskip("cfgrib", reason="the extra grib is not installed")
    folder = tmp_path_factory.mktemp("cut")
    every = [message(name, hour, level) for name in ("t", "q") for hour in HOURS for level in LEVELS]
    every += [message(name, hour) for name in ("t2m", "msl") for hour in HOURS]
    (folder / "whole.grib").write_bytes(b"".join(every))
    (folder / "parts").mkdir()
    for place in set(places):
        part = [one for one, at in zip(every, places, strict=True) if at == place]
        (folder / "parts" / f"{place}.grib").write_bytes(b"".join(part))

    archive = Archive(folder / "parts")

    same(archive, Archive(folder / "whole.grib"))
    assert archive.levels == LEVELS
    for name, level in itertools.product(("t", "q"), LEVELS):
        found = archive.fields([NAMES[name]], archive.times, [level])[NAMES[name]]
        expected = [field(name, hour, level)[::-1] for hour in HOURS]
        np.testing.assert_array_equal(found[:, 0], expected)


def test_the_forecast_that_started_last_is_read_from_whichever_file(tmp_path):
    pytest.importorskip("cfgrib", reason="the extra grib is not installed")
    early = message("t", 0, 500, stepRange="6") + message("t2m", 0, stepRange="6") + message("msl", 0, stepRange="6")
    late = message("t", 6, 500) + message("t2m", 6)
    late += b"".join(  # as GFS has them, which are no fields on pressure levels
        message("t2m", 6, paramId=130, scaledValueOfFirstFixedSurface=height, values=field("t2m"))
        for height in (80, 100)
    )
    for number, (first, second) in enumerate([(early, late), (late, early)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.grib").write_bytes(first)
        (folder / "b.grib").write_bytes(second)
        archive = Archive(folder)
        found = archive.fields([*SINGLE, "temperature"], archive.times, [500])
        np.testing.assert_array_equal(found["temperature"][0, 0], field("t", 6, 500)[::-1])
        np.testing.assert_array_equal(found["2m_temperature"][0], field("t2m", 6)[::-1])
        np.testing.assert_array_equal(found["mean_sea_level_pressure"][0], field("msl", 0)[::-1])
        assert found["latitude"].values.tolist() == LATITUDE[::-1].tolist()


def later_starts(fields, folder, in_steps):
    """A forecast from each of three times, 1 K a start away from the others; a file a start, or a file a step too."""
    steps = np.array([0, 6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    for number, start in enumerate(fields["time"].values):
        run = fields.isel(time=[0, 0, 0]).rename(time="step").assign_coords(step=steps, time=start) + number
        run = run.assign_coords(valid_time=("step", start + steps))
        parts = [run.isel(step=place) for place in range(3)] if in_steps else [run]
        for place, part in enumerate(parts):
            part.to_netcdf(folder / f"{number}-{place}.nc", engine="netcdf4")


@pytest.mark.parametrize("in_steps", [False, True])
def test_of_netcdf_too_the_forecast_that_started_last_is_read_from_whichever_file(tmp_path, made, in_steps):
    fields = made(frames=3)[["2m_temperature", "temperature"]]
    later_starts(fields, tmp_path, in_steps)
    archive = Archive(tmp_path)
    found = archive.fields(["2m_temperature", "temperature"], archive.times, archive.levels)
    assert archive.times.tolist() == (fields["time"].values[0] + np.arange(5) * np.timedelta64(6, "h")).tolist()
    for name, array in found.data_vars.items():
        first = fields[name].values[0]
        np.testing.assert_allclose(array.values, np.stack([first + start for start in (0, 1, 2, 2, 2)]), rtol=1e-6)


@pytest.mark.parametrize("name", ["temperature", "2m_temperature"])
def test_a_field_that_two_files_hold_differently_is_refused(tmp_path, made, name):
    fields = frames(made)
    fields.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    other = fields[[name]].isel(time=[1, 2]).copy(deep=True)
    other[name][{"time": 1, "latitude": 3, "longitude": 2}] += 1
    other.to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    with pytest.raises(
        InputError,
        match=rf"{name} must be in one file, or be alike .* 2020-01-01T12:00.* in .*a\.nc and in .*b\.nc with",
    ):
        Archive([str(tmp_path / "a.nc"), str(tmp_path / "b.nc")])


def test_a_time_that_lacks_a_level_is_named_with_it(tmp_path, made):
    fields = frames(made)
    fields.sel(level=[300, 850]).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    fields[ON_LEVELS].sel(level=[500]).isel(time=[0, 1]).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    task = Task(
        input_variables=("temperature", "2m_temperature"),
        target_variables=("temperature", "2m_temperature"),
        forcing_variables=(),
        pressure_levels=(300, 500, 850),
    )
    paths = [str(tmp_path / "a.nc"), str(tmp_path / "b.nc")]
    archive = Archive(paths, needed=task.input_variables, levels=task.pressure_levels)
    assert archive.levels == LEVELS
    assert archive.findings(Case(np.datetime64("2020-01-01T06", "h"), 1, 6), task) == []
    finding = archive.findings(Case(np.datetime64("2020-01-01T12", "h"), 1, 6), task)[0]
    assert "2020-01-01T12:00 are missing from its 2 times" in str(finding)
    assert "then it lacks temperature on [500] hPa" in str(finding)


def test_levels_that_only_some_times_have_stand_in_nobodys_way(tmp_path, made):
    fields = frames(made)
    fields.sel(level=[300, 850]).isel(time=[0]).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    fields.isel(time=[1, 2]).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    archive = Archive([str(tmp_path / "a.nc"), str(tmp_path / "b.nc")], levels=(300,))
    assert archive.levels == (300, 850)
    np.testing.assert_array_equal(archive.times, fields["time"])
    found = archive.fields(["temperature"], archive.times, archive.levels)["temperature"]
    np.testing.assert_array_equal(found, fields["temperature"].sel(level=[300, 850]))
