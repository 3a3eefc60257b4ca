import numpy as np
import pandas as pd
import pytest
import xarray as xr

from graphcast_batch.config import Scores as Wanted
from graphcast_batch.errors import EvaluationError, StoreError
from graphcast_batch.evaluation.baselines import Climatological
from graphcast_batch.evaluation.climatology import Climatology, make_climatology
from graphcast_batch.evaluation.results import average, read
from graphcast_batch.evaluation.stored import evaluations, lay_out, score_stored, scoring_of
from graphcast_batch.inputs.archive import SyntheticArchive
from graphcast_batch.inputs.statistics import in_this_process
from tests.evaluation.made import LEVELS, cases, config_for, stored, truth

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
    make_climatology(noisy(), path, years(2000, 2001), in_this_process)
    return path


def by_definition(hour, day):
    """Mean and standard deviation of the temperature at one day of the year, with pandas, time by time."""
    stamps = years(2000, 2001)
    values = NoisyPlanet().fields(["temperature"], stamps, noisy().grid, LEVELS)["temperature"].values.astype(float)
    index = pd.DatetimeIndex(stamps)
    pairs = [(number, n) for n, number in enumerate(index.day_of_year) if index.hour[n] == hour]
    pairs += [
        (366, n) for n in range(len(index)) if (index.year[n], index.day_of_year[n], index.hour[n]) == (2001, 365, hour)
    ]
    apart = [min(abs(number - day), 366 - abs(number - day)) for number, _ in pairs]
    weights = np.maximum(0, 1 - np.array(apart) / 30)
    chosen = values[[n for _, n in pairs]]
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
        make_climatology(noisy(), tmp_path / "c", years(2000, 2000)[:180], in_this_process)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_replaced(made):
    with pytest.raises(StoreError, match="must not exist yet"):
        make_climatology(noisy(), made, years(2000, 2000), in_this_process)


def test_a_climatology_that_was_stopped_is_not_published(tmp_path):
    with pytest.raises(EvaluationError, match="was stopped after 1; run it again"):
        make_climatology(noisy(), tmp_path / "c", years(2000, 2000), lambda function, pieces: [None])
    assert not (tmp_path / "c").exists()


def usual_wave(path):
    """The mean of the travelling wave, which is 0, but for its level, as a file of another program would have it."""
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
    scoring = scoring_of(Wanted(regions=("global", "tropics")), store, truth(), usual)
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
    scoring = scoring_of(Wanted(regions=("global",)), store, truth(), usual, Climatological(usual))
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
        scoring_of(Wanted(), store, truth(), Climatology(made, store.kept))

    def refused(name, dataset, match):
        dataset.to_zarr(tmp_path / name, zarr_format=2, mode="w")
        usual = Climatology(tmp_path / name, store.kept)
        with pytest.raises(EvaluationError, match=match):
            scoring_of(Wanted(), store, truth(), usual)

    refused("dry.zarr", opened.drop_vars("temperature"), "must hold temperature, but has 10m_u_component_of_wind")
    refused("low.zarr", opened.isel(level=[1]), r"must hold the levels \[500\] hPa")
    refused("short.zarr", opened.isel(dayofyear=slice(365)), "must have all 366 days of the year, but has 365")
    refused("other.zarr", opened.rename(dayofyear="day"), "must be a climatology over hour, dayofyear")
    opened.isel(hour=[0, 2]).to_zarr(tmp_path / "half.zarr", zarr_format=2)
    usual = Climatology(tmp_path / "half.zarr", store.kept)
    with pytest.raises(EvaluationError, match=r"but lacks \[6, 18\] and has \[0, 12\]"):
        usual.fields(["temperature"], np.array(["2020-01-01T06", "2020-01-01T18"], "datetime64[ns]"), [500])


def test_the_baseline_climatology_asks_for_one(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values)
    config = config_for(store.path, truth={"kind": "synthetic", "resolution": 10})

    with pytest.raises(EvaluationError, match=r"needs scores\.climatology, but none is given"):
        evaluations(config, ["climatology"])
