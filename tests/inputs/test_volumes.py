"""Several files are one archive: times joined, sums made, statics added, contradictions told."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import GridError, InputError, InputNotFoundError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.volumes import Reading
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task

GRID = regular_grid(30)
SURFACE = ("time", "latitude", "longitude")
SUMMED = "total_precipitation_6hr"
TASK = Task(
    input_variables=("2m_temperature", SUMMED, "land_sea_mask"),
    target_variables=("2m_temperature", SUMMED),
    forcing_variables=(),
    pressure_levels=(500,),
)


def made(first, hours, names=("2m_temperature",), every=1, grid=GRID, seed=0):
    times = np.datetime64(first, "ns") + np.arange(0, hours, every) * np.timedelta64(1, "h")
    draw = np.random.default_rng(seed)
    coords = {"time": times, "latitude": grid.latitude, "longitude": grid.longitude}
    values = {name: draw.uniform(0, 0.01, (times.size, *grid.shape)).astype(np.float32) for name in names}
    return xr.Dataset({name: (SURFACE, array) for name, array in values.items()}, coords)


def written(fields, path, **options):
    fields.to_netcdf(path, engine="netcdf4", **options)
    return str(path)


def read(archive, names, *times):
    return archive.fields(names, np.array(times, "datetime64[ns]"), ())


@pytest.fixture
def months(tmp_path):
    """A folder of two files that meet at the end of a month."""
    complete = made("2019-12-31T00", 48, ("2m_temperature", "total_precipitation"))
    (tmp_path / "months").mkdir()
    for number, part in enumerate((slice(0, 24), slice(24, 48))):
        written(complete.isel(time=part), tmp_path / "months" / f"{number}.nc")
    return complete, tmp_path / "months"


@pytest.mark.parametrize("ask", ["", "*.nc"])
def test_a_folder_or_a_glob_of_files_is_one_archive(months, ask):
    complete, folder = months
    archive = Archive(str(folder / ask) if ask else folder)
    assert archive.times_of(["2m_temperature"]).tolist() == complete["time"].values.tolist()
    found = read(archive, ["2m_temperature"], "2020-01-01T03", "2019-12-31T21")
    np.testing.assert_array_equal(found["2m_temperature"], complete["2m_temperature"].isel(time=[27, 21]))


def test_precipitation_over_6_hours_is_summed_across_files(months):
    complete, folder = months
    archive = Archive(folder, Reading(precipitation="hourly"))
    found = read(archive, [SUMMED], "2020-01-01T03")[SUMMED]
    hourly = complete["total_precipitation"].values.astype(np.float64)
    np.testing.assert_allclose(found[0], hourly[22:28].sum(axis=0), rtol=1e-6)
    assert archive.times[0] == np.datetime64("2019-12-31T05")
    assert archive.changes == {
        "summed up": f"{SUMMED} of total_precipitation: 6 sums over 1 h added up (inputs.precipitation: hourly)"
    }


def test_precipitation_since_a_start_is_the_difference_to_6_hours_before(tmp_path):
    steps = made("2020-01-01T00", 48, ("total_precipitation",), every=6)
    total = steps.cumsum("time").assign_coords(steps.coords)
    archive = Archive(written(total, tmp_path / "a.nc"), Reading(precipitation="since_start"))
    assert archive.times[0] == np.datetime64("2020-01-01T06")
    found = read(archive, [SUMMED], "2020-01-01T12")[SUMMED]
    np.testing.assert_allclose(found[0], steps["total_precipitation"][2], rtol=1e-5)


def test_precipitation_that_starts_anew_between_is_refused(tmp_path):
    total = made("2020-01-01T00", 48, ("total_precipitation",), every=6).cumsum("time")
    total = total.assign_coords(time=made("2020-01-01T00", 48, every=6)["time"])
    total["total_precipitation"][4:] -= total["total_precipitation"][3]
    archive = Archive(written(total, tmp_path / "a.nc"), Reading(precipitation="since_start"))
    with pytest.raises(InputError, match=r"must not fall with time, .* but at 2020-01-02T00:00 it is .* m less"):
        read(archive, [SUMMED], "2020-01-01T06", "2020-01-02T00")


def test_how_precipitation_is_summed_up_must_be_known(tmp_path):
    path = written(made("2020-01-01T00", 24, ("total_precipitation",)).rename(latitude="lat"), tmp_path / "a.nc")
    archive = Archive(path, Reading(dialect="graphcast"))
    with pytest.raises(
        InputError, match=r"the data do not state one; set inputs\.precipitation: hourly, or since_start"
    ):
        read(archive, [SUMMED], "2020-01-01T06")


def test_hours_that_are_missing_leave_no_time_with_a_sum(tmp_path):
    """A 6-hourly download of hourly precipitation has one of six hours."""
    path = written(made("2020-01-01T00", 48, ("2m_temperature", "total_precipitation"), every=6), tmp_path / "a.nc")
    archive = Archive(path, Reading(precipitation="hourly"))
    assert not archive.times.size
    assert archive.times_of(["2m_temperature"]).size == 8


def test_fields_without_time_come_from_a_file_of_their_own(tmp_path):
    moving = written(made("2020-01-01T00", 24, ("2m_temperature", SUMMED), every=6), tmp_path / "moving.nc")
    mask = made("1940-01-01T00", 1, ("land_sea_mask", "2m_temperature"))
    archive = Archive(moving, statics=written(mask, tmp_path / "statics.nc"))
    frames = archive.read(Case(np.datetime64("2020-01-01T06", "h"), 1, 6), TASK).frames
    assert frames["land_sea_mask"].dims == ("latitude", "longitude")
    np.testing.assert_array_equal(frames["land_sea_mask"], mask["land_sea_mask"][0])
    assert np.datetime64("1940-01-01") not in archive.times


def test_a_time_that_two_files_hold_is_refused(tmp_path):
    paths = [
        written(made(first, 12), tmp_path / f"{number}.nc")
        for number, first in enumerate(("2020-01-01T00", "2020-01-01T06"))
    ]
    with pytest.raises(
        InputError,
        match=r"2m_temperature must be in one file, or .* alike .*, but 2020-01-01T06:00 is in .*0\.nc and in .*1\.nc",
    ):
        Archive(paths)


def test_files_of_two_grids_are_refused(tmp_path):
    paths = [
        written(made("2020-01-01T00", 6), tmp_path / "a.nc"),
        written(made("2020-01-02T00", 6, grid=regular_grid(15)), tmp_path / "b.nc"),
    ]
    with pytest.raises(InputError, match=r"all files of an archive must have one grid, but .* \(30°\) and .* \(15°\)"):
        Archive(paths)


def test_an_empty_folder_and_a_glob_without_matches_are_named(tmp_path):
    with pytest.raises(InputNotFoundError, match="must hold netCDF, GRIB or zarr, but holds nothing"):
        Archive(tmp_path)
    with pytest.raises(InputNotFoundError, match="must match netCDF, GRIB or zarr, but matches nothing"):
        Archive(str(tmp_path / "*.nc"))


def test_times_that_an_axis_only_promises_are_not_held(tmp_path):
    """As ARCO-ERA5, whose axis runs decades ahead of its data."""
    fields = made("2020-01-01T00", 96).assign_attrs(valid_time_start="2020-01-02", valid_time_stop="2020-01-03")
    archive = Archive(written(fields, tmp_path / "a.nc"))
    assert (archive.times[0], archive.times[-1]) == (np.datetime64("2020-01-02T00"), np.datetime64("2020-01-03T23"))


def test_a_finer_grid_is_brought_to_the_weights_by_the_points_it_shares(tmp_path):
    fine = made("2020-01-01T00", 6, grid=regular_grid(10))
    path = written(fine, tmp_path / "a.nc")
    found = read(Archive(path, regrid=("subsample", 30)), ["2m_temperature"], "2020-01-01T02")["2m_temperature"]
    np.testing.assert_array_equal(found[0], fine["2m_temperature"][2, ::3, ::3])
    np.testing.assert_array_equal(found["longitude"], GRID.longitude)


def test_a_coarser_grid_is_never_made_finer(tmp_path):
    path = written(made("2020-01-01T00", 6), tmp_path / "a.nc")
    with pytest.raises(GridError, match="finer"):
        Archive(path, regrid=("linear", 10))


def test_what_a_case_reads_is_told_from_the_chunks(tmp_path):
    fields = made("2020-01-01T00", 240, ("2m_temperature", SUMMED))
    chunks = {name: {"chunksizes": (120, *GRID.shape)} for name in fields}
    archive = Archive(
        written(fields.assign(land_sea_mask=fields["2m_temperature"][0]), tmp_path / "a.nc", encoding=chunks)
    )
    cost = archive.cost(Case(np.datetime64("2020-01-01T06", "h"), 1, 6), TASK)
    assert cost.touched_bytes == 4 * GRID.size * (2 * 120 + 1)
    assert cost.wanted_bytes == 4 * GRID.size * (2 * 2 + 1)
    assert cost.worst_chunks == (120, *GRID.shape)
    assert archive.time_chunk == 120


def test_final_and_preliminary_data_are_one(tmp_path):
    fields = made("2020-01-01T00", 12)
    late = xr.DataArray(fields["time"].values >= np.datetime64("2020-01-01T06"), dims="time")
    both = xr.concat([fields.where(~late), fields.where(late)], "expver").assign_coords(expver=[1, 5])
    archive = Archive(written(both, tmp_path / "a.nc"))
    assert archive.dims == {"2m_temperature": SURFACE}
    found = read(archive, ["2m_temperature"], "2020-01-01T05", "2020-01-01T06")
    np.testing.assert_array_equal(found["2m_temperature"], fields["2m_temperature"][5:7])


def test_an_end_of_the_data_that_is_no_date_is_refused(tmp_path):
    fields = made("2020-01-01T00", 6).assign_attrs(valid_time_stop="soon")
    with pytest.raises(InputError, match=r"the attributes valid_time_\* of .* must be dates such as 2020-01-31"):
        Archive(written(fields, tmp_path / "a.nc"))


@pytest.mark.parametrize("lead", [np.inf, np.nan])
def test_lead_times_that_are_no_numbers_are_refused(tmp_path, lead):
    fields = made("2020-01-01T00", 6).expand_dims(prediction_timedelta=[lead])
    with pytest.raises(InputError, match=r"the coordinate prediction_timedelta of .* must hold lead times in hours"):
        Archive(written(fields, tmp_path / "a.nc"))


def test_a_level_beyond_all_pressures_is_not_held(tmp_path):
    fields = made("2020-01-01T00", 6).expand_dims(level=[500.0, 1e300])
    assert Archive(written(fields, tmp_path / "a.nc")).levels == (500,)
