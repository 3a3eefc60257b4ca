"""Statistics in other units or files are told from those of weather."""

from pathlib import Path

import pytest
import xarray as xr

from graphcast_batch.errors import StatisticsError
from graphcast_batch.inputs.quality.checks import check_statistics
from graphcast_batch.inputs.quality.constants import find_implausible
from graphcast_batch.inputs.statistics import read_statistics
from graphcast_batch.spec import TASKS
from graphcast_batch.variables import LEVELS_13, LEVELS_37, VARIABLES

SYNTHETIC = Path(__file__).parents[3] / "stats" / "synthetic"


@pytest.fixture(scope="module")
def right():
    return read_statistics(SYNTHETIC).by_kind


def in_unit(statistics, name, factor, offset=0.0):
    changed = {kind: found.assign({name: found[name] * factor}) for kind, found in statistics.items() if name in found}
    changed["mean"] = changed["mean"].assign({name: changed["mean"][name] + offset})
    return {**statistics, **changed}


def test_those_of_the_planet_pass(right):
    assert find_implausible(right, VARIABLES, LEVELS_13) is None


def test_the_published_ones_pass(shared_data):
    published = read_statistics(shared_data / "stats_era5_levels-37").by_kind
    assert find_implausible(published, VARIABLES, LEVELS_37) is None
    swapped = {**published, "mean": published["stddev"], "stddev": published["mean"]}
    assert "the mean is in the file of the stddev" in find_implausible(swapped, VARIABLES, LEVELS_37)


@pytest.mark.parametrize(("one", "other"), [("mean", "stddev"), ("mean", "diffs_stddev"), ("stddev", "diffs_stddev")])
def test_swapped_files_are_named(right, one, other):
    wrong = find_implausible({**right, one: right[other], other: right[one]}, VARIABLES, LEVELS_13)

    assert f"the {one} is in the file of the {other}" in wrong
    assert f"the {other} is in the file of the {one}" in wrong


@pytest.mark.parametrize(
    ("name", "factor", "offset"),
    [
        ("temperature", 1, -273.15),
        ("2m_temperature", 1, -273.15),
        ("mean_sea_level_pressure", 0.01, 0),
        ("geopotential", 1 / 9.80665, 0),
        ("geopotential_at_surface", 1 / 9.80665, 0),
        ("specific_humidity", 1000, 0),
        ("specific_humidity", 0.001, 0),
        ("total_precipitation_6hr", 1000, 0),
        ("total_precipitation_6hr", 0.001, 0),
        ("land_sea_mask", 100, 0),
        ("toa_incident_solar_radiation", 1 / 3600, 0),
        ("toa_incident_solar_radiation", 6, 0),
    ],
)
def test_another_unit_is_found(right, name, factor, offset):
    assert f" of {name}" in find_implausible(in_unit(right, name, factor, offset), VARIABLES, LEVELS_13)
    if name != "2m_temperature":
        assert find_implausible(in_unit(right, name, factor, offset), ["2m_temperature"], LEVELS_13) is None


def test_one_that_stands_for_the_deviation_of_what_never_varies_passes(right):
    aloft = right["stddev"]["specific_humidity"].where(right["stddev"]["level"] > 100, 1.0)
    statistics = {**right, "stddev": right["stddev"].assign(specific_humidity=aloft)}

    assert find_implausible(statistics, VARIABLES, LEVELS_13) is None


def test_they_are_refused_unless_the_inputs_are_random_numbers_too(right, made):
    swapped = {**right, "mean": right["stddev"], "stddev": right["mean"]}
    noise, flat = made(), xr.Dataset({"temperature": (("latitude", "longitude"), [[250.0, 250.1], [260.0, 260.1]])})

    check_statistics(swapped, "stats", TASKS["GraphCast_small"], lambda: noise)
    with pytest.raises(
        StatisticsError, match=r"the statistics stats cannot be those of weather: .* rename these files; give"
    ):
        check_statistics(swapped, "stats", TASKS["GraphCast_small"], lambda: flat)
