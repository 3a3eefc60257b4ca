"""Units become ours by factors that are known from their definitions."""

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.layouts.units import SAME, Conversion, conversion
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


SPELLINGS = {
    ("2m_temperature", 1.0, 0.0): "K, Kelvin, kelvin, kelvins, KELVIN, degK, deg K, degrees_K, degree_Kelvin",
    ("temperature", 1.0, 273.15): "degC, deg C, deg_C, degrees_C, degrees C, °C, Celsius, degree_Celsius, C",
    ("temperature", 5 / 9, 459.67 * 5 / 9): "degF",
    ("mean_sea_level_pressure", 1.0, 0.0): "Pa, Pascal, Pascals, pascal, N m-2, kg m-1 s-2",
    ("mean_sea_level_pressure", 100.0, 0.0): "hPa, mb, mbar, millibar, millibars, Millibars, hectopascals",
    ("mean_sea_level_pressure", 1000.0, 0.0): "kPa",
    ("vertical_velocity", 1.0, 0.0): "Pa/s, Pa s^-1, Pa sec-1, Pascal/s, Pascals/second, Pascal per second, Pa s⁻¹",
    ("vertical_velocity", 100 / 86400, 0.0): "hPa/day, mb d-1",
    ("total_precipitation_6hr", 1.0, 0.0): "m, meters, metre, Meters, m of water equivalent",
    ("total_precipitation_6hr", 1e-3, 0.0): "mm, millimeters, millimetres, MILLIMETERS, kg m-2, kg/m^2, kg m**-2",
    ("total_precipitation", 1e-3, 0.0): "mm, kg m-2",
    ("geopotential", 1.0, 0.0): "m2 s-2, m**2/s**2, m² s⁻², m2.s-2, J/kg",
    ("geopotential", 9.80665, 0.0): "gpm, m, meters, metres, geopotential meters, Geopotential Metre",
    ("geopotential", 98.0665, 0.0): "gpdm, dagpm, dam, decameters",
    ("specific_humidity", 1.0, 0.0): "kg/kg, kg kg^-1, 1, kilogram per kilogram, fraction",
    ("specific_humidity", 1e-3, 0.0): "g/kg, g kg^-1, grams/kg, gram per kilogram, grams per kilogram",
    ("10m_u_component_of_wind", 1.0, 0.0): "m/s, m s^-1, m/sec, meters per second, metres/second",
    ("10m_v_component_of_wind", 1852 / 3600, 0.0): "knots, kt, kts, Knots",
    ("toa_incident_solar_radiation", 1.0, 0.0): "J/m2, J m^-2, W m**-2 s, joule/m2",
    ("toa_incident_solar_radiation", 3600.0, 0.0): "W/m2, W/m^2, W m-2, watts/m2, W h m-2",
    ("land_sea_mask", 1.0, 0.0): "1, (0 - 1), 0-1, fraction, Fraction, proportion, Proportion, dimensionless",
    ("land_sea_mask", 1e-2, 0.0): "%, percent, Percent",
    ("level", 1.0, 0.0): "hPa, mb, millibar, millibars",
    ("level", 1e-2, 0.0): "Pa, Pascals",
}


@pytest.mark.parametrize(
    ("name", "unit", "factor", "offset"),
    [
        (name, unit.strip(), factor, offset)
        for (name, factor, offset), units in SPELLINGS.items()
        for unit in units.split(",")
    ],
)
def test_other_spellings_are_understood(name, unit, factor, offset):
    found = conversion(name, unit, "here")
    assert found.factor == pytest.approx(factor, rel=1e-12)
    assert found.offset == pytest.approx(offset, rel=1e-12)


@pytest.mark.parametrize("unit", ["m**2 s**-2", "m2 s-2", "m^2 s^-2", "m**2  s**-2", ""])
def test_spellings_of_our_own_unit_change_nothing(unit):
    assert conversion("geopotential", unit, "here") == SAME


@pytest.mark.parametrize("name", VARIABLES)
def test_our_own_units_are_known(name):
    assert conversion(name, VARIABLES[name].units, "here") == SAME


def test_a_variable_that_we_do_not_know_keeps_its_unit():
    assert conversion("sea_ice_cover", "furlongs", "here") == Conversion(1, 0)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("vertical_velocity", "m s**-1"),
        ("temperature", "coulomb"),
        ("mean_sea_level_pressure", "millibarn"),
        ("specific_humidity", "%"),  # relative humidity
        ("specific_humidity", "ppm"),  # of volume, or of mass
        ("specific_humidity", "g m-3"),
        ("land_sea_mask", "degrees"),
        ("10m_u_component_of_wind", "ms-1"),  # a millisecond, or a metre a second
        ("level", "1"),
    ],
)
def test_a_unit_of_another_quantity_or_of_several_is_refused_with_the_key_to_set(name, unit):
    expected = rf"{name} of here must be in .* but is in '{re.escape(unit)}'; .* inputs\.units {{{name}: "
    with pytest.raises(InputError, match=expected):
        conversion(name, unit, "here")


@pytest.mark.parametrize("unit", ["kg m-2 s-1", "mm/h", "mm day-1", "m s-1"])
def test_a_rate_of_precipitation_is_no_sum(unit):
    with pytest.raises(InputError, match=f"but is in '{unit}', a rate; multiply it by .* seconds"):
        conversion("total_precipitation_6hr", unit, "here")


@pytest.mark.parametrize(
    "text", ["9**9**9**9", "m**9**9**9", "m**99999999", "(" * 79, "m" * 9999, "__import__('os')", "m\0", "*", "m/", "°"]
)
def test_what_is_no_unit_is_refused_whatever_it_is(text):
    with pytest.raises(InputError, match="must be in m or a unit"):
        conversion("total_precipitation_6hr", text, "here")


@settings(deadline=None)  # the first makes the registry
@given(st.text(max_size=100))
def test_any_text_is_a_unit_or_refused(text):
    with contextlib.suppress(InputError):
        assert conversion("geopotential", text, "here").factor > 0
