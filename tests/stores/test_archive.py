"""Archives in the names of WeatherBench 2: laid out, filled from several processes, published whole."""

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import StoreError
from graphcast_batch.inputs.sources.archive_writer import fill, lay_out, publish
from tests.forks import PROCESSES
from tests.stores.made_stores import grid_of

DIMS = {
    "temperature": ("time", "level", "latitude", "longitude"),
    "total_precipitation_6hr": ("time", "latitude", "longitude"),
    "land_sea_mask": ("latitude", "longitude"),
}
LEVELS = (500, 850)
GRID = grid_of()


def times_of(count):
    return np.datetime64("2020-02-28T12", "h") + 6 * np.arange(count)


def fields(count):
    """Noise at every point; the first temperature is missing, as below the ground."""
    coords = {
        "time": times_of(count).astype("datetime64[ns]"),
        "level": np.array(LEVELS, np.int32),
        "latitude": GRID.latitude,
        "longitude": GRID.longitude,
    }
    draw = np.random.default_rng(5)
    shapes = {name: [coords[dim].size for dim in dims] for name, dims in DIMS.items()}
    made = {name: (DIMS[name], draw.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}
    made["temperature"][1][0] = np.nan
    return xr.Dataset(made, coords)


def block_of(dataset, first, last):
    return dataset.isel(time=slice(first, last))


def laid_out(tmp_path, count=4):
    return lay_out(tmp_path / "made.zarr", DIMS, GRID, LEVELS, times_of(count))


def test_an_archive_reads_back_as_it_was_with_its_attributes(tmp_path):
    complete, path = fields(4), tmp_path / "made.zarr"
    draft = laid_out(tmp_path)
    fill(draft, 0, complete)
    publish(draft, path)
    read = xr.open_zarr(path, chunks=None, consolidated=True)
    xr.testing.assert_equal(read.load(), complete)
    assert {read[name].dtype for name in DIMS} == {np.dtype("float32")}
    assert (read.temperature.attrs["units"], read.temperature.attrs["standard_name"]) == ("K", "air_temperature")
    assert read.total_precipitation_6hr.attrs["cell_methods"] == "time: sum (interval: 6 hours)"
    assert read.latitude.attrs["units"] == "degrees_north"
    assert (read.level.attrs["units"], read.level.attrs["positive"]) == ("hPa", "down")
    assert read.attrs["Conventions"] == "CF-1.11"
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.zarr"]


def test_a_chunk_is_one_time_compressed_and_nan_where_nothing_was_written(tmp_path):
    array = zarr.open_array(laid_out(tmp_path) / "temperature", mode="r")
    assert array.metadata.zarr_format == 3
    assert array.chunks == (1, 2, 5, 8)
    assert array.compressors
    assert np.isnan(array[...]).all()


def test_laying_out_writes_no_chunk_of_a_field(tmp_path):
    draft = lay_out(tmp_path / "long.zarr", DIMS, GRID, LEVELS, times_of(100_000))
    assert [file.name for file in (draft / "temperature").iterdir()] == ["zarr.json"]


@settings(max_examples=10, deadline=None)
@given(order=st.permutations([0, 1, 2, 3]), size=st.integers(1, 4))
def test_blocks_may_come_in_any_order_and_size(tmp_path_factory, order, size):
    tmp_path, complete = tmp_path_factory.mktemp("any"), fields(4)
    draft = laid_out(tmp_path)
    for first in [first for first in order if first % size == 0]:
        fill(draft, first, block_of(complete, first, first + size))
    publish(draft, tmp_path / "made.zarr")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "made.zarr", engine="zarr"), complete)


def test_processes_may_fill_a_draft_at_once(tmp_path):
    complete, draft = fields(4), laid_out(tmp_path)
    children = [
        PROCESSES.Process(target=fill, args=(draft, first, block_of(complete, first, first + 2))) for first in (2, 0)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    publish(draft, tmp_path / "made.zarr")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "made.zarr", engine="zarr"), complete)


def test_an_archive_without_levels_has_no_level(tmp_path):
    name, path = "total_precipitation_6hr", tmp_path / "flat.zarr"
    draft = lay_out(path, {name: DIMS[name]}, GRID, (), times_of(2))
    fill(draft, 0, fields(2)[[name]])
    publish(draft, path)
    assert set(xr.open_zarr(path, chunks=None).variables) == {name, "time", "latitude", "longitude"}


def test_a_draft_with_a_time_missing_is_not_published(tmp_path):
    draft = laid_out(tmp_path)
    fill(draft, 0, block_of(fields(4), 0, 3))
    with pytest.raises(StoreError, match=r"all 4 chunks of \w+ must be filled first, but 3 are"):
        publish(draft, tmp_path / "made.zarr")
    assert not (tmp_path / "made.zarr").exists()


def test_what_is_there_is_neither_replaced_at_the_start_nor_at_the_end(tmp_path):
    draft = laid_out(tmp_path)
    fill(draft, 0, fields(4))
    (tmp_path / "made.zarr").write_text("mine")
    for refused in (lambda: publish(draft, tmp_path / "made.zarr"), lambda: laid_out(tmp_path)):
        with pytest.raises(StoreError, match=r"made\.zarr must not exist yet, but does; remove it"):
            refused()
    assert (tmp_path / "made.zarr").read_text() == "mine"


def test_an_old_draft_is_replaced(tmp_path):
    fill(laid_out(tmp_path), 0, fields(4))
    draft = laid_out(tmp_path, count=2)
    assert xr.open_zarr(draft, chunks=None).sizes["time"] == 2
    with pytest.raises(StoreError, match="but 0 are"):
        publish(draft, tmp_path / "made.zarr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda block: block.drop_vars("temperature"), "a block must hold .*temperature.*, but holds"),
        (lambda block: block.astype(np.float64), r"must hold .*float32.*, but holds .*float64"),
        (lambda block: block.transpose(..., "latitude"), r"must hold .*'latitude', 'longitude'.*'longitude', 'latit"),
        (lambda block: block.assign_coords(time=block["time"] + np.timedelta64(6, "h")), "a block's time must be"),
        (lambda block: block.isel(level=[1, 0]), "a block's level must be the archive's, 500 to 850"),
        (lambda block: block.isel(longitude=slice(4)), "a block's longitude must be"),
    ],
)
def test_a_block_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(StoreError, match=message):
        fill(laid_out(tmp_path), 1, change(block_of(fields(4), 1, 3)))


def test_a_block_that_goes_beyond_the_last_time_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"a block's time must be the archive's, .* from time 3 on"):
        fill(laid_out(tmp_path), 3, block_of(fields(5), 3, 5))


@pytest.mark.parametrize("times", [times_of(0), times_of(3)[::-1], times_of(1).repeat(2)])
def test_times_must_ascend(tmp_path, times):
    with pytest.raises(StoreError, match="times must ascend"):
        lay_out(tmp_path / "made.zarr", DIMS, GRID, LEVELS, times)


@pytest.mark.parametrize("dims", [("latitude", "time", "longitude"), ("time", "depth")])
def test_dimensions_out_of_order_or_unknown_are_refused(tmp_path, dims):
    with pytest.raises(StoreError, match="x must have some of the dimensions time, level, latitude, longitude"):
        lay_out(tmp_path / "made.zarr", {"x": dims}, GRID, LEVELS, times_of(2))


def test_variables_on_levels_need_levels(tmp_path):
    with pytest.raises(StoreError, match=r"temperature must have some of the dimensions .* each with values"):
        lay_out(tmp_path / "made.zarr", DIMS, GRID, (), times_of(2))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"laying out .*made\.zarr\.draft failed"):
        lay_out(tmp_path / "file" / "made.zarr", DIMS, GRID, LEVELS, times_of(2))
