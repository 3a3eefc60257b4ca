import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.config.outputs_section import OutputsConfig, RegionConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.stores.frame_blocks import Blocks
from graphcast_batch.stores.layout import Layout, Plan
from tests.stores.made_stores import VARIABLES, case_at, commit, grid_of, make

LEVELS = (300, 500, 850)
GRID = grid_of(7, 12)


def frames_of(case):
    """A whole forecast: every value is another."""
    sizes = {name: ((len(LEVELS),) if levelled else ()) + GRID.shape for name, levelled in VARIABLES}
    random = np.random.default_rng(case.steps)
    return {name: random.normal(size=(case.steps, *shape)).astype(np.float32) for name, shape in sizes.items()}


def as_dataset(frames):
    place = ("latitude", "longitude")
    dims = {name: ("lead", *(("level",) if levelled else ()), *place) for name, levelled in VARIABLES}
    steps = len(frames["temperature"])
    coords = {"lead": 6 * np.arange(1, steps + 1), "level": list(LEVELS)}
    coords |= {"latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.Dataset({name: (dims[name], values) for name, values in frames.items()}, coords)


def stored(folder, case, outputs, per_call):
    """What comes out of a store that frames of so many steps a call went into."""
    plan = Plan((case,), Layout(GRID, LEVELS, VARIABLES, case.steps, 6, outputs))
    store, frames = make(Path(folder, "run.zarr"), plan), frames_of(case)
    blocks = Blocks(case, store, GRID, LEVELS)
    with store.attempt(case) as attempt:
        for first in range(0, case.steps, per_call):
            for block in blocks.add({name: values[first : first + per_call] for name, values in frames.items()}):
                attempt.write(block.first, block.values)
        record = commit(attempt)
    assert len(record.files) == plan.layout.case_files
    read = store.forecasts().isel(time=0, drop=True).load()
    lead = (read["prediction_timedelta"] / np.timedelta64(1, "h")).astype(int)
    return read.assign_coords(prediction_timedelta=lead.values).rename(prediction_timedelta="lead")


@settings(max_examples=40, deadline=None)
@given(
    names=st.sets(st.sampled_from([name for name, _ in VARIABLES]), min_size=1),
    levels=st.sets(st.sampled_from(LEVELS), min_size=1),
    every=st.sampled_from([1, 2, 3, 4]),
    count=st.integers(1, 5),
    per_call=st.integers(1, 7),
    south=st.sampled_from([-90.0, -31.0, 0.0]),
    north=st.sampled_from([0.0, 30.0, 90.0]),
    west=st.sampled_from([-180.0, -91.0, -30.0, 0.0, 29.0, 330.0]),
    width=st.integers(31, 359),
    max_files=st.none() | st.integers(3, 12),
)
def test_a_store_holds_what_xarray_selects_from_the_whole_forecast(
    names, levels, every, count, per_call, south, north, west, width, max_files
):
    case = case_at(0, every * count)
    east = west + width
    east = east if east <= 360 else east - 360
    region = RegionConfig(latitude=(south, north), longitude=(west, east))
    selected = {"levels": tuple(levels)} if "temperature" in names else {}
    outputs = OutputsConfig(
        variables=tuple(names),
        every_hours=6 * every,
        region=region,
        max_files=max_files,
        compression="none",
        **selected,
    )
    with tempfile.TemporaryDirectory() as folder:
        found = stored(folder, case, outputs, per_call)

    complete = as_dataset(frames_of(case))[sorted(names)]
    longitude = (complete["longitude"] - west) % 360 + west
    ordered = complete.assign_coords(longitude=longitude).sortby("longitude")
    expected = ordered.sel(
        lead=slice(6 * every, None, every), latitude=slice(south, north), longitude=slice(west, west + width)
    )
    expected = expected.isel(lead=(expected["lead"] % (6 * every) == 0).values)
    if "temperature" in names:
        expected = expected.sel(level=sorted(levels))
    assert found.sizes == expected.sizes
    assert np.all(np.diff(found["longitude"]) > 0)
    np.testing.assert_allclose((found["longitude"] - expected["longitude"].values) % 360, 0)
    np.testing.assert_array_equal(found["latitude"], expected["latitude"])
    for name in names:
        np.testing.assert_array_equal(found[name].values, expected[name].transpose(*found[name].dims).values)


@pytest.mark.parametrize("per_call", [1, 2, 5, 9])
def test_a_list_of_lead_times_is_kept_in_order(tmp_path, per_call):
    case = case_at(0, 9)
    found = stored(tmp_path, case, OutputsConfig(lead_hours=(54, 6, 24, 30)), per_call)

    assert found["lead"].values.tolist() == [6, 24, 30, 54]
    np.testing.assert_array_equal(found["temperature"], frames_of(case)["temperature"][[0, 3, 4, 8]])


def test_of_whole_frames_nothing_is_copied(tmp_path):
    case = case_at(0, 4)
    store, frames = make(tmp_path / "run.zarr", Plan((case,), Layout(GRID, LEVELS, VARIABLES, 4, 6))), frames_of(case)
    (block,) = Blocks(case, store, GRID, LEVELS).add(frames)

    assert all(np.shares_memory(values, frames[name]) for name, values in block.values.items())


def test_frames_without_a_lead_time_that_is_kept_give_no_block(tmp_path):
    case = case_at(0, 4)
    layout = Layout(GRID, LEVELS, VARIABLES, 4, 6, OutputsConfig(every_hours=24))
    blocks = Blocks(case, make(tmp_path / "run.zarr", Plan((case,), layout)), GRID, LEVELS)
    frames = frames_of(case)

    assert blocks.add({name: values[:3] for name, values in frames.items()}) == []
    (block,) = blocks.add({name: values[3:] for name, values in frames.items()})
    assert block.first == 0
    np.testing.assert_array_equal(block.values["temperature"], frames["temperature"][3:])


def test_longitudes_west_of_zero_are_negative_and_those_beyond_180_are_not_torn(tmp_path):
    def longitudes(*edges):
        layout = Layout(
            GRID, LEVELS, VARIABLES, 1, 6, OutputsConfig(region=RegionConfig(latitude=(-90, 90), longitude=edges))
        )
        return layout.kept.longitude.tolist()

    assert longitudes(330, 30) == [-30, 0, 30]
    assert longitudes(-30, 30) == [-30, 0, 30]
    assert longitudes(150, -150) == [150, 180, 210]
    assert longitudes(0, 360) == GRID.longitude.tolist()
    with pytest.raises(
        ConfigError, match=r"outputs.region must hold points .* longitudes 1 and 29 there are none of 7 x 12"
    ):
        longitudes(1, 29)
