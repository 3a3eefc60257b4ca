from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.baselines import Persistence
from graphcast_batch.evaluation.case_scoring import score_case
from graphcast_batch.evaluation.derived import (
    DERIVATIONS,
    DerivedForecasts,
    DerivedTimeline,
    derivable,
    saturation_pressure,
    steps_of_parts,
)
from graphcast_batch.evaluation.store_scoring import scoring_of
from graphcast_batch.grid import regular_grid
from graphcast_batch.plan import Case
from graphcast_batch.timing import Stopwatch
from tests.evaluation.made import START, cases, stored, truth

GRID = regular_grid(90)
HOUR = np.timedelta64(1, "h")
TIMES = START.astype("datetime64[ns]") + 6 * HOUR * np.arange(8)
LEVELS = (500, 1000)
SURFACE, LEVELLED = ("time", "latitude", "longitude"), ("time", "level", "latitude", "longitude")


class Held:
    """Random fields at eight times; the seventh is missing."""

    origin, grid, levels, times = "held", GRID, LEVELS, np.delete(TIMES, 6)

    def __init__(self):
        random = np.random.default_rng(0)
        parts = {part: recipe.levelled for recipe in DERIVATIONS.values() for part in recipe.parts}
        self.dims = {name: LEVELLED if levelled else SURFACE for name, levelled in parts.items()}
        sizes = {"time": 8, "level": 2, "latitude": GRID.shape[0], "longitude": GRID.shape[1]}
        shapes = {name: [sizes[dim] for dim in dims] for name, dims in self.dims.items()}
        values = {name: (self.dims[name], random.random(shape, np.float32)) for name, shape in shapes.items()}
        coords = {"time": TIMES, "level": list(LEVELS), "latitude": GRID.latitude, "longitude": GRID.longitude}
        self.all = xr.Dataset(values, coords)
        self.all["temperature"] = 230 + 80 * self.all["temperature"]
        self.all["specific_humidity"] = 0.02 * self.all["specific_humidity"]

    def times_of(self, names):
        return self.times

    def fields(self, names, times, levels):
        assert np.isin(times, self.times).all()
        chosen = self.all[list(names)].sel(time=times)
        return chosen.sel(level=list(levels)) if levels else chosen


def made(names, times, levels=LEVELS):
    return DerivedTimeline(Held(), tuple(DERIVATIONS)).fields(names, times, levels)


def test_saturation_over_water_is_that_of_the_handbook():
    """Over water in hPa, from the Smithsonian Meteorological Tables (List 1951, table 94)."""
    np.testing.assert_allclose(saturation_pressure(np.array([283.15, 303.15])) / 100, [12.27, 42.43], rtol=2e-3)


def test_saturation_is_over_water_below_freezing_too():
    """The same, at -20 and -30 degrees Celsius; Bolton's formula is within 0.3 % down to -35."""
    np.testing.assert_allclose(saturation_pressure(np.array([253.15, 243.15])) / 100, [1.2540, 0.5088], rtol=3.5e-3)


def test_air_is_saturated_where_its_vapour_has_the_saturation_pressure():
    """From the mixing ratio of saturated air, by the definition of humidity; the ratio is 0.622 for this purpose."""
    held = Held()
    pressure = 100.0 * np.array(LEVELS)[:, None, None]
    vapour = saturation_pressure(held.all["temperature"].values)
    mixing = 0.62198 * vapour / (pressure - vapour)
    held.all["specific_humidity"] = LEVELLED, (mixing / (1 + mixing)).astype(np.float32)

    found = DerivedTimeline(held, ("relative_humidity",)).fields(["relative_humidity"], TIMES[:2], LEVELS)

    np.testing.assert_allclose(found["relative_humidity"], 1, rtol=1e-4)


def test_speed_and_height_are_what_they_are_by_definition():
    held = Held().all.isel(time=slice(2))

    found = made(["wind_speed", "10m_wind_speed", "geopotential_height"], TIMES[:2])

    speed = (held["u_component_of_wind"] ** 2 + held["v_component_of_wind"] ** 2) ** 0.5
    np.testing.assert_allclose(found["wind_speed"], speed, rtol=1e-6)
    speed = (held["10m_u_component_of_wind"] ** 2 + held["10m_v_component_of_wind"] ** 2) ** 0.5
    np.testing.assert_allclose(found["10m_wind_speed"], speed, rtol=1e-6)
    np.testing.assert_allclose(found["geopotential_height"] * 9.80665, held["geopotential"], rtol=1e-6)


def test_what_is_asked_for_beside_derived_variables_is_there_alone_with_them():
    found = made(["temperature", "wind_speed", "u_component_of_wind"], TIMES[:1])

    assert set(found) == {"temperature", "wind_speed", "u_component_of_wind"}
    assert {name: found[name].dims for name in found} == dict.fromkeys(found, LEVELLED)
    assert all(found[name].dtype == np.float32 for name in found)


def test_the_rain_of_a_day_is_the_sum_of_its_four_parts_where_all_are_held():
    timeline = DerivedTimeline(Held(), ("total_precipitation_24hr",))

    assert timeline.times_of(["total_precipitation_24hr"]).tolist() == TIMES[3:6].tolist()
    assert timeline.times_of(["total_precipitation_24hr", "temperature"]).tolist() == TIMES[3:6].tolist()
    found = timeline.fields(["total_precipitation_24hr"], TIMES[3:6], ())["total_precipitation_24hr"].values
    rain = Held().all["total_precipitation_6hr"].values
    np.testing.assert_allclose(found, [rain[n : n + 4].sum(axis=0) for n in range(3)], rtol=1e-6)


@pytest.mark.parametrize("step_hours", [3, 6])
def test_forecasts_have_the_rain_of_a_day_from_the_lead_times_before(step_hours):
    class PrecipitationClimatology:
        def fields(self, case, names, lead_hours, levels):
            return {name: np.array(lead_hours, np.float32)[:, None, None] for name in names}

    case = Case(START, 48 // step_hours, step_hours)
    forecasts = DerivedForecasts(PrecipitationClimatology(), ("total_precipitation_24hr",))

    found = forecasts.fields(case, ["total_precipitation_24hr"], [24, 48], ())["total_precipitation_24hr"]

    assert found.ravel().tolist() == [6 + 12 + 18 + 24, 30 + 36 + 42 + 48]


@pytest.mark.parametrize(("step_hours", "first"), [(3, 21), (6, 24), (12, None)])
def test_the_rain_of_a_day_is_forecast_where_its_four_parts_are_whatever_the_step(tmp_path, step_hours, first):
    rain = "total_precipitation_6hr"
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values, variables=((rain, False),))
    day = ("total_precipitation_24hr", False)
    leads = tuple(range(step_hours, 49, step_hours))
    scoring = replace(scoring_of(ScoresConfig(), store, truth()), on_levels=(day,), steps={day[0]: 4}, lead_hours=leads)

    there = scoring.forecast(Case(START, len(leads), step_hours))[day[0]]

    assert np.array(leads)[there].tolist() == ([] if first is None else list(range(first, 49, step_hours)))


def test_what_cannot_be_made_is_refused_by_what_it_lacks():
    held = {"u_component_of_wind": True, "10m_u_component_of_wind": True, "10m_v_component_of_wind": False}

    with pytest.raises(EvaluationError, match=r"must be some of wind_speed, .* but vorticity is not"):
        derivable(["vorticity"], held, "it")
    with pytest.raises(
        EvaluationError, match=r"wind_speed is derived from .*, but it lacks v_component_of_wind; leave"
    ):
        derivable(["wind_speed"], held, "it")
    with pytest.raises(EvaluationError, match="but it lacks 10m_u_component_of_wind"):
        derivable(["10m_wind_speed"], held, "it")
    assert derivable(["wind_speed"], {"wind_speed": True}, "it") == {}


def test_what_derived_variables_are_made_of_is_needed_for_as_many_times_as_go_into_them():
    assert steps_of_parts(("wind_speed", "total_precipitation_24hr")) == {
        "u_component_of_wind": 1,
        "v_component_of_wind": 1,
        "total_precipitation_6hr": 4,
    }


RAIN = (("10m_u_component_of_wind", False), ("10m_v_component_of_wind", False), ("total_precipitation_6hr", False))


def scored_rain(path, change, forecasts=None):
    store = stored(path, cases(1, steps=6), change, variables=RAIN)
    wanted = ScoresConfig(regions=("global",), derived=("10m_wind_speed", "total_precipitation_24hr"))
    scoring = scoring_of(wanted, store, truth(), forecasts=forecasts)
    return scoring, {name: found.means for name, found in score_case(scoring, cases(1, 6)[0], Stopwatch()).items()}


def test_derived_variables_are_scored_beside_those_of_the_store(tmp_path):
    """Both components are one wave, so that the speed is sqrt(2) of its size; doubled, its error is its size."""
    scoring, found = scored_rain(tmp_path / "s", lambda name, hours, values: 2 * values)

    assert dict(scoring.on_levels)["10m_wind_speed"] is False
    square = found["10m_u_component_of_wind"][1] + found["10m_v_component_of_wind"][1]
    np.testing.assert_allclose(found["10m_wind_speed"][1], square, rtol=1e-6)


def test_the_rain_of_a_day_has_scores_from_the_first_whole_day_on(tmp_path):
    scoring, found = scored_rain(tmp_path / "s", lambda name, hours, values: values + hours)

    bias = found["total_precipitation_24hr"][0, :, 0]
    assert np.isnan(bias[:3]).all()
    np.testing.assert_allclose(bias[3:], [6 + 12 + 18 + 24, 12 + 18 + 24 + 30, 18 + 24 + 30 + 36], rtol=1e-5)
    there = scoring.held(cases(1, 6)[0], scoring.times())["total_precipitation_24hr"]
    assert there.tolist() == [False] * 3 + [True] * 3
    assert scoring.forecast(cases(1, 6)[0])["total_precipitation_24hr"].tolist() == there.tolist()


def test_persistence_has_the_rain_of_the_day_before(tmp_path):
    source = DerivedTimeline(truth(), ("total_precipitation_24hr", "10m_wind_speed"))
    scoring, _ = scored_rain(tmp_path / "a", lambda name, hours, values: values)

    found = Persistence(source, scoring.part).fields(cases(1)[0], ["total_precipitation_24hr"], [24, 30], ())

    before = truth().fields(["total_precipitation_6hr"], START.astype("datetime64[ns]") - 6 * HOUR * np.arange(4), ())
    expected = before["total_precipitation_6hr"].sum("time").values
    for rain in found["total_precipitation_24hr"]:
        np.testing.assert_allclose(rain, expected, rtol=1e-5, atol=1e-5)
