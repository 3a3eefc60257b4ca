from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.errors import TrainingError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.forcings import forcing
from graphcast_batch.spec import Task
from graphcast_batch.training.samples import SampleReader, needed_times
from tests.training.made import TASK, write_archive

TOA = "toa_incident_solar_radiation"
STARTS = np.array(["2020-01-02T06", "2020-01-01T12"], "datetime64[h]")


@pytest.fixture
def task():
    return Task(**TASK)


class Counting(Archive):
    """Tells how many times were read of targets."""

    read_times = 0

    def fields(self, names, times, levels):
        self.read_times += times.size if "temperature" in names else 0
        return super().fields(names, times, levels)


def reader_of(path, task, keep_bytes=0):
    held = Counting(path)
    return SampleReader(held, Channels.of(task, held.dims), task, keep_bytes), held


def at(fields, name, hours, level=None):
    """(point,) of a variable some hours after the second start."""
    field = fields[name].sel(time=STARTS[1] + np.timedelta64(hours, "h"))
    return (field if level is None else field.sel(level=level)).values.ravel()


def test_a_sample_is_what_the_archive_holds_before_and_after_its_initial_time(tmp_path, task):
    fields = write_archive(tmp_path / "archive.nc")
    reader, held = reader_of(tmp_path / "archive.nc", task)

    frames, forcings, known, targets = reader.read(STARTS, 2)

    points = held.grid.size
    # Fed back are 2 m temperature and temperature on two levels; precipitation is diagnosed and comes last.
    assert frames.shape == (2, 2, points, 3)
    assert forcings.shape == (2, 2, points, 1)
    assert known.shape == (2, 2, points, 2)
    assert targets.shape == (2, 2, points, 4)
    for frame, hours in enumerate((-6, 0)):
        np.testing.assert_array_equal(frames[1, frame, :, 0], at(fields, "2m_temperature", hours))
        np.testing.assert_array_equal(frames[1, frame, :, 2], at(fields, "temperature", hours, 850))
    for step, hours in enumerate((6, 12)):
        np.testing.assert_array_equal(targets[1, step, :, 1], at(fields, "temperature", hours, 500))
        np.testing.assert_array_equal(targets[1, step, :, 3], at(fields, "total_precipitation_6hr", hours))
    later = STARTS[1] + np.array([6, 12]) * np.timedelta64(1, "h")
    sun = forcing(TOA, later.astype("datetime64[ns]"), held.grid.latitude, held.grid.longitude).reshape(2, -1)
    np.testing.assert_array_equal(known[1, :, :, 1], sun)


def test_forcings_that_the_archive_holds_at_some_times_are_taken_from_there(tmp_path, task):
    (tmp_path / "both").mkdir()
    fields = write_archive(tmp_path / "both" / "weather.nc")
    sevens = xr.full_like(fields["2m_temperature"], 7).isel(time=slice(0, 5)).assign_attrs(units="J m**-2")
    sevens.to_dataset(name=TOA).to_netcdf(tmp_path / "both" / "sun.nc")  # until 6 h after the second start

    reader, held = reader_of(tmp_path / "both", task)
    _, forcings, known, _ = reader.read(STARTS[1:], 2)

    assert (forcings == 7).all()
    assert (known[0, 0, :, 1] == 7).all()
    later = (STARTS[1:] + np.timedelta64(12, "h")).astype("datetime64[ns]")
    np.testing.assert_array_equal(
        known[0, 1, :, 1], forcing(TOA, later, held.grid.latitude, held.grid.longitude).ravel()
    )


def test_what_is_kept_is_not_read_again_and_is_no_more_than_may_be_kept(tmp_path, task):
    write_archive(tmp_path / "archive.nc")
    bytes_of_time = 4 * 7 * 12 * (4 + 2)  # 7 x 12 points, 4 values of targets and 2 of forcings

    for times_kept, read_again in ((0, 4), (2, 2), (4, 0), (100, 0)):
        reader, held = reader_of(tmp_path / "archive.nc", task, times_kept * bytes_of_time)
        first = reader.read(STARTS[:1], 2)
        assert held.read_times == 4
        second = reader.read(STARTS[:1], 2)
        assert held.read_times == 4 + read_again
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_gap_is_named_by_its_place(tmp_path, task):
    fields = write_archive(tmp_path / "archive.nc")
    field = fields["temperature"].copy(deep=True)
    field[{"time": 6, "level": 1, "latitude": 2, "longitude": 3}] = np.nan
    write_archive(tmp_path / "archive.nc", temperature=field)
    reader, _ = reader_of(tmp_path / "archive.nc", task)

    with pytest.raises(TrainingError, match=r"temperature of .* is not at time 2020-01-02T06.*level 850.*1 v"):
        reader.read(STARTS, 1)


@given(held=st.sets(st.integers(0, 30)), rollout=st.integers(1, 5))
def test_a_sample_can_start_where_all_its_times_are_held(held, rollout):
    task, base = Task(**TASK), np.datetime64("2020-01-01T00", "ns")
    held_times = base + np.array(sorted(held), int) * np.timedelta64(6, "h")

    class Held:
        dims: ClassVar = {}
        grid = regular_grid(30)

        def times_of(self, names):
            assert "total_precipitation_6hr" in names
            return held_times

    starts = base + np.arange(31) * np.timedelta64(6, "h")

    found = SampleReader(Held(), Channels.of(task, {}), task, 0).startable(starts, rollout)

    able = [n for n in range(31) if all(n + k in held for k in range(-1, rollout + 1))]
    np.testing.assert_array_equal(found, starts[able])


def test_needed_are_the_frames_that_go_in_and_the_steps(task):
    hours = (needed_times(STARTS, task, 3) - STARTS[:, None]) / np.timedelta64(1, "h")

    np.testing.assert_array_equal(hours, [[-6, 0, 6, 12, 18]] * 2)
