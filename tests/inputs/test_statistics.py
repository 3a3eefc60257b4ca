"""Statistics in one pass against plain numpy over the whole array, and the published ones."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle

from graphcast_batch.errors import InputError, StatisticsError
from graphcast_batch.inputs import statistics
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.inputs.statistics import compute_statistics, held_task, read_statistics, write_statistics
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.forcings import forcing
from graphcast_batch.models.normalization import normalization
from graphcast_batch.spec import TASKS
from graphcast_batch.variables import LEVELS_13, LEVELS_37, VARIABLES

KINDS = ("mean", "stddev", "diffs_stddev")


def no_forcing(name, times, latitude, longitude):
    raise AssertionError(f"{name} is held")


@pytest.fixture
def archive(tmp_path, made):
    """A function that writes an archive, changed as a test wants, and opens it."""

    def write(change=lambda fields: fields, **what):
        change(made(**what)).to_netcdf(tmp_path / "archive.nc", engine="netcdf4")
        return Archive(tmp_path / "archive.nc")

    return write


def plain(values, levels=False):
    """By numpy on the whole array: mean and stddev of the values and stddev of their changes."""
    exact = np.asarray(values, np.float64)
    axes = tuple(axis for axis in range(exact.ndim) if not (levels and axis == 1))
    return exact.mean(axes), exact.std(axes), np.diff(exact, axis=0).std(axes)


@given(frames=st.integers(2, 9), piece=st.integers(1, 9), steps=st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_one_pass_gives_what_numpy_gives_on_the_whole_array(tmp_path_factory, made, task, frames, piece, steps):
    fields = made(frames=frames)
    path = tmp_path_factory.mktemp("archive") / "a.nc"
    fields.to_netcdf(path, engine="netcdf4")
    channels = 2 + 1 + 1 + 1  # temperature on two levels, 2m_temperature, precipitation, radiation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_PIECE_BYTES", piece * 4 * channels * 7 * 12)
        patch.setattr(statistics, "_STEPS_A_BLOCK", steps)
        found = compute_statistics(Archive(path), task, no_forcing)
    for name in ("temperature", "2m_temperature", "total_precipitation_6hr", "toa_incident_solar_radiation"):
        values = fields[name].sel(level=[300, 850]) if name == "temperature" else fields[name]
        for kind, expected in zip(KINDS, plain(values, levels=name == "temperature"), strict=True):
            np.testing.assert_allclose(found.by_kind[kind][name], expected, rtol=1e-12, err_msg=f"{kind} {name}")
    mask = fields["land_sea_mask"].values.astype(np.float64)
    np.testing.assert_allclose(found.mean["land_sea_mask"], mask.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.stddev["land_sea_mask"], mask.std(), rtol=1e-12)
    assert "land_sea_mask" not in found.diffs_stddev
    assert found.mean["temperature"].dims == ("level",)
    assert found.mean["level"].values.tolist() == [300, 850]
    assert found.mean["temperature"].dtype == np.float64


class Watched:
    """An archive that says in how long chunks of times it is stored, and keeps what was read."""

    def __init__(self, archive, time_chunk):
        self.origin, self.grid, self.times = archive.origin, archive.grid, archive.times
        self.levels, self.dims, self.time_chunk = archive.levels, archive.dims, time_chunk
        self.read = []
        self._archive = archive

    def times_of(self, names):
        return self._archive.times_of(names)

    def fields(self, names, times, levels):
        self.read.append((tuple(names), times))
        return self._archive.fields(names, times, levels)


@given(
    hours=st.sets(st.integers(0, 60), min_size=2).filter(lambda hours: any(hour - 6 in hours for hour in hours)),
    chunk=st.integers(1, 20),
    piece=st.integers(1, 20),
    steps=st.integers(1, 6),
    together=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_every_time_and_every_pair_6_hours_apart_counts_once(
    tmp_path_factory, made, task, hours, chunk, piece, steps, together
):
    places = sorted(hours)
    path = tmp_path_factory.mktemp("archive") / "a.nc"
    fields = made(hours=1, frames=61).isel(time=places)
    fields.to_netcdf(path, engine="netcdf4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_PIECE_BYTES", piece * 4 * (5 if together else 1) * 7 * 12)
        patch.setattr(statistics, "_STEPS_A_BLOCK", steps)
        found = compute_statistics(Watched(Archive(path), chunk), task, no_forcing)
    values = fields["temperature"].sel(level=[300, 850]).values.astype(np.float64)
    pairs = [(places.index(place), places.index(place - 6)) for place in places if place - 6 in hours]
    changes = np.stack([values[later] - values[earlier] for later, earlier in pairs])
    np.testing.assert_allclose(found.mean["temperature"], values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.stddev["temperature"], values.std((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.diffs_stddev["temperature"], changes.std((0, 2, 3)), rtol=1e-12)


def test_what_is_read_at_once_is_whole_chunks_and_one_step_is_read_twice(archive, task, monkeypatch):
    frame = 4 * 5 * 7 * 12
    monkeypatch.setattr(statistics, "_PIECE_BYTES", 9 * frame)  # two chunks of 4 fit
    monkeypatch.setattr(statistics, "_STEPS_A_BLOCK", 2)
    source = Watched(archive(hours=3, frames=24), time_chunk=4)
    compute_statistics(source, task, no_forcing, times=source.times[3:])
    moving = [np.searchsorted(source.times, times).tolist() for names, times in source.read if len(names) > 1]
    assert moving == [[3, 4, 5, 6, 7], [6, 7], [*range(8, 16)], [14, 15], [*range(16, 24)]]


def test_no_more_is_read_at_once_than_fits_though_a_chunk_may_be_longer(archive, task, monkeypatch):
    frame = 4 * 7 * 12
    monkeypatch.setattr(statistics, "_PIECE_BYTES", 4 * frame)  # two times of temperature on its two levels
    source = Watched(archive(frames=9), time_chunk=100)
    compute_statistics(source, task, no_forcing)
    read = [sum(2 if name == "temperature" else 1 for name in names) * times.size for names, times in source.read]
    assert max(read) == 4


@given(order=st.permutations(range(8)))
@settings(max_examples=10, deadline=None)
def test_blocks_tallied_elsewhere_in_any_order_give_the_same_to_the_last_bit(tmp_path_factory, made, task, order):
    path = tmp_path_factory.mktemp("archive") / "a.nc"
    made(frames=8).drop_vars("toa_incident_solar_radiation").to_netcdf(path, engine="netcdf4")

    def elsewhere(function, argument_lists):
        sent = [cloudpickle.dumps((function, arguments)) for arguments in argument_lists]
        assert len(sent) == 9  # one of them is the field without time
        back = {}
        for place in [8, *order]:
            called, arguments = cloudpickle.loads(sent[place])
            back[place] = cloudpickle.dumps(called(*arguments))
        return (cloudpickle.loads(back[place]) for place in sorted(back))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_PIECE_BYTES", 4 * 5 * 7 * 12)
        patch.setattr(statistics, "_STEPS_A_BLOCK", 1)
        here = compute_statistics(Archive(path), task, forcing)
        there = compute_statistics(Archive(path), task, forcing, executor=elsewhere)
    for kind in KINDS:
        xr.testing.assert_identical(there.by_kind[kind], here.by_kind[kind])


def test_the_error_of_a_block_that_failed_elsewhere_is_raised(archive, task):
    with pytest.raises(InputError, match="the disk is gone"):
        compute_statistics(archive(), task, no_forcing, executor=lambda call, given: [InputError("the disk is gone")])


def test_a_pass_that_was_stopped_gives_no_statistics(archive, task):
    def stopped(call, given):
        return [call(*given[0])]

    with pytest.raises(StatisticsError, match=r"need all 2 blocks of .*, but were stopped after 1; run it again"):
        compute_statistics(archive(), task, no_forcing, executor=stopped)


@pytest.mark.parametrize("piece", [1, 4, 100])
def test_changes_are_over_6_hours_whatever_the_spacing_of_the_archive(archive, made, task, monkeypatch, piece):
    monkeypatch.setattr(statistics, "_PIECE_BYTES", piece * 4 * 5 * 7 * 12)
    monkeypatch.setattr(statistics, "_STEPS_A_BLOCK", 1)
    found = compute_statistics(archive(hours=2, frames=14), task, no_forcing)
    values = made(hours=2, frames=14)["2m_temperature"].values.astype(np.float64)
    np.testing.assert_allclose(found.diffs_stddev["2m_temperature"], (values[3:] - values[:-3]).std(), rtol=1e-12)
    np.testing.assert_allclose(found.stddev["2m_temperature"], values.std(), rtol=1e-12)


def test_a_gap_in_time_gives_no_change_across_it(archive, made, task):
    found = compute_statistics(archive(lambda fields: fields.isel(time=[0, 1, 4, 5])), task, no_forcing)
    values = made()["2m_temperature"].values.astype(np.float64)
    changes = np.stack([values[1] - values[0], values[5] - values[4]])
    np.testing.assert_allclose(found.diffs_stddev["2m_temperature"], changes.std(), rtol=1e-12)


def test_only_the_times_asked_for_count(archive, made, task):
    times = made()["time"].values
    found = compute_statistics(archive(), task, no_forcing, times=[times[2], times[1]])
    expected = plain(made()["2m_temperature"].values[1:3])
    assert [float(found.by_kind[kind]["2m_temperature"]) for kind in KINDS] == pytest.approx(expected, rel=1e-12)


def test_dataset_files_are_passed_over_like_an_archive(tmp_path, made, as_dataset, task):
    fields = made()
    for name, places in (("a.nc", [0, 1, 2]), ("b.nc", [2, 3]), ("c.nc", [4, 5])):
        as_dataset(fields.isel(time=places)).to_netcdf(tmp_path / name, engine="netcdf4")
    found = compute_statistics(DatasetFiles(f"{tmp_path}/*.nc"), task, no_forcing)
    expected = plain(fields["temperature"].sel(level=[300, 850]), levels=True)
    for kind, values in zip(KINDS, expected, strict=True):
        np.testing.assert_allclose(found.by_kind[kind]["temperature"], values, rtol=1e-12)


def test_forcings_that_are_not_held_are_computed(archive, task):
    asked = []

    def sum_of_coordinates(name, times, latitude, longitude):
        asked.append(name)
        hours = (times - np.datetime64("2020-01-01")) / np.timedelta64(1, "h")
        return hours[:, None, None] + latitude[None, :, None] + longitude[None, None, :]

    source = archive(lambda fields: fields.drop_vars("toa_incident_solar_radiation"))
    found = compute_statistics(source, task, sum_of_coordinates)
    hours, latitude, longitude = np.arange(6) * 6.0, source.grid.latitude, source.grid.longitude
    values = hours[:, None, None] + latitude[None, :, None].astype(float) + longitude[None, None, :]
    assert set(asked) == {"toa_incident_solar_radiation"}
    assert float(found.mean["toa_incident_solar_radiation"]) == pytest.approx(values.mean())
    assert float(found.stddev["toa_incident_solar_radiation"]) == pytest.approx(values.std())
    # Every change is 6, so that their deviation is 0.
    assert float(found.diffs_stddev["toa_incident_solar_radiation"]) == pytest.approx(values.std())
    assert "never change" in found.diffs_stddev["toa_incident_solar_radiation"].attrs["note"]


# Rounded from the statistics published with GraphCast (1979-2015).
@pytest.mark.parametrize(
    ("name", "stddev", "diffs_stddev"),
    [
        ("year_progress_sin", 0.70858, 0.0030343),
        ("year_progress_cos", 0.70553, 0.0030474),
        ("day_progress_sin", 0.70711, 1.0),
        ("day_progress_cos", 0.70711, 1.0),
    ],
)
def test_progress_gets_the_values_of_whole_periods_as_published(archive, task, name, stddev, diffs_stddev):
    task = task.model_copy(update={"forcing_variables": (name,), "input_variables": ("temperature", name)})
    found = compute_statistics(archive(), task, no_forcing)
    assert float(found.mean[name]) == 0
    assert float(found.stddev[name]) == pytest.approx(stddev, rel=0.01)
    assert float(found.diffs_stddev[name]) == pytest.approx(diffs_stddev, rel=0.01)


def test_a_constant_gets_a_deviation_of_1_and_says_so(archive, task):
    found = compute_statistics(
        archive(lambda f: f.assign(land_sea_mask=f["land_sea_mask"] * 0 + 0.1)), task, no_forcing
    )
    assert float(found.stddev["land_sea_mask"]) == 1
    assert found.stddev["land_sea_mask"].attrs["note"] == "1 stands where the data are constant"
    assert "note" not in found.stddev["temperature"].attrs


def test_a_level_that_never_changes_gets_the_scale_of_its_values(archive, task):
    def freeze(fields):
        fields["temperature"][:, 2] = fields["temperature"][0, 2]
        return fields

    found = compute_statistics(archive(freeze), task, no_forcing)
    changes, values = found.diffs_stddev["temperature"], found.stddev["temperature"]
    assert changes.sel(level=850) == values.sel(level=850)
    assert changes.sel(level=300) != values.sel(level=300)
    assert changes.attrs["note"] == "the stddev of the values stands where the data never change"


@pytest.mark.parametrize("name", ["temperature", "2m_temperature"])
def test_a_variable_fed_back_that_never_changes_at_all_is_refused(archive, task, name):
    def freeze(fields):
        fields[name][:] = fields[name][0]
        return fields

    with pytest.raises(StatisticsError, match=f"^{name} must change between times 6 h apart .* repeat one frame"):
        compute_statistics(archive(freeze), task, no_forcing)


def test_a_variable_only_predicted_may_stay_the_same(archive, task):
    dry = archive(lambda fields: fields.assign(total_precipitation_6hr=fields["total_precipitation_6hr"] * 0))
    found = compute_statistics(dry, task, no_forcing)
    assert float(found.stddev["total_precipitation_6hr"]) == 1


def test_a_value_that_is_not_finite_is_placed(archive, task):
    def spoil(fields):
        fields["temperature"][3, 0, 2, 1] = np.nan
        return fields

    with pytest.raises(
        StatisticsError, match=r"temperature must be finite, but 1 of .* time 2020-01-01T18:00, level 300"
    ):
        compute_statistics(archive(spoil), task, no_forcing)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop_vars("temperature"), "need the variables temperature"),
        (lambda f: f.isel(level=[0, 1]), r"need the levels \[300, 850\] hPa, but .* lacks \[850\]"),
        (lambda f: f.isel(time=[0, 2, 4]), "needs two times 6 h apart, but .* gives none among 3 times"),
    ],
)
def test_an_archive_that_is_too_poor_is_refused(archive, task, change, message):
    with pytest.raises(StatisticsError, match=message):
        compute_statistics(archive(change), task, no_forcing)


def test_times_that_the_archive_lacks_are_named(archive, task):
    times = [np.datetime64("2020-01-01T00"), np.datetime64("2021-01-01T00")]
    with pytest.raises(StatisticsError, match="lacks 2021-01-01"):
        compute_statistics(archive(), task, no_forcing, times=times)


def test_all_that_an_archive_holds_of_the_known_variables_is_taken(archive, made):
    source = archive(lambda fields: fields.assign(sea_ice=fields["2m_temperature"]))
    task = held_task(source)
    found = compute_statistics(source, task, forcing)
    held = {"temperature", "2m_temperature", "total_precipitation_6hr", "land_sea_mask"}
    assert set(found.mean.data_vars) == held | {name for name, known in VARIABLES.items() if known.kind == "forcing"}
    assert set(found.diffs_stddev.data_vars) == set(found.mean.data_vars) - {"land_sea_mask"}
    assert task.pressure_levels == (300, 500, 850)
    expected = plain(made()["temperature"], levels=True)
    for kind, values in zip(KINDS, expected, strict=True):
        np.testing.assert_allclose(found.by_kind[kind]["temperature"], values, rtol=1e-12)


def test_of_all_that_is_held_a_variable_that_never_changes_stops_nothing_and_is_noted(archive):
    def freeze(fields):
        fields["2m_temperature"][:] = fields["2m_temperature"][0]
        return fields

    source = archive(freeze)
    found = compute_statistics(source, held_task(source), forcing)
    assert found.diffs_stddev["2m_temperature"] == found.stddev["2m_temperature"]
    assert found.diffs_stddev["2m_temperature"].attrs["note"].endswith("where the data never change")


def test_an_archive_without_any_known_variable_is_refused(archive):
    source = archive(
        lambda fields: fields[["land_sea_mask", "total_precipitation_6hr"]].rename_vars(total_precipitation_6hr="rain")
    )
    with pytest.raises(
        StatisticsError, match=r"must hold at least one of 2m_temperature, .* but holds land_sea_mask, rain"
    ):
        held_task(source)


def test_what_is_written_is_read_back(tmp_path, archive, task):
    made = compute_statistics(archive(), task, no_forcing)
    write_statistics(made, tmp_path / "new" / "stats")
    found = read_statistics(tmp_path / "new" / "stats")
    for kind in KINDS:
        xr.testing.assert_identical(found.by_kind[kind], made.by_kind[kind])
    assert sorted(path.name for path in (tmp_path / "new" / "stats").iterdir()) == sorted(
        f"{k}_by_level.nc" for k in KINDS
    )
    assert found.mean.attrs["timestep_hours"] == 6


def test_writing_again_replaces_and_a_failure_keeps_what_was_there(tmp_path, archive, task, monkeypatch):
    made = compute_statistics(archive(), task, no_forcing)
    write_statistics(made, tmp_path / "stats")
    write_statistics(made, tmp_path / "stats")

    def fail(path):
        raise OSError("disk full")

    monkeypatch.setattr(statistics, "_flush", fail)
    with pytest.raises(OSError, match="disk full"):
        write_statistics(made, tmp_path / "stats")
    assert len(list((tmp_path / "stats").iterdir())) == 3
    xr.testing.assert_identical(read_statistics(tmp_path / "stats").mean, made.mean)


@pytest.mark.parametrize("folder", ["small_13", "operational_13"])
def test_files_with_the_prefix_stats_are_read(reference, folder):
    found = read_statistics(reference / folder)
    assert found.mean.sizes == {"level": 13}
    assert found.mean["level"].dtype == np.int32
    stored = xr.load_dataset(reference / folder / "stats_diffs_stddev_by_level.nc")
    np.testing.assert_array_equal(found.diffs_stddev["temperature"], stored["temperature"])
    assert found.diffs_stddev["temperature"].dtype == np.float64


def test_levels_are_sorted_on_reading(tmp_path, archive, task):
    made = compute_statistics(archive(), task, no_forcing)
    for kind, dataset in made.by_kind.items():
        turned = dataset.isel(level=[1, 0]).assign_coords(level=np.asarray([850.0, 300.0]))
        turned.to_netcdf(tmp_path / f"stats_{kind}_by_level.nc", engine="netcdf4")
    xr.testing.assert_equal(read_statistics(tmp_path).stddev, made.stddev)


def test_a_missing_file_is_named_with_both_habits(tmp_path):
    with pytest.raises(
        StatisticsError, match=r"must hold one of mean_by_level\.nc and stats_mean_by_level\.nc, but neither"
    ):
        read_statistics(tmp_path / "none")


def test_both_habits_in_one_folder_are_refused(tmp_path):
    (tmp_path / "mean_by_level.nc").touch()
    (tmp_path / "stats_mean_by_level.nc").touch()
    with pytest.raises(StatisticsError, match="both are there; remove one"):
        read_statistics(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (xr.Dataset({"temperature": ("latitude", [1.0])}), "but hold temperature with other dimensions"),
        (xr.Dataset(), "but hold nothing"),
        (
            xr.Dataset({"t": ("level", [1.0])}, coords={"level": [0.5]}),
            r"level of .* must be whole hPa, .* but is \[0\.5\]",
        ),
    ],
)
def test_files_with_something_else_are_refused(tmp_path, content, message):
    content.to_netcdf(tmp_path / "mean_by_level.nc", engine="netcdf4")
    with pytest.raises(StatisticsError, match=message):
        read_statistics(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "mean_by_level.nc").write_bytes(b"broken")
    with pytest.raises(StatisticsError, match=r"mean_by_level\.nc cannot be read") as caught:
        read_statistics(tmp_path)
    assert isinstance(caught.value.__cause__, InputError)


def assert_picks_13_of_37_levels(folder, stored):
    task = TASKS["GraphCast_small"]
    channels = Channels.of(task, {})
    found = normalization(channels, read_statistics(folder).by_kind)
    assert task.pressure_levels == LEVELS_13
    start = sum(channels.width([name]) for name in channels.carried[: channels.carried.index("temperature")])
    for picked, kind in ((found.carried[0], "mean"), (found.carried[1], "stddev"), (found.change, "diffs_stddev")):
        by_level = dict(zip(stored[kind]["level"].values.tolist(), stored[kind]["temperature"].values, strict=True))
        expected = np.asarray([by_level[level] for level in LEVELS_13], np.float32)
        np.testing.assert_array_equal(picked[start : start + 13], expected)


def test_of_published_files_with_37_levels_13_are_picked(shared_data):
    folder = shared_data / "stats_era5_levels-37"
    assert_picks_13_of_37_levels(folder, {kind: xr.load_dataset(folder / f"{kind}_by_level.nc") for kind in KINDS})


def test_of_made_files_with_37_levels_13_are_picked(tmp_path):
    draw = np.random.default_rng(0)
    stored = {}
    for kind in KINDS:
        constants = {name: ((), draw.uniform(1, 2)) for name in VARIABLES}
        levelled = [name for name, variable in VARIABLES.items() if variable.kind == "level"]
        constants |= {name: ("level", draw.uniform(1, 2, 37)) for name in levelled}
        stored[kind] = xr.Dataset(constants, {"level": np.asarray(LEVELS_37)})
        stored[kind].to_netcdf(tmp_path / f"stats_{kind}_by_level.nc", engine="netcdf4")
    assert_picks_13_of_37_levels(tmp_path, stored)


def test_published_statistics_are_read(shared_data):
    found = read_statistics(shared_data / "stats_era5_levels-37")
    assert found.mean.sizes == {"level": 37}
    assert 270 < float(found.mean["2m_temperature"]) < 285
    assert math.isclose(float(found.diffs_stddev["day_progress_cos"]), 1)


def test_statistics_of_real_forecasts_are_near_the_published_ones(shared_data, task):
    archive = Archive(shared_data / "hres_2024-06-03_res-10.0_levels-6.nc")
    task = task.model_copy(
        update={
            "input_variables": ("temperature", "geopotential", "land_sea_mask"),
            "target_variables": ("temperature", "geopotential"),
            "forcing_variables": (),
            "pressure_levels": (500, 850),
        }
    )
    found = compute_statistics(archive, task, no_forcing)
    published = read_statistics(shared_data / "stats_era5_levels-37")
    for name in ("temperature", "geopotential"):
        # Two days of June at 10 degrees against 37 years at 0.25: only sizes compare; changes are about half.
        for kind, least, most in (("stddev", 0.7, 1.3), ("diffs_stddev", 0.3, 1.0)):
            ratio = found.by_kind[kind][name] / published.by_kind[kind][name].sel(level=[500, 850])
            assert least < ratio.min()
            assert ratio.max() < most
    assert float(found.mean["land_sea_mask"]) == pytest.approx(float(published.mean["land_sea_mask"]), abs=0.05)


def test_the_synthetic_planet_gives_usable_statistics():
    task = TASKS["GraphCast_small"]
    planet = SyntheticArchive(SyntheticPlanet(0), 20, task.pressure_levels)
    times = np.datetime64("2020-01-01", "h") + np.arange(4) * np.timedelta64(6, "h")
    found = compute_statistics(planet, task, forcing, times)
    for name in task.target_variables:
        assert np.all(found.stddev[name] > 0)
        assert np.all(found.diffs_stddev[name] > 0)
    assert float(found.mean["toa_incident_solar_radiation"]) == pytest.approx(1.07e6, rel=0.15)  # as published
