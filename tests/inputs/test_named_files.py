"""A path names the data that are there, whatever they are called, and nothing hangs on what is no file."""

import gzip
import logging
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError, InputNotFoundError
from graphcast_batch.inputs.formats.opening import open_data
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from tests.inputs.test_grib import field, message


@pytest.fixture
def parts(tmp_path, made):
    """A folder, still empty, and two halves of an archive that are to be written into it."""
    folder = tmp_path / "data"
    folder.mkdir()
    fields = made()
    return folder, fields, [fields.isel(time=slice(3)), fields.drop_vars("land_sea_mask").isel(time=slice(3, 6))]


def holds_all(archive, fields):
    names = sorted(fields.data_vars)
    found = archive.fields(names, archive.times, archive.levels)
    xr.testing.assert_equal(found[names], fields[names])


@pytest.mark.parametrize("names", [("a.netcdf", "a.cdf"), ("a", "b"), ("gdas.t00z.0p25.f000", "x.grib2.0-10")])
def test_files_are_known_by_what_they_hold(parts, names):
    folder, fields, halves = parts
    for half, name in zip(halves, names, strict=True):
        half.to_netcdf(folder / name, engine="netcdf4")
    holds_all(Archive(folder), fields)
    holds_all(Archive(str(folder / "*")), fields)


def test_grib_is_found_in_a_folder_by_its_first_bytes(tmp_path):
    pytest.importorskip("cfgrib", reason="the extra grib is not installed")
    for hour, name in ((0, "gfs.t00z.pgrb2.0p25.f000"), (6, "gfs.grib2.0-10")):
        (tmp_path / name).write_bytes(message("t2m", hour))
    (tmp_path / "gfs.t00z.pgrb2.0p25.f000.idx").write_text("1:0:d=2020010100:TMP:2 m above ground:anl:\n")
    archive = Archive(tmp_path)
    found = archive.fields(["2m_temperature"], archive.times, ())["2m_temperature"]
    np.testing.assert_array_equal(found, [field("t2m", 0)[::-1], field("t2m", 6)[::-1]])


@pytest.mark.parametrize("ask", ["", "*"])
def test_what_is_no_data_is_named_and_passed_over(parts, caplog, ask):
    folder, fields, halves = parts
    for number, half in enumerate(halves):
        half.to_netcdf(folder / f"{number}.nc", engine="netcdf4")
    (folder / "README").write_text("how this was made")
    (folder / "plots").mkdir()
    os.mkfifo(folder / "pipe.nc")
    xr.Dataset({"sea_ice": ("x", [1.0])}).to_netcdf(folder / "ice.nc", engine="netcdf4")
    with caplog.at_level(logging.WARNING):
        archive = Archive(str(folder / ask) if ask else folder)
    holds_all(archive, fields)
    passed_over, unknown = caplog.messages
    assert passed_over.startswith("passed over, as neither netCDF, GRIB nor zarr: ")
    assert {*passed_over.partition(": ")[2].split(", ")} == {
        f"{folder}/README",
        f"{folder}/pipe.nc (a FIFO)",
        f"{folder}/plots (a folder)",
    }
    assert unknown.startswith(f"passed over: {folder}/ice.nc must have variables")


def test_a_damaged_file_that_promises_data_is_not_passed_over(parts):
    folder, _, halves = parts
    halves[0].to_netcdf(folder / "a.nc", engine="netcdf4")
    (folder / "b.nc").write_bytes(b"")
    with pytest.raises(InputError, match=r"b\.nc must be a complete netCDF file, but cannot be read: it is empty"):
        Archive(folder)
    (folder / "b.nc").unlink()
    (folder / "b.nc").symlink_to(folder / "gone.nc")
    with pytest.raises(InputNotFoundError, match=r"b\.nc must be .* but there is none"):
        Archive(folder)


def test_a_folder_of_nothing_names_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputNotFoundError, match=r"must hold netCDF, GRIB or zarr, but holds only .*notes\.txt"):
        Archive(tmp_path)
    with pytest.raises(InputNotFoundError, match=r"must match netCDF, GRIB or zarr, but matches nothing"):
        Archive(str(tmp_path / "*.nc"))


@pytest.mark.parametrize("name", ["pipe", "pipe.nc", "pipe.grib", "pipe.zarr", "pipe.zip"])
def test_a_fifo_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for opened in (Archive, lambda path: DatasetFiles(path).grid):
        with pytest.raises(InputError, match="must be a file or a folder, but is a FIFO; write its content"):
            opened(str(tmp_path / name))


def test_sockets_devices_and_stores_of_fifos_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("a.nc")
        with pytest.raises(InputError, match="is a socket"):
            Archive("a.nc")
    with pytest.raises(InputError, match="is a device"):
        Archive("/dev/zero")
    Path("a.zarr").mkdir()
    os.mkfifo("a.zarr/zarr.json")
    with pytest.raises(InputError, match=r"zarr\.json must be a file or a folder, but is a FIFO"):
        Archive("a.zarr")


@pytest.mark.parametrize("name", ["single.nc", "single.zip"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_several_files_is_read_as_it_is(tmp_path, parts, name, method):
    folder, fields, halves = parts
    with zipfile.ZipFile(folder / name, "w", method) as zipped:
        for number, half in enumerate(halves):
            half.to_netcdf(tmp_path / "part.nc", engine="netcdf4")
            zipped.write(tmp_path / "part.nc", f"data_stream-oper_{number}.nc")
    before = sorted(folder.iterdir())
    for path in (folder, folder / name, folder / "*"):
        holds_all(Archive(str(path)), fields)
    assert sorted(folder.iterdir()) == before


def test_grib_in_a_zip_is_read_as_it_is(tmp_path):
    pytest.importorskip("cfgrib", reason="the extra grib is not installed")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for hour in range(20):  # more than are kept open
            zipped.writestr(f"{hour}.grib", message("t2m", hour))
    archive = Archive(tmp_path / "a.zip")
    found = archive.fields(["2m_temperature"], archive.times, ())["2m_temperature"]
    np.testing.assert_array_equal(found, [field("t2m", hour)[::-1] for hour in range(20)])


def test_what_is_packed_is_told_with_what_unpacks_it(tmp_path):
    (tmp_path / "a.nc.gz").write_bytes(gzip.compress(b"CDF"))
    with pytest.raises(InputError, match=r"it is compressed; unpack it with: gunzip .*a\.nc\.gz"):
        Archive(tmp_path / "a.nc.gz")
    with zipfile.ZipFile(tmp_path / "a.nc", "w") as zipped:
        zipped.writestr("README.txt", "nothing")
    with pytest.raises(InputError, match=r"it is a zip that holds README\.txt"):
        Archive(tmp_path / "a.nc")


def test_a_dataset_saved_as_zarr_is_read_like_the_file(tmp_path, made, as_dataset, task):
    dataset = as_dataset(made())
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    file, store = (DatasetFiles(str(tmp_path / name)) for name in ("a.nc", "a.zarr"))
    cases, aside = store.cases(2, task)
    assert not aside
    ours, theirs = store.read(cases[0], task), file.read(file.cases(2, task)[0][0], task)
    xr.testing.assert_identical(ours.frames, theirs.frames)
    with pytest.raises(InputError, match=r"a\.zarr must be an archive, .*; use inputs.kind: datasets"):
        Archive(tmp_path / "a.zarr")
    with open_data(str(tmp_path / "a.zarr")) as opened:
        assert "datetime" in opened.variables
