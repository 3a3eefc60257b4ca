"""Fields that lie elsewhere than on the Earth are found, and right ones are left alone."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.quality.checks import find_faults
from graphcast_batch.inputs.quality.geography import find_misplaced
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.spec import TASKS
from graphcast_batch.sun import solar_radiation

SUN = "toa_incident_solar_radiation"
STATIC = ["geopotential_at_surface", "land_sea_mask"]
MOVING = ["2m_temperature", "geopotential", "v_component_of_wind"]
STEP = np.timedelta64(6, "h")


def weather(degrees, time="2019-12-31T18"):
    times = np.datetime64(time, "ns") + np.arange(2) * STEP
    grid = regular_grid(degrees)
    fields = SyntheticPlanet().fields([*MOVING, *STATIC], times, grid, (200, 500, 850))
    sun = solar_radiation(times, grid.latitude, grid.longitude)
    return fields.assign({SUN: (("time", "latitude", "longitude"), sun)})


@pytest.fixture(scope="module")
def earth():
    return weather(10)


def found(fields, names=None):
    return find_misplaced(fields if names is None else fields[names], xr.Dataset())


def turned(fields, names, degrees=180):
    columns = round(degrees / 360 * fields.sizes["longitude"])
    return fields.assign({name: fields[name].roll(longitude=columns, roll_coords=False) for name in names})


def upside_down(fields):
    return fields.assign_coords(latitude=-fields["latitude"]).isel(latitude=slice(None, None, -1))


@pytest.mark.parametrize("degrees", [3, 5, 10, 15, 30])
@pytest.mark.parametrize("time", ["2020-01-10T03", "2020-04-20T12", "2020-07-01T06", "2020-10-11T21"])
def test_the_synthetic_planet_lies_as_the_earth_does(degrees, time):
    assert found(weather(degrees, time)) == []


def test_real_analyses_lie_as_the_earth_does(shared_data):
    for name in ("gfs_2011-10-11T00_res-2.5_levels-13.nc", "hres_2024-06-03_res-10.0_levels-6.nc"):
        archive = Archive(shared_data / name)
        names = [name for name in [*MOVING, *STATIC] if name in archive.dims]
        for time in archive.times:
            fields = archive.fields(names, np.array([time]), archive.levels)
            assert found(fields) == []
            for every in (2, 3):
                assert found(fields.isel(latitude=slice(None, None, every), longitude=slice(None, None, every))) == []


@pytest.mark.parametrize("name", ["gfs_2011-10-11T00_res-2.5_levels-13.nc", "hres_2024-06-03_res-10.0_levels-6.nc"])
def test_real_analyses_upside_down_are_found(shared_data, name):
    archive = Archive(shared_data / name)
    names = ["geopotential", "v_component_of_wind", *STATIC]
    fields = archive.fields(names, archive.times[:1], archive.levels)

    faults = found(upside_down(fields))

    assert {fault.variable for fault in faults} == {*STATIC, "v_component_of_wind and geopotential"}
    assert all("upside down" in fault.found or "north and south" in fault.found for fault in faults)


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda array: array.roll(longitude=18, roll_coords=False), "longitudes shifted by 180°"),
        (lambda array: array.roll(longitude=9, roll_coords=False), "longitudes shifted by 270°"),
        (lambda array: array.isel(latitude=slice(None, None, -1)).assign_coords(array.coords), "latitudes upside down"),
    ],
)
def test_coasts_elsewhere_are_found_and_how_they_came_there(earth, name, change, words):
    (fault,) = found(earth.assign({name: change(earth[name])}), [name])

    assert fault.variable == name
    assert fault.expected.startswith("follow the coasts of the Earth")
    assert fault.found.endswith(f" with {words}")


def test_a_mask_of_the_sea_is_told_from_one_of_land(earth):
    (fault,) = found(earth.assign(land_sea_mask=1 - earth["land_sea_mask"]), ["land_sea_mask"])

    assert fault.found.endswith(", as for a mask that is 1 at sea")
    assert fault.remedy == "give the land fraction, 1 minus the values"


@pytest.mark.parametrize("level", [200, 500, 850])
def test_the_geopotential_of_a_level_is_no_orography_and_the_level_is_named(earth, level):
    lost = earth["geopotential"].sel(level=level, drop=True).isel(time=0, drop=True)

    (fault,) = found(earth.assign(geopotential_at_surface=lost), ["geopotential_at_surface"])

    assert f"looks like the geopotential at about {level} hPa without its level" in fault.found


def test_a_surface_far_above_the_sea_is_none(earth):
    (fault,) = found(earth.assign(geopotential_at_surface=earth["geopotential_at_surface"] + 5e3), STATIC)

    assert (fault.expected, fault.found) == ("be near 0 m**2 s**-2 at sea", "it is 5000 there")


def test_radiation_is_held_against_the_sun(earth):
    (fault,) = found(turned(earth, [SUN]), [SUN])
    assert fault.found.endswith("and 1.00 with longitudes shifted by 180°")
    (later,) = find_misplaced(earth[[SUN]], turned(earth, [SUN], 90)[[SUN]])
    assert later.found.endswith("and 1.00 with longitudes shifted by 270°")
    assert found(turned(earth, [SUN], 10), [SUN]) == []  # 40 minutes


@pytest.mark.parametrize("names", [["2m_temperature"], ["2m_temperature", "geopotential_at_surface"]])
def test_weather_turned_by_half_a_globe_is_found_from_its_daily_course_or_its_mountains(earth, names):
    moving = turned(earth, MOVING)

    (fault,) = found(moving, names)
    assert (fault.variable, fault.expected) == ("2m_temperature", "rise on land while the sun does")
    assert fault.found.endswith("with longitudes shifted by 180°")
    single = found(moving.isel(time=[1]), names)
    assert [one.expected for one in single] == ["fall on the mountains of geopotential_at_surface"] * (len(names) - 1)


def test_south_winds_that_are_called_north_winds_are_found(earth):
    (fault,) = found(earth.assign(v_component_of_wind=-earth["v_component_of_wind"]))

    assert fault.variable == "v_component_of_wind and geopotential"
    assert fault.level == 500
    assert "as if north and south were exchanged" in fault.found


def test_a_grid_too_coarse_to_tell_is_left_alone(earth):
    coarse = upside_down(earth).isel(latitude=slice(None, None, 9), longitude=slice(None, None, 9))

    assert Grid(coarse["latitude"].values, coarse["longitude"].values).resolution == 90
    assert found(coarse) == []


def test_a_gap_is_no_fault_of_places(earth):
    assert found(earth.assign(land_sea_mask=(1 - earth["land_sea_mask"]).where(earth["longitude"] > 0))) == []


def test_one_finding_stands_for_an_orography_that_is_another_variable(earth):
    lost = earth["geopotential"].sel(level=850, drop=True).isel(time=0, drop=True) - 1.3e4  # and too low for one
    inputs = CaseInputs(earth.assign(geopotential_at_surface=lost).drop_vars(SUN), xr.Dataset(coords={"time": []}))
    task = TASKS["GraphCast_small"].model_copy(
        update={
            "input_variables": tuple(inputs.frames.data_vars),
            "target_variables": tuple(MOVING),
            "forcing_variables": (),
            "pressure_levels": (200, 500, 850),
        }
    )

    (fault,) = find_faults(dataclasses.replace(inputs), task, regular_grid(10), 0)

    assert fault.variable == "geopotential_at_surface"
