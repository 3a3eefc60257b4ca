import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError, StoreError, StoreMismatchError
from graphcast_batch.evaluation import climatology_building as module
from graphcast_batch.evaluation import climatology_store as store_module
from graphcast_batch.evaluation.baselines import ClimatologyForecast
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.climatology_building import make_climatology, plan_climatology
from graphcast_batch.evaluation.climatology_window import weighted_quantile
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.store_scoring import evaluations, lay_out, score_stored, scoring_of
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.variables import LEVELS_13
from tests.evaluation.made import LEVELS, cases, config_for, records, stored, truth

RESOLUTION = 90.0
"""Three by four points, so that years pass quickly."""


class NoisyPlanet:
    """Noise of each time by itself, on a trend; the surface has the first level's."""

    def fields(self, names, times, grid, levels):
        hours = (np.asarray(times, "datetime64[ns]") - np.datetime64("2000-01-01")) // np.timedelta64(1, "h")
        noise = np.stack([np.random.default_rng(int(hour)).normal(size=(2, *grid.shape)) for hour in hours])
        values = (noise + np.asarray(hours, float)[:, np.newaxis, np.newaxis, np.newaxis] / 1e4).astype(np.float32)
        coords = {"time": np.asarray(times, "datetime64[ns]"), "level": np.asarray(levels, np.int32)}
        coords |= {"latitude": grid.latitude, "longitude": grid.longitude}
        level = [LEVELS.index(level) for level in levels]
        found = {}
        for name in names:
            on_levels = name == "temperature"
            dims = ("time", "level", "latitude", "longitude") if on_levels else ("time", "latitude", "longitude")
            found[name] = (dims, values[:, level] if on_levels else values[:, 0])
        return xr.Dataset(found, coords)


def noisy(names=("2m_temperature", "temperature")):
    source = SyntheticArchive(NoisyPlanet(), RESOLUTION, LEVELS)
    source.dims = {name: source.dims[name] for name in names}
    return source


def years(first, last, every_hours=12):
    return np.arange(f"{first}-01-01", f"{last + 1}-01-01", np.timedelta64(every_hours, "h"), dtype="datetime64[ns]")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of a leap year and a common one."""
    path = tmp_path_factory.mktemp("climatology") / "c.zarr"
    make_climatology(plan_climatology(noisy(), years(2000, 2001)), path, run_serially)
    return path


def window(hour, day):
    """Which times go into one day of the year, with pandas, and their weights."""
    index = pd.DatetimeIndex(years(2000, 2001))
    pairs = [(number, n) for n, number in enumerate(index.day_of_year) if index.hour[n] == hour]
    pairs += [
        (366, n) for n in range(len(index)) if (index.year[n], index.day_of_year[n], index.hour[n]) == (2001, 365, hour)
    ]
    apart = [min(abs(number - day), 366 - abs(number - day)) for number, _ in pairs]
    return [n for _, n in pairs], np.maximum(0, 1 - np.array(apart) / 30)


def by_definition(hour, day):
    """Mean and standard deviation of the temperature at one day of the year, time by time."""
    values = NoisyPlanet().fields(["temperature"], years(2000, 2001), noisy().grid, LEVELS)["temperature"].values
    which, weights = window(hour, day)
    chosen = values.astype(float)[which]
    mean = np.average(chosen, axis=0, weights=weights)
    return mean, np.sqrt(np.average((chosen - mean) ** 2, axis=0, weights=weights))


@pytest.mark.parametrize(("hour", "day"), [(0, 1), (12, 31), (12, 60), (0, 200), (12, 365), (0, 366)])
def test_each_day_has_the_mean_and_deviation_of_its_window(made, hour, day):
    opened = xr.open_zarr(made, chunks=None).sel(hour=hour, dayofyear=day)

    mean, deviation = by_definition(hour, day)

    np.testing.assert_allclose(opened["temperature"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(opened["temperature_std"], deviation, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(opened["2m_temperature"], mean[0], rtol=1e-5, atol=1e-6)


def test_a_climatology_is_laid_out_as_weatherbench_has_it(made):
    opened = xr.open_zarr(made, chunks=None)

    assert opened["temperature"].dims == ("hour", "dayofyear", "level", "latitude", "longitude")
    assert opened["2m_temperature"].dims == ("hour", "dayofyear", "latitude", "longitude")
    assert opened["hour"].values.tolist() == [0, 12]
    assert opened["dayofyear"].values.tolist() == list(range(1, 367))
    assert np.isfinite(opened["temperature"]).all()


def test_less_than_a_year_is_refused_with_the_day_that_is_bare(tmp_path):
    with pytest.raises(EvaluationError, match=r"has none at 00 UTC near day 120 and 217 more; give whole years"):
        make_climatology(plan_climatology(noisy(), years(2000, 2000)[:180]), tmp_path / "c", run_serially)
    assert not list(tmp_path.iterdir())


def test_chosen_variables_and_levels_are_those_of_the_whole_climatology(tmp_path, made):
    names = ("2m_temperature", "temperature", "total_precipitation_6hr")
    plan = plan_climatology(noisy(names), years(2000, 2001), ["temperature"], [LEVELS[1]])
    make_climatology(plan, tmp_path / "c", run_serially)

    found = xr.open_zarr(tmp_path / "c", chunks=None)

    assert set(found.data_vars) == {"temperature", "temperature_std"}
    whole = xr.open_zarr(made, chunks=None)[["temperature", "temperature_std"]]
    xr.testing.assert_equal(found, whole.sel(level=[LEVELS[1]]))


@pytest.mark.parametrize(
    ("variables", "levels", "match"),
    [
        (["temperature", "wind"], None, r"those of the synthetic planet, 2m_temperature, temperature, but wind is not"),
        (
            ["temperature"],
            [LEVELS[0], 300],
            rf"that the synthetic planet holds, {LEVELS[0]}, {LEVELS[1]} hPa, but 300 hPa",
        ),
        (["temperature"], [], r"but none hPa were chosen; correct --levels"),
        ([], None, "needs a variable"),
    ],
)
def test_variables_and_levels_that_the_archive_lacks_are_refused(variables, levels, match):
    with pytest.raises(EvaluationError, match=match):
        plan_climatology(noisy(), years(2000, 2000), variables, levels)


def size_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("names", [("2m_temperature", "temperature"), ("total_precipitation_6hr",)])
def test_the_size_that_is_planned_is_that_of_the_files(tmp_path, monkeypatch, names):
    monkeypatch.setattr(store_module, "_CODEC", None)
    monkeypatch.setattr(store_module, "_CHUNK_BYTES", 4 * 12)  # one level
    most = [0]

    def watched(function, pieces):
        for result in run_serially(function, pieces):
            yield result
            most[0] = max(most[0], sum(path.stat().st_size for path in tmp_path.rglob("*.npy")))

    plan = plan_climatology(noisy(names), years(2000, 2000, 24) + np.timedelta64(12, "h"))
    make_climatology(plan, tmp_path / "c", watched)

    files, found = size_of(tmp_path / "c")
    assert files == plan.contents.files
    index, metadata = 16 * 366, 2000  # of a chunk in its shard, and of an array
    assert 0 <= found - plan.contents.bytes <= len(list((tmp_path / "c").iterdir())) * (3 * 2 * index + metadata)
    header = 128  # of a file of NumPy, of which there are one or two for each day
    assert 0 <= most[0] - plan.contents.most_days_bytes <= 2 * 366 * header


def test_at_a_quarter_of_a_degree_a_climatology_has_the_size_that_arithmetic_gives():
    """721 x 1440 points, 366 days, 4 hours: 6.08 GB for a field; mean and deviation, and two more of precipitation."""
    source = SyntheticArchive(NoisyPlanet(), 0.25, LEVELS_13)
    plan = plan_climatology(source, years(2000, 2001, 6))

    field = 4 * 721 * 1440 * 366 * 4
    levelled = sum(plan.contents.on_levels.values())
    surface = len(plan.contents.on_levels) - levelled
    assert plan.contents.bytes == field * (2 * (13 * levelled + surface) + 2)
    assert plan.contents.most_days_bytes == field * 2 * 13
    assert re.search(r"11 variables on 13 levels at 4 hours .* from 2924 times: 1\.02 TB in \d+ files", str(plan))


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    free = [0]
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    plan, path = plan_climatology(noisy(), years(2000, 2000, 24)), tmp_path / "folder" / "c"
    # Of the surface and two levels 12 points, 366 days, mean and deviation; and of the levels those of single days.
    written, days = 3 * 12 * 366 * 2 * 4, 2 * 12 * 366 * 2 * 4

    free[0] = written
    told = rf"needs up to 176 kB \(70\.3 kB of them only .* but 105 kB are free at {tmp_path}; make .*--levels"
    with pytest.raises(StoreError, match=told):
        make_climatology(plan, path, run_serially)
    assert not list(tmp_path.iterdir())

    # What is finished or kept is not needed again.
    def first_variable(function, pieces):
        if pieces and getattr(pieces[0][-1], "name", "") == "temperature":
            return []
        return run_serially(function, pieces)

    free[0] = written + days
    with pytest.raises(EvaluationError, match="was stopped"):
        make_climatology(plan, path, first_variable)
    free[0] = 2 * written // 3 + days
    make_climatology(plan, path, run_serially)
    assert path.exists()


def test_what_is_there_is_not_replaced(made):
    with pytest.raises(StoreError, match="must not exist, but does"):
        make_climatology(plan_climatology(noisy(), years(2000, 2000)), made, run_serially)


class Counting(SyntheticArchive):
    """Knows which times of each variable were read, once for each time that they were."""

    def fields(self, names, times, levels):
        self.asked += [(name, time) for name in names for time in np.asarray(times).tolist()]
        return super().fields(names, times, levels)


def counting():
    source = Counting(NoisyPlanet(), RESOLUTION, LEVELS)
    source.asked = []
    source.dims = {"2m_temperature": source.dims["2m_temperature"]}
    return source


SURFACE = ["2m_temperature", "2m_temperature_std"]


@pytest.mark.parametrize("size", [2**29, 300])  # all hours together, and a day at an hour
def test_each_field_is_read_once_and_the_pieces_do_not_matter(tmp_path, made, monkeypatch, size):
    monkeypatch.setattr(module, "_DAYS_BYTES", size)
    # The last day of a common year stands for two, which may lie in two pieces.
    source, expected = counting(), set(years(2000, 2001).tolist())

    make_climatology(plan_climatology(source, years(2000, 2001)), tmp_path / "c", run_serially)

    assert {time for _, time in source.asked} == expected
    assert len(source.asked) - len(expected) == (0 if size > 300 else 2)
    xr.testing.assert_equal(
        xr.open_zarr(tmp_path / "c", chunks=None)[SURFACE], xr.open_zarr(made, chunks=None)[SURFACE]
    )


def test_a_climatology_that_was_stopped_is_not_published_and_goes_on_where_it_was(tmp_path, made):
    path, times = tmp_path / "c", years(2000, 2001)

    def one(function, pieces):
        function(*pieces[0])
        return [None]

    with pytest.raises(EvaluationError, match="was stopped after 1 of 12; run the command again"):
        make_climatology(plan_climatology(counting(), times), path, one)
    assert not path.exists()

    source = counting()
    make_climatology(plan_climatology(source, times), path, run_serially)

    assert 0 < len(source.asked) < times.size
    xr.testing.assert_equal(xr.open_zarr(path, chunks=None)[SURFACE], xr.open_zarr(made, chunks=None)[SURFACE])
    assert [left.name for left in tmp_path.iterdir()] == ["c"]


def test_what_was_begun_of_other_times_is_not_taken_up(tmp_path):
    path = tmp_path / "c"
    with pytest.raises(EvaluationError, match="was stopped after"):
        make_climatology(plan_climatology(counting(), years(2000, 2000)), path, lambda function, pieces: [])

    source = counting()
    make_climatology(plan_climatology(source, years(2001, 2001)), path, run_serially)

    assert xr.open_zarr(path, chunks=None).attrs["period"] == "2001-01-01T00 to 2001-12-31T12"
    assert len(source.asked) == years(2001, 2001).size


def rain(times):
    """Dry at first in four of ten times everywhere, and less at the last point in which it never rains."""
    values = np.stack([np.random.default_rng(day).gamma(0.5, 4e-3, (3, 4)) for day in range(times.size)])
    values[..., -1, -1] = 1e-5
    return values.astype(np.float32)


class RainyPlanet:
    def fields(self, names, times, grid, levels):
        stamps = years(2000, 2001).tolist()
        values = rain(years(2000, 2001))[[stamps.index(time) for time in np.asarray(times).tolist()]]
        coords = {"time": times, "latitude": grid.latitude, "longitude": grid.longitude}
        return xr.Dataset(dict.fromkeys(names, (("time", "latitude", "longitude"), values)), coords)


def test_what_seeps_needs_of_precipitation_is_what_xarray_finds_in_the_window(tmp_path):
    source, name = SyntheticArchive(RainyPlanet(), RESOLUTION, LEVELS), "total_precipitation_6hr"
    source.dims = {name: source.dims[name]}
    make_climatology(plan_climatology(source, years(2000, 2001)), tmp_path / "c", run_serially)

    for hour, day in ((0, 1), (12, 250)):
        which, weights = window(hour, day)
        values = xr.DataArray(rain(years(2000, 2001))[which].astype(float), dims=("time", "latitude", "longitude"))
        wet, of_time = values.where(values >= np.float32(0.1e-3)), xr.DataArray(weights, dims="time")
        found = xr.open_zarr(tmp_path / "c", chunks=None).sel(hour=hour, dayofyear=day)
        dry, heavy = wet.isnull().weighted(of_time).mean("time"), wet.weighted(of_time).quantile(2 / 3, dim="time")
        np.testing.assert_allclose(found[f"{name}_seeps_dry_fraction"], dry, rtol=1e-6)
        np.testing.assert_allclose(found[f"{name}_seeps_threshold"], heavy, rtol=1e-5)
        assert np.isnan(found[f"{name}_seeps_threshold"][-1, -1])


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 5)), min_size=1, max_size=20), st.floats(0, 1))
def test_a_quantile_of_weighted_values_is_that_of_xarray(pairs, share):
    values, weights = np.array(sorted(pairs)).T

    found = weighted_quantile(values[np.newaxis], weights[np.newaxis], share)

    expected = xr.DataArray(values, dims="x").weighted(xr.DataArray(weights, dims="x")).quantile(share).item()
    assert found[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def usual_wave(path):
    """The mean of the traveling wave, which is 0, but for its level, as a file of another program would have it."""
    grid = truth().grid
    shifts = np.array([0.0, 3500.0])
    shape = (4, 366, grid.longitude.size, grid.latitude.size)
    flipped = {"latitude": grid.latitude[::-1], "longitude": grid.longitude}
    coords = {"hour": [0, 6, 12, 18], "dayofyear": np.arange(1, 367), "level": [500, 850], **flipped}
    dims = ("hour", "dayofyear", "longitude", "latitude")
    fields = {
        name: (dims, np.zeros(shape, np.float32)) for name in ("10m_u_component_of_wind", "10m_v_component_of_wind")
    }
    levels = np.broadcast_to(shifts[:, None, None, None, None], (2, *shape)).astype(np.float32)
    fields["temperature"] = (("level", *dims), levels)
    xr.Dataset(fields, coords).to_zarr(path, zarr_format=2)
    return path


def test_anomalies_of_a_wave_that_is_late_correlate_as_its_angle_says(tmp_path):
    """Two waves of one length an angle apart correlate with its cosine; each has the activity A / sqrt(2)."""
    store = stored(tmp_path / "s", cases(2), lambda name, hours, values: np.roll(values, 1, axis=-1))
    usual = Climatology(usual_wave(tmp_path / "usual.zarr"), store.kept)
    scoring = scoring_of(ScoresConfig(regions=("global", "tropics")), store, truth(), usual)
    found = lay_out(store, "forecast", scoring, {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)

    values = average(read(store.path)).values["temperature"]

    np.testing.assert_allclose(values.sel(metric="acc"), np.cos(np.deg2rad(30)), rtol=1e-4)
    np.testing.assert_allclose(values.sel(metric="forecast_activity"), 3 / np.sqrt(2), rtol=1e-4)
    np.testing.assert_allclose(values.sel(metric="truth_activity"), 3 / np.sqrt(2), rtol=1e-4)


def test_the_climatology_as_a_forecast_has_the_activity_of_the_weather_as_its_error(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values)
    usual = Climatology(usual_wave(tmp_path / "usual.zarr"), store.kept)
    scoring = scoring_of(ScoresConfig(regions=("global",)), store, truth(), usual, ClimatologyForecast(usual))
    found = lay_out(store, "climatology", scoring, {})
    score_stored(found.path, found.name, found.scoring, found.left[0])

    result = average(read(store.path, "climatology"))

    np.testing.assert_allclose(result.values["temperature"].sel(metric="rmse"), 3 / np.sqrt(2), rtol=1e-4)
    assert np.isnan(result.values["temperature"].sel(metric="acc")).all()
    assert (result.counts["temperature"].sel(metric="acc") == 0).all()
    assert (result.counts["temperature"].sel(metric="rmse") == 1).all()


def test_a_climatology_that_does_not_fit_is_refused(tmp_path, made):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values)
    opened = xr.open_zarr(usual_wave(tmp_path / "usual.zarr"), chunks=None).load()

    with pytest.raises(EvaluationError, match=r"the climatology .* must be on the grid of the forecasts, 19 x 36"):
        scoring_of(ScoresConfig(), store, truth(), Climatology(made, store.kept))

    def refused(name, dataset, match):
        dataset.to_zarr(tmp_path / name, zarr_format=2, mode="w")
        usual = Climatology(tmp_path / name, store.kept)
        with pytest.raises(EvaluationError, match=match):
            scoring_of(ScoresConfig(), store, truth(), usual)

    refused("dry.zarr", opened.drop_vars("temperature"), "must hold temperature, but has 10m_u_component_of_wind")
    refused("low.zarr", opened.isel(level=[1]), r"must hold the levels \[500\] hPa, but has \[850\] hPa; .*--levels")
    refused("short.zarr", opened.isel(dayofyear=slice(365)), "must have all 366 days of the year, but has 365")
    refused("other.zarr", opened.rename(dayofyear="day"), "must be a climatology over hour, dayofyear")
    opened.isel(hour=[0, 2]).to_zarr(tmp_path / "half.zarr", zarr_format=2)
    usual = Climatology(tmp_path / "half.zarr", store.kept)
    with pytest.raises(EvaluationError, match=r"but lacks \[6, 18\] and has \[0, 12\]"):
        usual.fields(["temperature"], np.array(["2020-01-01T06", "2020-01-01T18"], "datetime64[ns]"), [500])


@pytest.mark.parametrize("absent", ["dry_fraction", "threshold"])
def test_precipitation_has_no_seeps_where_the_climatology_lacks_what_it_needs(tmp_path, absent):
    rain = "total_precipitation_6hr"
    names = (("10m_u_component_of_wind", False), (rain, False))
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values, variables=names)
    opened = xr.open_zarr(usual_wave(tmp_path / "usual.zarr"), chunks=None).load()
    like = opened["10m_u_component_of_wind"]
    parts = {f"{rain}_seeps_{kind}": like for kind in ("dry_fraction", "threshold") if kind != absent}
    opened.assign({rain: like, **parts}).to_zarr(tmp_path / "c.zarr", zarr_format=2)
    usual = Climatology(tmp_path / "c.zarr", store.kept)

    scoring = scoring_of(ScoresConfig(), store, truth(), usual)
    assert rain in dict(scoring.on_levels)
    assert scoring.seeps_variables == ()


def test_scores_against_a_climatology_that_was_made_anew_are_not_mixed_in(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values)
    path = usual_wave(tmp_path / "usual.zarr")
    truth_is = {"kind": "synthetic", "resolution": 10}
    config = config_for(store.path, truth=truth_is, climatology=path)
    digest = evaluations(config)[0].scoring.climatology.identity
    assert evaluations(config)[0].scoring.climatology.identity == digest

    opened = xr.open_zarr(path, chunks=None).load()
    (opened + np.float32(1)).to_zarr(path, mode="w", zarr_format=2)

    with pytest.raises(StoreMismatchError, match=rf"climatology: there {re.escape(digest)}, now .*sha256"):
        evaluations(config)


def test_the_baseline_climatology_asks_for_one(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values)
    config = config_for(store.path, truth={"kind": "synthetic", "resolution": 10})

    with pytest.raises(EvaluationError, match=r"needs scores\.climatology, but none is given"):
        evaluations(config, ["climatology"])


def test_precipitation_has_seeps_where_the_climatology_says_what_is_heavy_and_other_variables_have_none(tmp_path):
    """Half of the times are dry in the west, and all in the east, which does not count: no rain is forecast for it."""
    rain, grid = "total_precipitation_6hr", truth().grid
    west = np.broadcast_to(grid.longitude < 180, grid.shape)
    names = (("10m_u_component_of_wind", False), (rain, False))
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: 0 * values, variables=names)
    opened = xr.open_zarr(usual_wave(tmp_path / "usual.zarr"), chunks=None).load()
    like = opened["10m_u_component_of_wind"]
    of_place = xr.DataArray(np.where(west, 0.5, 1.0).astype(np.float32), dims=("latitude", "longitude"))
    dry = of_place.assign_coords(latitude=grid.latitude, longitude=grid.longitude) + 0 * like
    opened = opened.assign({rain: like, f"{rain}_seeps_dry_fraction": dry, f"{rain}_seeps_threshold": like + 1})
    opened.to_zarr(tmp_path / "rain.zarr", zarr_format=2)
    usual = Climatology(tmp_path / "rain.zarr", store.kept)
    found = lay_out(store, "forecast", scoring_of(ScoresConfig(regions=("global",)), store, truth(), usual), {})
    score_stored(found.path, found.name, found.scoring, found.left[0])

    values = average(read(store.path)).values.sel(metric="seeps", region="global")

    # The wave in the west: dry is right, below 1 is light, which errs by 1, and above it is heavy, which errs by 4.
    waves = truth().fields([rain], found.left[0].init_time + 6 * np.arange(1, 5) * np.timedelta64(1, "h"), ())
    true = waves[rain].values[:, 0, grid.longitude < 180]
    expected = np.select([true < 0.1e-3, true < 1], [0, 1], 4).mean(axis=1)
    np.testing.assert_allclose(values[rain], expected, rtol=1e-6)
    assert np.isnan(values["10m_u_component_of_wind"]).all()
    listed = {row["variable"] for row in records(average(read(store.path))) if row["metric"] == "seeps"}
    assert listed == {rain}
