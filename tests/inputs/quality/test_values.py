"""Values that are too small are found as well as those that are too large, with the unit that was stated."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.quality.checks import find_faults
from graphcast_batch.inputs.quality.values import find_blank, find_fault
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.inputs.sources.volumes import Reading
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS
from graphcast_batch.variables import LEVELS_13, VARIABLES

RAIN, HUMIDITY, ASCENT = "total_precipitation_6hr", "specific_humidity", "vertical_velocity"
NAMES = [name for name, variable in VARIABLES.items() if variable.kind != "forcing"]
START = np.datetime64("2019-12-31T18", "ns")


def weather(degrees, start=START):
    times = start + np.arange(2) * np.timedelta64(6, "h")
    return SyntheticPlanet().fields(NAMES, times, regular_grid(degrees), LEVELS_13)


@pytest.fixture(scope="module")
def planet():
    return weather(10)


def faults_of(path, reading=None):
    archive, task = Archive(path, reading), TASKS["GraphCast_small"]
    return find_faults(archive.read(Case(np.datetime64("2020-01-01T00", "h"), 1, 6), task), task, archive.grid, 0)


@pytest.mark.parametrize("degrees", [5, 10, 15, 30])
@pytest.mark.parametrize("month", range(1, 13, 3))
def test_the_synthetic_planet_passes_on_fine_and_coarse_grids_in_every_season(degrees, month):
    fields = weather(degrees, np.datetime64(f"2020-{month:02}-05T03", "ns"))
    assert [fault for name in NAMES if (fault := find_fault(fields[name]))] == []


def test_a_real_analysis_passes_on_coarse_samples_of_its_points_too(shared_data):
    archive = Archive(shared_data / "gfs_2011-10-11T00_res-2.5_levels-13.nc")
    fields = archive.fields(NAMES, archive.times, archive.levels[1:])
    for every in (1, 2, 4, 6, 12):
        sample = fields.isel(latitude=slice(None, None, every), longitude=slice(None, None, every))
        assert [fault for name in NAMES if (fault := find_fault(sample[name]))] == []


@pytest.mark.parametrize(
    ("name", "unit", "ours"),
    [
        (RAIN, "kg m-2", "m"),
        (HUMIDITY, "g kg-1", "kg kg**-1"),
        ("geopotential", "gpm", "m**2 s**-2"),
        ("mean_sea_level_pressure", "hPa", "Pa"),
        ("2m_temperature", "degC", "K"),
    ],
)
def test_a_unit_that_was_stated_of_values_in_ours_is_named_and_the_remedy_works(tmp_path, planet, name, unit, ours):
    stale = planet.assign({name: planet[name].assign_attrs(units=unit)})
    stale.to_netcdf(tmp_path / "stale.nc", engine="netcdf4")

    (fault,) = faults_of(tmp_path / "stale.nc")

    assert f"after their conversion from {unit!r}, the unit that is stated" in fault.found
    assert fault.remedy == f"this looks like {ours}: give inputs.units {{{name}: {ours!r}}}, or convert it"
    assert faults_of(tmp_path / "stale.nc", Reading(units={name: ours})) == []


@pytest.mark.parametrize("time", [0, 1])
def test_rain_that_falls_nowhere_is_found_at_each_time(planet, time):
    rain = planet[RAIN].copy(deep=True)
    rain.values[time] = 0

    fault = find_fault(rain)

    assert fault.expected == "not be 0 everywhere"
    assert fault.time == planet["time"].values[time]
    assert find_blank(rain) == fault


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rain: rain / 6, "fields do not, and have"),  # of an hour
        (lambda rain: rain * 4, "fields do not, and have"),  # of a day
        (lambda rain: rain / 1000, "fields do not, and the lowest reaches"),
    ],
)
def test_rain_of_another_time_or_unit_is_found(planet, change, found):
    assert found in find_fault(change(planet[RAIN])).found


@pytest.mark.parametrize(("name", "level"), [(HUMIDITY, 300), (ASCENT, 300)])
def test_what_is_far_too_small_on_low_levels_is_found_on_the_highest_of_them(planet, name, level):
    fault = find_fault(planet[name] / 100)

    assert fault.level == level
    assert fault.expected.startswith("reach ")
    assert fault.expected.endswith(f" somewhere on the globe at {level} hPa")


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_value_is_none(planet, value):
    fault = find_fault(xr.full_like(planet["land_sea_mask"], value))

    assert fault.expected == "vary over the globe"
    assert f"one value everywhere, {value} in the first" in fault.found


def test_a_sea_mask_may_be_0_or_1_in_places(planet):
    assert find_blank(planet["land_sea_mask"] * 0) is None
    assert find_fault(planet["land_sea_mask"].round()) is None
