"""Fields written with ecCodes come back from where they belong, or not at all."""

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError, InputNotFoundError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.formats.opening import load, open_data
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.member_archives import open_members
from graphcast_batch.inputs.sources.volumes import Reading
from graphcast_batch.spec import Task

eccodes = pytest.importorskip("eccodes", reason="the extra grib is not installed")
cfgrib = pytest.importorskip("cfgrib", reason="the extra grib is not installed")

LATITUDE = np.linspace(90, -90, 5)
LONGITUDE = np.arange(0, 360, 45.0)
PARAMETERS = {  # number in ECMWF's database, type of level
    "t": (130, "isobaricInhPa"),
    "q": (133, "isobaricInhPa"),
    "z": (129, "isobaricInhPa"),
    "z_surface": (129, "surface"),
    "t2m": (167, "heightAboveGround"),
    "u10": (165, "heightAboveGround"),
    "msl": (151, "meanSea"),
    "tp": (228, "surface"),
    "lsm": (172, "surface"),
}


def field(name, time=0, level=0):
    """Values that tell where they belong, whole numbers that GRIB's packing keeps."""
    seed = sum(map(ord, name)) * 1000 + time * 100 + level
    return np.random.default_rng(seed).integers(0, 2**12, (5, 8)).astype(np.float32)


def message(name, time=0, level=0, edition=2, values=None, **keys):
    """A message of a day's hour; ``keys`` are ecCodes' own."""
    number, kind = PARAMETERS[name]
    handle = eccodes.codes_grib_new_from_samples(
        f"regular_ll_{'pl' if kind == 'isobaricInhPa' else 'sfc'}_grib{edition}"
    )
    grid = {
        "Ni": 8,
        "Nj": 5,
        "latitudeOfFirstGridPointInDegrees": 90.0,
        "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": 0.0,
        "longitudeOfLastGridPointInDegrees": 315.0,
        "iDirectionIncrementInDegrees": 45.0,
        "jDirectionIncrementInDegrees": 45.0,
    }
    for key, value in (grid | {"dataDate": 20200101, "dataTime": time * 100, "bitsPerValue": 16}).items():
        eccodes.codes_set(handle, key, value)
    if kind == "isobaricInhPa":
        eccodes.codes_set(handle, "level", level)
    eccodes.codes_set(handle, "paramId", number)
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, (field(name, time, level) if values is None else values).ravel().astype(float))
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


@pytest.fixture
def written(tmp_path):
    def write(*messages, name="a.grib"):
        (tmp_path / name).write_bytes(b"".join(messages))
        return str(tmp_path / name)

    return write


def left_out(path):
    """Variables that are not read, with the reasons."""
    with open_data(path) as dataset:
        return dataset.encoding["left_out"]


def read(path):
    with open_data(path) as dataset:
        return load(dataset, path)


@pytest.mark.parametrize("edition", [1, 2])
def test_fields_come_back_at_their_times_and_levels(written, edition):
    levels, times = (500, 850, 300), (6, 0)
    every = [message(name, time, level, edition) for time in times for level in levels for name in ("t", "z")]
    every += [message(name, time, edition=edition) for name in ("t2m", "u10", "msl") for time in times]
    every += [message(name, edition=edition) for name in ("z_surface", "lsm")]
    found = read(written(*every))
    assert set(found.data_vars) == {"t", "z", "t2m", "u10", "msl", "z_surface", "lsm"}
    assert found["t"].dims == ("valid_time", "isobaricInhPa", "latitude", "longitude")
    assert found["t2m"].dims == found["msl"].dims == ("valid_time", "latitude", "longitude")
    assert found["z_surface"].dims == found["lsm"].dims == ("latitude", "longitude")
    np.testing.assert_array_equal(found["latitude"], LATITUDE)
    np.testing.assert_array_equal(found["longitude"], LONGITUDE)
    np.testing.assert_array_equal(found["valid_time"], np.asarray(["2020-01-01T00", "2020-01-01T06"], "datetime64[ns]"))
    for time in times:
        at = found.sel(valid_time=f"2020-01-01T{time:02}")
        for level in levels:
            np.testing.assert_array_equal(at["t"].sel(isobaricInhPa=level), field("t", time, level))
            np.testing.assert_array_equal(at["z"].sel(isobaricInhPa=level), field("z", time, level))
        np.testing.assert_array_equal(at["u10"], field("u10", time))
    np.testing.assert_array_equal(found["z_surface"], field("z_surface"))
    assert found["t"].attrs["units"] == "K"


@pytest.mark.parametrize("edition", [1, 2])
def test_cfgrib_finds_the_same(written, edition):
    path = written(*(message("t", time, level, edition) for time in (0, 6) for level in (500, 850)))
    options = {"indexpath": "", "time_dims": ["valid_time"]}
    theirs = cfgrib.open_dataset(path, backend_kwargs=options).sortby("isobaricInhPa")
    ours = read(path)
    xr.testing.assert_equal(ours["t"], theirs["t"].drop_vars("number", errors="ignore"))


def test_selections_are_read_in_any_order(written):
    path = written(*(message("t", time, level) for time in (0, 6) for level in (300, 500, 850)))
    complete = read(path)["t"].values
    with open_data(path) as dataset:
        np.testing.assert_array_equal(dataset["t"][[1, 0], [2, 0], ::-1, 3], complete[[1, 0]][:, [2, 0]][:, :, ::-1, 3])
        np.testing.assert_array_equal(dataset["t"][1, 1:, 2, [5, 2]], complete[1, 1:, 2][:, [5, 2]])


def test_a_file_is_known_by_its_first_bytes(written):
    assert set(read(written(message("msl"), name="a.nc")).data_vars) == {"msl"}


def test_a_field_that_is_absent_is_not_a_number(written):
    path = written(message("t", 0, 500), message("t", 0, 850), message("t", 6, 500))
    found = np.isnan(read(path)["t"].values).all(axis=(2, 3))
    np.testing.assert_array_equal(found, [[False, False], [False, True]])


def test_points_under_a_bitmap_are_not_numbers(written):
    values = field("t2m")
    values[1, 2] = 9999
    found = read(written(message("t2m", bitmapPresent=1, missingValue=9999, values=values)))["t2m"].values[0]
    np.testing.assert_array_equal(found, np.where(values == 9999, np.nan, values))


def test_a_value_is_no_gap_without_a_bitmap(written):
    values = np.full((5, 8), 9999.0)
    np.testing.assert_array_equal(read(written(message("t2m", values=values)))["t2m"].values[0], values)


@pytest.mark.parametrize("edition", [1, 2])
def test_each_sum_says_its_window(written, edition):
    sums = [(0, "0-6"), (6, "0-6"), (0, "6-12"), (0, "0")]
    path = written(*(message("tp", time, edition=edition, stepType="accum", stepRange=steps) for time, steps in sums))
    found = read(path)["tp"].rename(window_start="start", window_end="end", window_init_time="init")
    assert found.dims == ("window", "latitude", "longitude")
    hours = {
        name: (found[name].values - np.datetime64("2020-01-01")) // np.timedelta64(1, "h")
        for name in ("init", "start", "end")
    }
    assert sorted(zip(hours["init"], hours["start"], hours["end"], strict=True)) == [
        (0, 0, 0),
        (0, 0, 6),
        (0, 6, 12),
        (6, 6, 12),
    ]
    at = found.isel(window=int(np.flatnonzero(hours["init"] == 6)[0]))
    np.testing.assert_array_equal(at, field("tp", 6))


def test_means_are_not_mixed_with_moments(written):
    mean = message("msl", 6, edition=1, stepType="avg", stepRange="0-6")
    path = written(message("t2m", edition=1), message("msl", edition=1), mean)
    assert set(read(path).data_vars) == {"t2m"}
    assert re.match("msl of .* is avg and instant and is left out", left_out(path)["msl"])


def remedied(written, found, command):
    """What the archive is after the command that a message proposes, which is run if its program is here."""
    with pytest.raises(InputError) as failure:
        Archive(found)
    proposed = next(iter(re.findall(command, str(failure.value))), None)
    assert proposed, failure.value
    if shutil.which(proposed.split()[0]) is None:
        pytest.skip(f"{proposed.split()[0]} is not here")
    subprocess.run(proposed, shell=True, check=True, cwd=Path(found).parent, capture_output=True)
    return Archive(Path(found).parent / "O*", regrid=("linear", 45.0))


def test_several_members_are_refused_until_one_is_selected(written):
    keys = {"productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 2}
    path = written(*(message("msl", number, **keys, perturbationNumber=number) for number in (1, 2)))
    archive = remedied(written, path, "grib_copy -w number=1 [^ ]+ OUT.grib")
    found = archive.fields(["mean_sea_level_pressure"], archive.times, ())["mean_sea_level_pressure"]
    np.testing.assert_array_equal(found, [field("msl", 1)[::-1]])


MEMBER_KEYS = {"productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 2}
FED_BACK = Task(
    input_variables=("mean_sea_level_pressure", "land_sea_mask"),
    target_variables=("mean_sea_level_pressure",),
    forcing_variables=(),
    pressure_levels=(),
)


def members_at(hours, numbers=(1, 2)):
    """Pressure of members at some hours, of which each has values of its own; the mask has no number."""
    several = [
        message("msl", hour, values=field("msl", hour, number), **MEMBER_KEYS, perturbationNumber=number)
        for hour in hours
        for number in numbers
    ]
    return [*several, message("lsm")]


def test_each_member_of_a_file_is_read_as_if_it_were_alone(written):
    path = written(*members_at((0, 6)))
    found = open_members([str(path)], 2, Reading(), FED_BACK)

    assert (found.numbers, found.names) == ((1, 2), ("mean_sea_level_pressure",))
    frames = xr.Dataset({"mean_sea_level_pressure": (("time", "latitude", "longitude"), np.zeros((2, 5, 8)))})
    for place, number in enumerate((1, 2)):
        read = found.replaced(frames, place, np.datetime64("2020-01-01T06")).frames["mean_sea_level_pressure"]
        np.testing.assert_array_equal(read, [field("msl", hour, number)[::-1] for hour in (0, 6)])


def test_members_are_read_from_a_zip(written, tmp_path):
    with zipfile.ZipFile(tmp_path / "eda.zip", "w") as packed:
        packed.write(written(*members_at((0, 6))), "eda.grib")
    found = open_members([str(tmp_path / "eda.zip")], 2, Reading(), FED_BACK)

    (_, second) = (member.fields(["mean_sea_level_pressure"], member.times, ()) for member in found.members)
    expected = [field("msl", hour, 2)[::-1] for hour in (0, 6)]
    np.testing.assert_array_equal(second["mean_sea_level_pressure"], expected)


def test_a_member_that_lacks_messages_lacks_their_times(written):
    path = written(*members_at((0, 6)), *members_at((12,), numbers=(1,)))
    found = open_members([str(path)], 2, Reading(), FED_BACK)

    assert found.hold(np.datetime64("2020-01-01T06"))
    assert not found.hold(np.datetime64("2020-01-01T12"))
    (finding,) = found.findings(np.datetime64("2020-01-01T12"))
    assert f"in the member 2 of {path} the input times 2020-01-01T12:00 are missing" in str(finding)
    assert not found.only(0).findings(np.datetime64("2020-01-01T12"))


def test_several_grids_are_refused_until_they_are_apart(written, tmp_path):
    other = message("msl", longitudeOfFirstGridPointInDegrees=10.0, longitudeOfLastGridPointInDegrees=325.0)
    path = written(message("t2m"), other)
    with pytest.raises(InputError, match=r"a\.grib must have one grid, but has 2 \(5 x 8, 5 x 8 points\)"):
        read(path)
    with pytest.raises(InputError, match="all files of an archive must have one grid"):
        remedied(written, path, r"grib_copy [^ ]+ 'OUT_\[md5GridSection\].grib'")
    assert {name for part in tmp_path.glob("OUT*") for name in read(str(part)).data_vars} == {"t2m", "msl"}


@pytest.mark.slow
@pytest.mark.parametrize(("sample", "word"), [("reduced_gg_pl_32_grib1", "Gaussian"), ("sh_pl_grib2", "spectral")])
def test_what_is_on_no_regular_grid_is_refused_until_it_is_interpolated(tmp_path, written, sample, word):
    handle = eccodes.codes_grib_new_from_samples(sample)
    for key, value in {"paramId": 130, "level": 500}.items():
        eccodes.codes_set(handle, key, value)
    path = written(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises(InputError, match=word):
        read(path)
    archive = remedied(written, path, r"cdo remapbil,r1440x720 -[a-z2,]+ [^ ]+ OUT\.grib")
    assert archive.levels == (500,)
    assert archive.grid == regular_grid(45)


def test_a_grid_of_a_region_cannot_be_used(written):
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    eccodes.codes_set(handle, "gridType", "lambert")
    path = written(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises(InputError, match=r"a\.grib must have a grid of latitudes.* but has lambert; give data"):
        read(path)


def test_a_file_of_nothing_clear_is_refused(written):
    twice = message("msl"), message("msl", values=field("msl") + 1)
    with pytest.raises(InputError, match=r"must hold a variable whose fields .* once.*: msl is there twice"):
        read(written(*twice))


def test_a_field_that_is_repeated_is_read_once(written):
    rain = message("tp", stepType="accum", stepRange="0-6")
    found = read(written(message("msl"), message("msl"), rain, rain))
    np.testing.assert_array_equal(found["msl"][0], field("msl"))
    np.testing.assert_array_equal(found["tp"][1], field("tp"))


def test_of_two_forecasts_of_a_time_the_one_that_started_last_is_read(written):
    early = message("t", 0, 500, stepRange="6"), message("msl", 0, stepRange="6")
    late = message("t", 6, 500), message("msl", 6, stepRange="0")
    for messages in ((*early, *late), (*late, *early)):
        found = read(written(*messages))
        np.testing.assert_array_equal(found["t"][0, 0], field("t", 6, 500))
        np.testing.assert_array_equal(found["msl"][0], field("msl", 6))


def test_editions_of_grib_agree_on_what_holds_at_one_height(written):
    found = read(written(message("t2m", 0, edition=1), message("t2m", 6, edition=2)))
    assert found["t2m"].dims == ("valid_time", "latitude", "longitude")
    np.testing.assert_array_equal(found["t2m"], [field("t2m", 0), field("t2m", 6)])


@pytest.mark.parametrize("content", [b"", b"GRIB", b"hello"])
def test_what_is_no_grib_is_refused(tmp_path, content):
    (tmp_path / "a.grib").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.grib must be a complete GRIB file, but cannot be read"):
        read(str(tmp_path / "a.grib"))


def test_a_file_that_was_cut_off_is_refused(written):
    path = written(message("t2m"), message("msl")[:-20])
    with pytest.raises(InputError, match=r"a\.grib must be a complete GRIB file, but cannot be read"):
        read(path)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(InputNotFoundError, match=re.escape("must be a complete GRIB file, but there is none")):
        read(str(tmp_path / "none.grib"))


def test_nothing_is_written_beside_the_file_and_a_new_file_is_noticed(written, tmp_path):
    read(written(message("t2m")))
    assert [path.name for path in tmp_path.iterdir()] == ["a.grib"]
    assert set(read(written(message("t2m"), message("msl"))).data_vars) == {"t2m", "msl"}
