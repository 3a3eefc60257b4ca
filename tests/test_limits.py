"""The limits hold the standard atmosphere, the records of the weather and the published statistics, and little else."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.quality.limits import forecast_limits, least_peak, limits
from graphcast_batch.models.forcings import forcing
from graphcast_batch.variables import LEVELS_37, VARIABLES

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "stats_era5_levels-37"
ON_LEVELS = [variable.name for variable in VARIABLES.values() if variable.kind == "level"]
SUN = "toa_incident_solar_radiation"


def within(value, name, level=None):
    low, high = limits(name, level)
    return low <= value <= high


@pytest.mark.parametrize("name", VARIABLES)
def test_every_published_variable_has_limits_on_every_level(name):
    levels = LEVELS_37 if name in ON_LEVELS else (None,)
    assert all(low < high for low, high in (limits(name, level) for level in levels))


@pytest.mark.parametrize(
    ("level", "height"),
    # US Standard Atmosphere 1976, table I: geopotential height of pressures, one or more in each of its layers.
    [(1000, 110.9), (850, 1457), (500, 5574), (300, 9164), (100, 16180), (50, 20576), (10, 31055), (1, 47820)],
)
def test_geopotential_is_centered_on_the_standard_atmosphere(level, height):
    assert sum(limits("geopotential", level)) / 2 / 9.80665 == pytest.approx(height, abs=1)


@pytest.mark.parametrize(
    ("name", "level", "value"),
    [
        ("2m_temperature", None, 273.15 - 89.2),  # Vostok 1983, WMO archive of extremes; so the next three
        ("2m_temperature", None, 273.15 + 56.7),  # Furnace Creek 1913
        ("mean_sea_level_pressure", None, 87000),  # typhoon Tip 1979
        ("mean_sea_level_pressure", None, 108380),  # Agata 1968
        ("mean_sea_level_pressure", None, 108940),  # Tosontsengel 2004, reduced from 1725 m
        ("total_precipitation_6hr", None, 1.144),  # in 12 h: Foc-Foc 1966
        ("temperature", 600, 273.15 - 89.2),  # the pressure of Vostok
        ("temperature", 100, 180),  # over the Warm Pool
        ("temperature", 10, 290),  # sudden warmings
        ("specific_humidity", 200, -5.2e-6),  # ERA5, forum.ecmwf.int topic 2028
        ("specific_humidity", 1000, 0.030),  # saturated at 32 °C
        ("u_component_of_wind", 250, 120),  # jet streams
        ("u_component_of_wind", 1, 200),  # the polar night's jet
        ("10m_u_component_of_wind", None, -96),  # Patricia 2015
        ("geopotential_at_surface", None, 9.80665 * 8849),  # Everest
        ("geopotential_at_surface", None, 9.80665 * -430),  # Dead Sea
    ],
)
def test_extremes_of_the_earth_lie_within(name, level, value):
    assert within(value, name, level)


@pytest.mark.parametrize(
    ("name", "level", "value"),
    [
        *(("temperature", level, 60) for level in LEVELS_37),  # warmer than any °C
        ("2m_temperature", None, 57),
        ("mean_sea_level_pressure", None, 1085),
        ("geopotential", 500, 6000),  # m
        ("specific_humidity", 850, 1),  # g/kg of dry air there
        ("specific_humidity", 50, 2e-3),  # g/kg of the stratosphere
        ("u_component_of_wind", 500, 200),
        ("vertical_velocity", 500, 1000),
        ("vertical_velocity", 1, 1),
        ("land_sea_mask", None, 100),
        ("year_progress_sin", None, 2),
        (SUN, None, 1361 * 6 * 3600),  # a sum over 6 h
    ],
)
def test_values_in_wrong_units_lie_outside(name, level, value):
    assert not within(value, name, level)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published statistics are not at {PUBLISHED}")
@pytest.mark.parametrize("name", [*ON_LEVELS, *(v.name for v in VARIABLES.values() if v.kind == "surface")])
def test_three_standard_deviations_around_the_published_means_lie_within(name):
    mean, stddev = (xr.open_dataset(PUBLISHED / f"{kind}_by_level.nc")[name] for kind in ("mean", "stddev"))
    assert mean.sizes.get("level", 1) == (37 if name in ON_LEVELS else 1)
    skewed = name in ("specific_humidity", "total_precipitation_6hr")  # never negative
    for place in mean["level"].values if name in ON_LEVELS else [None]:
        here = {} if place is None else {"level": place}
        middle, spread = float(mean.sel(here)), float(stddev.sel(here))
        assert within(middle if skewed else middle - 3 * spread, name, place)
        assert within(middle + 3 * spread, name, place)


@given(st.sampled_from(ON_LEVELS), st.floats(1, 1000), st.floats(1, 1.001))
def test_limits_change_little_over_little_height(name, level, ratio):
    here, there = limits(name, level), limits(name, level * ratio)
    width = here[1] - here[0]
    assert np.abs(np.subtract(here, there)).max() <= 0.002 * width + abs(287.06 * 289 * np.log(ratio))


@pytest.mark.parametrize("name", ["temperature", "u_component_of_wind", "specific_humidity"])
def test_half_way_in_height_limits_are_half_way(name):
    np.testing.assert_allclose(limits(name, 10**0.5), np.add(limits(name, 1), limits(name, 10)) / 2)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_forecast_may_leave_the_limits_by_their_width_on_either_side(name):
    for level in LEVELS_37 if name in ON_LEVELS else (None,):
        (low, high), (lowest, highest) = limits(name, level), forecast_limits(name, level)
        assert highest - lowest == pytest.approx(3 * (high - low))
        assert (lowest + highest) / 2 == pytest.approx((low + high) / 2)


@pytest.mark.parametrize(
    ("name", "level", "value"),
    [  # what random weights reach on the synthetic planet in 8 steps, where that is beyond the limits of the Earth
        ("specific_humidity", 850, -0.0193),
        ("specific_humidity", 600, -0.0029),
        ("total_precipitation_6hr", None, -0.0169),
    ],
)
def test_a_forecast_may_hold_what_random_weights_drift_to(name, level, value):
    low, high = forecast_limits(name, level)
    assert not within(value, name, level)
    assert low <= value <= high


def test_what_is_not_known_has_no_limits():
    assert forecast_limits("ozone", 500) is None
    assert limits("ozone", 500) is None
    assert limits("sea_ice_cover") is None
    assert limits("temperature") is None
    assert limits("temperature", 50000) is None  # Pa
    assert limits("temperature", 0) is None
    assert least_peak("temperature") is None


@given(st.datetimes().filter(lambda time: 1950 <= time.year <= 2035), st.sampled_from([30, 15]))
def test_the_sun_always_stands_high_somewhere_and_never_shines_beyond_the_limit(time, degrees):
    grid = regular_grid(degrees)
    hour = np.asarray([np.datetime64(time, "h")])
    shine = forcing(SUN, hour, grid.latitude, grid.longitude)
    assert least_peak(SUN) < shine.max() <= limits(SUN)[1]
    assert shine.max() / 3600 < least_peak(SUN)


def test_mountains_in_meters_never_reach_the_peak_of_geopotential_and_antarctica_does():
    assert 8849 < least_peak("geopotential_at_surface") < 9.80665 * 2800  # m of Everest and of the South Pole
