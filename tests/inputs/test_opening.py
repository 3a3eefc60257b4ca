"""What is no whole file is refused by its name, and never read as zeros."""

import re
import shutil
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError, InputNotFoundError
from graphcast_batch.inputs.formats.classic_netcdf import needed_bytes
from graphcast_batch.inputs.formats.opening import load, open_data, open_netcdf, open_zarr

CLASSIC = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]


def write(path, layout, *, grows):
    with netCDF4.Dataset(path, "w", format=layout) as file:
        file.title = "odd"
        file.createDimension("time", None if grows else 4)
        file.createDimension("place", 5)
        file.createVariable("short", "i2", ("time", "place"))[:] = np.ones((4, 5))
        file.createVariable("fixed", "f8", ("place",))[:] = np.ones(5)
        file.createVariable("value", "f4", ("time", "place"))[:] = np.ones((4, 5))
        file["value"].long_name = "a value"


@pytest.mark.parametrize("layout", CLASSIC)
@pytest.mark.parametrize("grows", [False, True])
def test_the_header_of_a_classic_file_tells_its_size(tmp_path, layout, grows):
    write(tmp_path / "file.nc", layout, grows=grows)
    size = (tmp_path / "file.nc").stat().st_size
    assert size - 4 < needed_bytes(tmp_path / "file.nc") <= size


@pytest.mark.parametrize("layout", CLASSIC)
@pytest.mark.parametrize("dtype", ["i1", "i2", "f4"])
def test_a_single_variable_that_grows_is_not_padded(tmp_path, layout, dtype):
    with netCDF4.Dataset(tmp_path / "file.nc", "w", format=layout) as file:
        file.createDimension("time", None)
        file.createDimension("place", 3)
        file.createVariable("value", dtype, ("time", "place"))[:] = np.ones((5, 3))
    size = (tmp_path / "file.nc").stat().st_size
    assert size - 4 < needed_bytes(tmp_path / "file.nc") <= size


@pytest.mark.parametrize("layout", [*CLASSIC, "NETCDF4"])
@pytest.mark.parametrize("kept", [0.97, 0.5, 0.05])
def test_a_file_that_was_cut_off_is_refused(tmp_path, layout, kept):
    path = tmp_path / "cut.nc"
    write(path, layout, grows=False)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with (
        pytest.raises(InputError, match=r"cut\.nc must be a complete netCDF file, but cannot be read") as caught,
        open_netcdf(path),
    ):
        pass
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"CDF\x01", b"CDF\x01" + b"\xff" * 99, b"\x89HDF\r\n\x1a\n", b"GRIB"]
)
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "odd.nc").write_bytes(content)
    with pytest.raises(InputError, match=r"odd\.nc must be a complete netCDF file"), open_netcdf(tmp_path / "odd.nc"):
        pass


def test_a_damaged_block_is_noticed_while_reading(tmp_path):
    path = tmp_path / "damaged.nc"
    noise = np.random.default_rng(0).normal(size=(64, 64))
    fields = xr.Dataset({"value": (("y", "x"), noise)})
    fields.to_netcdf(path, engine="netcdf4", encoding={"value": {"zlib": True, "fletcher32": True}})
    content = bytearray(path.read_bytes())
    middle = len(content) - 4000
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.nc must be complete"), open_netcdf(path) as dataset:
        load(dataset, str(path))


def test_a_missing_file_is_not_found_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(InputNotFoundError, match=re.escape(f"there is none (working directory: {tmp_path})")),
        open_netcdf(Path("none.nc")),
    ):
        pass


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")  # zarr's warning about writing, for version 3
def test_zarr_is_read_with_and_without_consolidated_metadata(tmp_path, version, consolidated):
    fields = xr.Dataset({"value": (("y", "x"), np.ones((2, 3), np.float32))})
    fields.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=consolidated)
    with open_zarr(str(tmp_path / "a.zarr")) as dataset:
        xr.testing.assert_identical(load(dataset, "a"), fields)


def test_a_folder_that_is_no_zarr_store_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match="must be a zarr store, but there is none"), open_zarr(str(tmp_path)):
        pass


def test_damaged_zarr_metadata_are_refused(tmp_path):
    xr.Dataset({"value": ("x", np.ones(3))}).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    (tmp_path / "a.zarr" / "value" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.zarr must be a zarr store"), open_zarr(str(tmp_path / "a.zarr")):
        pass


def test_a_damaged_zarr_chunk_is_noticed_while_reading(tmp_path):
    xr.Dataset({"value": ("x", np.ones(3))}).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    (tmp_path / "a.zarr" / "value" / "c" / "0").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.zarr must be complete"), open_zarr(str(tmp_path / "a.zarr")) as dataset:
        load(dataset, str(tmp_path / "a.zarr"))


@pytest.fixture
def fields():
    return xr.Dataset({"value": (("y", "x"), np.arange(6, dtype=np.float32).reshape(2, 3))})


def test_data_are_told_by_what_they_are(tmp_path, fields):
    fields.to_zarr(tmp_path / "store", zarr_format=2)
    fields.to_zarr(tmp_path / "b.zarr", zarr_format=3, consolidated=False)
    shutil.make_archive(str(tmp_path / "c.zarr"), "zip", tmp_path / "store")
    fields.to_netcdf(tmp_path / "d.nc", engine="netcdf4")
    fields.to_netcdf(tmp_path / "e", engine="netcdf4", format="NETCDF3_64BIT")
    for name in ("store", "b.zarr", "c.zarr.zip", "d.nc", "e"):
        with open_data(str(tmp_path / name)) as dataset:
            xr.testing.assert_identical(load(dataset, name), fields)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.zarr", "a zarr store"),
        ("a.zarr.zip", "a zarr store"),
        ("a.nc", "a complete netCDF file"),
        ("a", "a complete netCDF"),
    ],
)
def test_what_is_missing_is_called_what_it_would_be(tmp_path, name, what):
    address = str(tmp_path / name)
    with pytest.raises(InputNotFoundError, match=f"{address} must be {what}.* there is none"), open_data(address):
        pass


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_what_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "a.zarr.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zarr\.zip must be a zarr store"), open_data(str(tmp_path / "a.zarr.zip")):
        pass


def test_a_store_that_was_read_can_be_replaced(tmp_path, fields):
    for factor in (1, 2):
        (fields * factor).to_zarr(tmp_path / "a.zarr", zarr_format=2, mode="w")
        with open_data(str(tmp_path / "a.zarr")) as dataset:
            xr.testing.assert_identical(load(dataset, "a"), fields * factor)
