import re

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.layouts.time_coordinates import check_dates, to_whole_minutes
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet

HOURS = np.arange("2020-01-01T00", "2020-01-02T06", 6, dtype="datetime64[h]").astype("datetime64[ns]")


def planet(names=("temperature", "2m_temperature"), levels=(500, 850)):
    return SyntheticPlanet().fields(names, HOURS, regular_grid(30), levels)


@pytest.mark.parametrize(
    ("stored", "meant"),
    [
        ("2020-01-01T05:59:59.999993", "2020-01-01T06"),
        ("2020-01-01T06:00:01", "2020-01-01T06"),
        ("2020-01-01T06:15:09", "2020-01-01T06:15"),
        ("1969-12-31T17:59:58", "1969-12-31T18"),
        ("2020-01-01T06:00:20", "2020-01-01T06:00:20"),
        ("NaT", "NaT"),
    ],
)
def test_a_time_within_seconds_of_a_whole_minute_means_it(stored, meant):
    found = to_whole_minutes(np.array([stored], "datetime64[ns]"))
    np.testing.assert_array_equal(found, np.array([meant], "datetime64[ns]"))


@pytest.mark.parametrize(
    ("days", "moved"),
    [
        (lambda days: days.astype(np.float32), "1.3 s"),  # half of the step of float32 about 365 is 1.3 s
        (lambda days: days + 1e-9, "8.6e-05 s"),
        (lambda days: days + np.where(np.arange(days.size) % 2, 1, -1) / 86400, "1 s"),
    ],
    ids=["float32", "microseconds", "jitter"],
)
def test_times_that_miss_their_hour_by_rounding_are_read_as_that_hour_and_it_is_said(days, moved, tmp_path):
    since = (HOURS - np.datetime64("2019-01-01T01", "ns")) / np.timedelta64(1, "D")
    attributes = {"units": "days since 2019-01-01 01:00", "calendar": "standard"}
    planet().assign_coords(time=("time", days(since), attributes)).to_netcdf(tmp_path / "a.nc")

    archive = Archive(tmp_path / "a.nc")

    np.testing.assert_array_equal(archive.times, HOURS)
    said = archive.changes["rounded"]
    assert said.endswith("to whole minutes")
    assert float(re.search(r"up to (\S+) s", said)[1]) <= float(moved.split()[0])
    xr.testing.assert_equal(
        archive.fields(["2m_temperature"], HOURS[1:3], ()), planet()[["2m_temperature"]].isel(time=[1, 2]).drop_attrs()
    )


@pytest.mark.parametrize(("calendar", "name"), [("noleap", "time"), ("360_day", "valid_time")])
def test_the_command_that_is_named_for_another_calendar_makes_a_file_that_is_read(
    calendar, name, tmp_path, monkeypatch
):
    times = xr.date_range("2020-01-01T00", periods=5, freq="6h", calendar=calendar, use_cftime=True)
    planet().assign_coords(time=times).rename(time=name).to_netcdf(tmp_path / "other.nc")

    with pytest.raises(InputError, match=f"coordinate {name} of .* holds those of the calendar {calendar}") as caught:
        Archive(tmp_path / "other.nc")

    monkeypatch.chdir(tmp_path)
    exec(re.search(r"python -c '(.*)', and give", str(caught.value))[1])
    np.testing.assert_array_equal(Archive(tmp_path / "standard.nc").times, HOURS)


def test_dates_of_years_that_no_data_are_of_are_refused():
    times = xr.Variable("time", np.array(["9999-01-01"], "datetime64[s]"))
    with pytest.raises(InputError, match="dates of the years 1678 to 2261, but holds 9999-01-01"):
        check_dates(times, "time", "here")


def test_levels_that_miss_a_whole_number_by_rounding_are_read_and_others_named(tmp_path):
    fields = planet(levels=(1, 500, 850))
    fields.assign_coords(level=[0.7, 500.00001, 849.9999]).to_netcdf(tmp_path / "a.nc")

    archive = Archive(tmp_path / "a.nc")

    assert archive.levels == (500, 850)
    assert archive.changes["left out"] == "levels of no whole hPa: 0.7"
    np.testing.assert_array_equal(
        archive.fields(["temperature"], HOURS[:1], (850,))["temperature"].values,
        fields["temperature"].values[:1, 2:],
    )
