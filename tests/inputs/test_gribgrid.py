"""Every value of a GRIB message comes back at its own point, however the message runs over the globe."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from graphcast_batch.inputs.formats.opening import load, open_data
from graphcast_batch.inputs.sources.archive import Archive
from tests.inputs.test_grib import message

eccodes = pytest.importorskip("eccodes", reason="the extra grib is not installed")

LATITUDE, LONGITUDE = np.linspace(90, -90, 5), np.arange(0, 360, 45.0)
MODES = list(itertools.product((0, 1), repeat=4))
"""Whether westward, northward, along meridians first, and to and fro."""


def codes(latitude, longitude):
    """A number that tells its point, which GRIB's packing keeps."""
    return (latitude[:, None] + 90) * 8 + longitude[None] % 360 / 45


def scanned(latitude, longitude, by_columns, alternating):
    """Values in the order of WMO's code table 3.4, of rows and columns in the order of the scan."""
    table = codes(latitude, longitude)
    runs = (table.T if by_columns else table).copy()
    if alternating:
        runs[1::2] = runs[1::2, ::-1]
    return runs.ravel()


def scan_message(mode, latitude, longitude, edition=2, name="t2m", **keys):
    """A message of points that are given from north to south and west to east, scanned in a mode."""
    westward, northward, by_columns, alternating = mode
    rows, columns = latitude[:: -1 if northward else 1], longitude[:: -1 if westward else 1]
    grid = {
        "Ni": columns.size,
        "Nj": rows.size,
        "iScansNegatively": westward,
        "jScansPositively": northward,
        "jPointsAreConsecutive": by_columns,
        "latitudeOfFirstGridPointInDegrees": rows[0],
        "latitudeOfLastGridPointInDegrees": rows[-1],
        "longitudeOfFirstGridPointInDegrees": columns[0],
        "longitudeOfLastGridPointInDegrees": columns[-1],
    }
    if edition == 2:
        grid["alternativeRowScanning"] = alternating
    return message(name, edition=edition, values=scanned(rows, columns, by_columns, alternating), **grid, **keys)


def points_of_eccodes(path):
    """What ecCodes itself says of the only message: (latitude, longitude) to value."""
    with Path(path).open("rb") as file:
        handle = eccodes.codes_grib_new_from_file(file)
    latitude, longitude, values = (
        eccodes.codes_get_array(handle, key) for key in ("latitudes", "longitudes", "values")
    )
    eccodes.codes_release(handle)
    return {
        (round(at, 3), round(to % 360, 3)): value for at, to, value in zip(latitude, longitude, values, strict=True)
    }


def check(path, alternating=False):
    with open_data(path) as dataset:
        found = load(dataset, path)["t2m"][0]
    np.testing.assert_array_equal(found, codes(found["latitude"].values, found["longitude"].values))
    if not alternating:  # which ecCodes' coordinates do not follow
        theirs = points_of_eccodes(path)
        points = itertools.product(found["latitude"].values, found["longitude"].values % 360)
        assert [theirs[round(row, 3), round(column, 3)] for row, column in points] == found.values.ravel().tolist()
    return found


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("west", [0.0, 45.0, 180.0, 315.0])
def test_every_scan_from_any_first_column_comes_back_at_its_points(tmp_path, west, edition):
    longitude = (LONGITUDE + west) % 360
    for mode in MODES:
        if edition == 2 or not mode[3]:  # GRIB 1 has no alternating rows
            path = tmp_path / f"{mode}.grib"
            path.write_bytes(scan_message(mode, LATITUDE, longitude, edition))
            found = check(str(path), alternating=bool(mode[3]))
            assert sorted(found["longitude"].values % 360) == list(LONGITUDE)
            assert sorted(found["latitude"].values) == sorted(LATITUDE)


@pytest.mark.parametrize("west", [-45.0, 0.0, 90.0, 270.0])
def test_a_part_of_the_globe_comes_back_at_its_points(tmp_path, west):
    latitude, longitude = np.array([45.0, 0.0]), (west + np.array([0.0, 45.0, 90.0])) % 360
    for mode in MODES:
        path = tmp_path / f"{mode}.grib"
        path.write_bytes(scan_message(mode, latitude, longitude))
        found = check(str(path), alternating=bool(mode[3]))
        assert set(found["longitude"].values % 360) == set(longitude)


def test_messages_of_the_same_points_may_be_scanned_in_different_ways(tmp_path):
    path = tmp_path / "a.grib"
    ways = [((0, 0, 0, 0), 0), ((0, 1, 0, 0), 45), ((1, 0, 1, 0), 180), ((0, 0, 0, 1), 315)]
    path.write_bytes(
        b"".join(
            scan_message(mode, LATITUDE, (LONGITUDE + west) % 360, dataTime=100 * hour)
            for hour, (mode, west) in enumerate(ways)
        )
    )
    with open_data(str(path)) as dataset:
        found = load(dataset, str(path))["t2m"]
    assert found.sizes["valid_time"] == len(ways)
    for frame in found:
        np.testing.assert_array_equal(frame, codes(found["latitude"].values, found["longitude"].values))


@pytest.mark.parametrize("west", [45.0, 180.0, 315.0])
def test_an_archive_does_not_turn_with_the_first_column(tmp_path, west):
    path = tmp_path / "a.grib"
    longitude = (LONGITUDE + west) % 360
    path.write_bytes(scan_message((0, 0, 0, 0), LATITUDE, longitude))
    archive = Archive(path)
    found = archive.fields(["2m_temperature"], archive.times, ())["2m_temperature"][0]
    np.testing.assert_array_equal(found, codes(LATITUDE[::-1], LONGITUDE))
