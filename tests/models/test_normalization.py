from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import StatisticsError
from graphcast_batch.inputs.statistics import read_statistics
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.normalization import normalization
from graphcast_batch.spec import TASKS, Task

TASK = Task(
    input_variables=("temperature", "2m_temperature", "land_sea_mask", "day_progress_sin"),
    target_variables=("temperature", "2m_temperature", "total_precipitation_6hr"),
    forcing_variables=("day_progress_sin",),
    pressure_levels=(500, 850),
)
CHANNELS = Channels.of(TASK, {})


def constants(start):
    names = ["2m_temperature", "land_sea_mask", "day_progress_sin", "total_precipitation_6hr"]
    scalars = {name: ((), start + k) for k, name in enumerate(names)}
    return xr.Dataset(
        scalars | {"temperature": ("level", start + np.array([7.0, 8.0, 9.0]))}, {"level": [850, 700, 500]}
    )


def statistics():
    return {"mean": constants(0.0), "stddev": constants(100.0), "diffs_stddev": constants(200.0)}


def test_constants_stand_in_the_order_of_the_channels():
    found = normalization(CHANNELS, statistics())

    np.testing.assert_array_equal(found.carried, [[0, 9, 7], [100, 109, 107]])  # 2m_temperature, then 500 and 850 hPa
    np.testing.assert_array_equal(found.change, [200, 209, 207])
    np.testing.assert_array_equal(found.diagnosed, [[3], [103]])
    np.testing.assert_array_equal(found.static, [[1], [101]])
    np.testing.assert_array_equal(found.forced, [[2], [102]])
    assert {part.dtype for part in found} == {np.dtype(np.float32)}


def test_a_missing_constant_is_an_error_that_names_it():
    for kind in ("mean", "stddev", "diffs_stddev"):
        lacking = statistics()
        lacking[kind] = lacking[kind].drop_vars("2m_temperature")
        with pytest.raises(StatisticsError, match=f"the {kind} statistics lack 2m_temperature"):
            normalization(CHANNELS, lacking)


def test_a_missing_level_is_named():
    lacking = statistics() | {"mean": constants(0.0).sel(level=[700, 850])}
    with pytest.raises(StatisticsError, match=r"the mean of temperature lacks the levels \[500\] hPa"):
        normalization(CHANNELS, lacking)


def test_a_level_variable_with_one_number_is_refused():
    flat = constants(0.0).assign(temperature=((), 1.0))
    with pytest.raises(StatisticsError, match="the mean of temperature must be given by level"):
        normalization(CHANNELS, statistics() | {"mean": flat})


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_deviations_must_be_positive(value):
    bad = constants(100.0).assign({"2m_temperature": ((), value)})
    with pytest.raises(StatisticsError, match="the stddev of 2m_temperature must be positive"):
        normalization(CHANNELS, statistics() | {"stddev": bad})


PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "stats_era5_levels-37"


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"the published statistics are not at {PUBLISHED}")
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_the_published_statistics_serve_every_published_task(task):
    channels = Channels.of(task, {})

    found = normalization(channels, read_statistics(PUBLISHED).by_kind)

    assert found.carried.shape == (2, channels.width(channels.carried))
    (name,) = [name for name in channels.carried if name == "geopotential"]
    at = channels.slices(channels.carried)[name].start + task.pressure_levels.index(500)
    assert found.carried[0, at] == pytest.approx(54e3, rel=0.02)  # 5500 m in m**2 s**-2


def test_the_shipped_statistics_serve_the_published_task_on_13_levels():
    folder = Path(__file__).parents[2] / "stats" / "synthetic"
    channels = Channels.of(TASKS["GraphCast_small"], {})

    assert normalization(channels, read_statistics(folder).by_kind).change.shape == (channels.width(channels.carried),)
