"""Forcings against a reference integrated elsewhere, against brute force and against what must hold anywhere."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.errors import TaskError
from graphcast_batch.grid import cell_area
from graphcast_batch.models.forcings import FORCINGS, day_progress, forcing, solar_radiation, year_progress
from graphcast_batch.variables import VARIABLES

LATITUDE = np.linspace(-90, 90, 61)
LONGITUDE = np.arange(0, 360, 5.0)
FIRST, LAST = (int(np.datetime64(day, "s").astype(np.int64)) for day in ("1940-01-01", "2100-12-31"))


@pytest.fixture(scope="module")
def reference():
    """Made in float64 with 3600 sub-steps of the hour, by another program."""
    return xr.load_dataset(Path(__file__).parents[1] / "reference" / "forcings_reference.nc")


def hours_of(day):
    """The ends of a day's 24 hours."""
    return np.datetime64(day, "h") + np.arange(1, 25)


def brute_force(time, latitude, longitude, substeps=720):
    """Mean of the flux over sub-steps of the hour, every one with its own declination, distance and hour angle."""
    seconds = (np.arange(substeps) + 0.5) / substeps * 3600 - 3600
    n = (np.datetime64(time, "s") - np.datetime64("2000-01-01T12:00:00")).astype(np.float64) + seconds
    n /= 86400
    t = n / 365.25
    anomaly, obliquity = 1.7535 + 6.283076 * t, 0.409093
    ecliptic = 4.8952 + 6.28332 * t - 0.0075 * np.sin(anomaly) - 0.0326 * np.cos(anomaly)
    ecliptic = ecliptic - 0.0003 * np.sin(2 * anomaly) + 0.0002 * np.cos(2 * anomaly)
    declination = np.arcsin(np.sin(obliquity) * np.sin(ecliptic))
    m, y = 6.240041 + 6.28302 * t, 2 * (4.8951 + 6.283076 * t)
    late = 591.8 * np.sin(y) - 459.4 * np.sin(m) + 39.5 * np.sin(m) * np.cos(y) - 12.7 * np.sin(2 * y)
    late = late - 4.8 * np.sin(2 * m)
    distance = 1.0001 - 0.0163 * np.sin(anomaly) + 0.0037 * np.cos(anomaly)
    angle = 2 * np.pi * (n + late / 86400) + np.deg2rad(longitude)
    phi = np.deg2rad(latitude)
    altitude = np.cos(phi) * np.cos(declination) * np.cos(angle) + np.sin(phi) * np.sin(declination)
    return np.mean(np.maximum(altitude, 0) / distance**2) * 3600


def irradiance(time):
    """The sun's irradiance at one astronomical unit, by its effect on a point of the equator near noon."""
    ends = np.array([time], "datetime64[h]")
    noon = 360 * (0.5 - day_progress(ends, np.array([0.0]))[0])
    return solar_radiation(ends, np.array([0.0]), noon)[0, 0, 0] / brute_force(time, 0.0, noon[0])


def test_progress_of_the_year_and_the_day_agree_with_the_reference(reference):
    times = reference["time"].values
    np.testing.assert_allclose(year_progress(times), reference["year_progress"], atol=1e-6)
    np.testing.assert_allclose(day_progress(times, reference["lon"].values), reference["day_progress"], atol=1e-6)


def test_radiation_agrees_with_the_reference_at_every_point(reference):
    expected = reference["toa_incident_solar_radiation"].values
    found = solar_radiation(*(reference[name].values for name in ("time", "lat", "lon")))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-5 * expected.max())


@pytest.mark.parametrize("day", ["1999-12-21", "2020-03-20", "2020-06-20"])
@pytest.mark.parametrize(("latitude", "longitude"), [(-90, 0), (-67, 180.1), (0, 359.9), (23.4, 0), (66, 77), (89, 5)])
def test_a_day_of_hours_agrees_with_brute_force(day, latitude, longitude):
    times = hours_of(day)
    found = solar_radiation(times, np.array([latitude]), np.array([longitude]))[:, 0, 0]
    # 1996-2008 repeats, so 1999 and 2020 differ by the solar cycle alone; either way the mean is 0.9965 * 1366.
    expected = irradiance(times[12]) * np.array([brute_force(time, latitude, longitude) for time in times])
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5 * 5.1e6)


def test_the_hour_that_holds_both_sunset_and_sunrise_counts_both():
    time, latitude = np.datetime64("2020-06-20T00", "m") + 32, 66.5  # the sun dips for minutes about midnight
    below = [brute_force(time - np.timedelta64(m, "m"), latitude, 0.0, substeps=1) == 0 for m in range(-30, 31)]
    assert any(below)
    assert not below[0]
    assert not below[-1]
    found = solar_radiation(np.array([time]), np.array([latitude]), np.array([0.0]))[0, 0, 0]
    assert found == pytest.approx(irradiance(time) * brute_force(time, latitude, 0.0, 36000), abs=50)


def test_polar_night_and_any_night_are_exactly_zero():
    winter = solar_radiation(hours_of("2020-12-21"), np.linspace(68, 90, 12), LONGITUDE)
    assert not winter.any()
    night = solar_radiation(np.array(["2020-03-20T00"], "datetime64[h]"), LATITUDE[5:-5], np.linspace(-60, 60, 9))
    assert not night.any()


def test_a_pole_in_summer_has_the_same_sun_at_every_longitude_and_hour():
    summer = solar_radiation(hours_of("2020-06-20"), np.array([90.0]), LONGITUDE)
    assert np.ptp(summer) < 1e-4 * summer.max()


@pytest.mark.parametrize(("day", "distance"), [("2010-01-03", 0.98329), ("2010-07-06", 1.01670), ("2010-04-04", 1.0)])
def test_the_globe_receives_a_quarter_of_the_solar_irradiance(day, distance):
    # Distances in astronomical units at perihelion, aphelion and between: Astronomical Almanac for 2010.
    latitude = np.linspace(-90, 90, 721)
    daily = solar_radiation(hours_of(day), latitude, LONGITUDE).mean(axis=(0, 2), dtype=np.float64)
    mean = np.average(daily, weights=cell_area(latitude))
    assert mean == pytest.approx(0.9965 * 1365.78 / 4 / distance**2 * 3600, rel=1e-3)


def test_irradiance_is_linear_between_middles_of_years_and_constant_outside_the_table():
    assert irradiance("1997-07-02T12") == pytest.approx(0.9965 * 1365.7399, rel=1e-5)
    assert irradiance("1998-01-01T00") == pytest.approx(0.9965 * (1365.7399 + 1366.1021) / 2, rel=1e-5)
    assert irradiance("1940-06-01T12") == pytest.approx(0.9965 * 1365.7765, rel=1e-5)
    assert irradiance("2090-06-01T12") == pytest.approx(0.9965 * 1365.6918, rel=1e-5)


@given(
    seconds=st.integers(FIRST, LAST),
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 360),
)
def test_forcings_stay_in_their_range_at_any_date_and_point(seconds, latitude, longitude):
    times = np.array([seconds], "datetime64[s]")
    point = np.array([latitude]), np.array([longitude])
    radiation = solar_radiation(times, *point)
    assert np.isfinite(radiation).all()
    assert 0 <= radiation.min() <= radiation.max() < 1410 * 3600 * 1.01
    for progress in (year_progress(times), day_progress(times, point[1])):
        assert 0 <= progress.min() <= progress.max() < 1


@given(seconds=st.integers(FIRST, LAST), longitude=st.floats(0, 360))
def test_sunlight_is_periodic_in_longitude(seconds, longitude):
    times = np.array([seconds], "datetime64[s]")
    once, twice = (solar_radiation(times, LATITUDE, np.array([longitude + turn])) for turn in (0.0, 360.0))
    np.testing.assert_allclose(once, twice, rtol=0, atol=1)


def test_all_units_of_time_give_the_same_forcings():
    hours = np.array(["2020-02-29T06", "2021-12-31T18"], "datetime64[h]")
    nanoseconds = hours.astype("datetime64[ns]")
    for name in FORCINGS:
        one, other = (forcing(name, times, LATITUDE, LONGITUDE) for times in (hours, nanoseconds))
        np.testing.assert_array_equal(one, other)


def test_every_forcing_of_the_published_tasks_can_be_computed_with_its_dimensions():
    assert {variable.name for variable in VARIABLES.values() if variable.kind == "forcing"} == FORCINGS
    times = hours_of("2020-02-29")
    shapes = {name: forcing(name, times, LATITUDE, LONGITUDE).shape for name in FORCINGS}
    assert shapes == {
        "toa_incident_solar_radiation": (24, 61, 72),
        "day_progress_sin": (24, 72),
        "day_progress_cos": (24, 72),
        "year_progress_sin": (24,),
        "year_progress_cos": (24,),
    }


def test_features_are_sine_and_cosine_of_progress_in_float32():
    times = np.array(["1970-01-01T06", "2000-01-01T12"], "datetime64[h]")
    found = forcing("day_progress_sin", times, LATITUDE, np.array([0.0, 90.0, 180.0]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, 0, -1], [0, -1, 0]], atol=1e-6)
    turn = 2 * np.pi * 0.25 / 365.24219
    assert forcing("year_progress_cos", times, LATITUDE, LONGITUDE)[0] == pytest.approx(np.cos(turn), abs=1e-6)
    assert forcing("year_progress_sin", times, LATITUDE, LONGITUDE)[0] == pytest.approx(np.sin(turn), abs=1e-6)


def test_an_unknown_forcing_is_refused_with_those_that_can_be_computed():
    times = np.array(["2020-01-01"], "datetime64[h]")
    with pytest.raises(TaskError, match=r"sea_ice_cover cannot be computed, only day_progress_cos, .* in the inputs"):
        forcing("sea_ice_cover", times, LATITUDE, LONGITUDE)
