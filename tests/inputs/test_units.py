"""Units become ours by factors that are known from their definitions."""

import pytest

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.units import SAME, Conversion, conversion
from graphcast_batch.variables import VARIABLES


@pytest.mark.parametrize(
    ("name", "unit", "value", "ours"),
    [
        ("2m_temperature", "degC", 0.0, 273.15),
        ("temperature", "°C", -273.15, 0.0),
        ("mean_sea_level_pressure", "hPa", 1013.25, 101325.0),
        ("mean_sea_level_pressure", "millibars", 1013.25, 101325.0),
        ("geopotential", "gpm", 1000.0, 9806.65),
        ("geopotential", "dam", 552.0, 552 * 98.0665),
        ("geopotential_at_surface", "m", 100.0, 980.665),
        ("total_precipitation_6hr", "mm", 25.0, 0.025),
        ("total_precipitation_6hr", "kg m**-2", 25.0, 0.025),
        ("specific_humidity", "g kg**-1", 8.0, 0.008),
        ("10m_u_component_of_wind", "knots", 1.0, 1852 / 3600),
        ("toa_incident_solar_radiation", "W m**-2", 1361.0, 1361.0 * 3600),
        ("land_sea_mask", "%", 100.0, 1.0),
        ("level", "Pa", 85000.0, 850.0),
        ("vertical_velocity", "hPa s**-1", 0.01, 1.0),
    ],
)
def test_a_value_in_another_unit_becomes_ours(name, unit, value, ours):
    how = conversion(name, unit, "here")
    assert how.factor * value + how.offset == pytest.approx(ours, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("unit", ["m**2 s**-2", "m2 s-2", "m^2 s^-2", "m**2  s**-2", ""])
def test_spellings_of_our_own_unit_change_nothing(unit):
    assert conversion("geopotential", unit, "here") == SAME


@pytest.mark.parametrize("name", VARIABLES)
def test_our_own_units_are_known(name):
    assert conversion(name, VARIABLES[name].units, "here") == SAME


def test_a_variable_that_we_do_not_know_keeps_its_unit():
    assert conversion("sea_ice_cover", "furlongs", "here") == Conversion(1, 0)


def test_a_unit_of_another_quantity_is_refused():
    with pytest.raises(InputError, match=r"vertical_velocity of here must be in Pa s\*\*-1 .* but is in 'm s\*\*-1'"):
        conversion("vertical_velocity", "m s**-1", "here")
