import numpy as np
import pytest

from graphcast_batch.figures.display_units import named, unit_of


@pytest.mark.parametrize(
    ("variable", "units", "stored", "text", "told"),
    [
        ("2m_temperature", "K", 273.15, "°C", 0.0),
        ("mean_sea_level_pressure", "Pa", 101325.0, "hPa", 1013.25),
        ("total_precipitation_6hr", "m", 0.0042, "mm", 4.2),
        ("total_precipitation_24hr", "m", 0.0042, "mm", 4.2),
        ("geopotential_height", "m", 5400.0, "dam", 540.0),
        ("geopotential", "m**2 s**-2", 5400 * 9.80665, "dam", 540.0),
        ("specific_humidity", "kg kg**-1", 0.0123, "g/kg", 12.3),
        ("relative_humidity", "1", 0.5, "", 0.5),
    ],
)
def test_values_are_told_in_the_unit_that_people_know(variable, units, stored, text, told):
    unit = unit_of(variable, units)

    assert (unit.text, unit.convert(np.array(stored))) == (text, pytest.approx(told, abs=1e-9))


def test_differences_of_temperatures_are_kelvin():
    unit = unit_of("temperature", "K").of_differences

    assert unit.heading(named("temperature", 850)) == "Temperature at 850 hPa (K)"
    assert unit.convert(np.array([1.5])) == [1.5]
