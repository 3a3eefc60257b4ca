"""Which file the fields that never change are taken from."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.quality.checks import find_faults
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS
from graphcast_batch.variables import LEVELS_13, VARIABLES

STATIC = ["geopotential_at_surface", "land_sea_mask"]
MOVING = [name for name, variable in VARIABLES.items() if variable.kind in ("surface", "level")]


@pytest.fixture(scope="module")
def weather():
    times = np.datetime64("2019-12-31T18", "ns") + np.arange(4) * np.timedelta64(6, "h")
    return SyntheticPlanet().fields([*MOVING, *STATIC], times, regular_grid(15), LEVELS_13)


def changed(fields):
    """Other statics, as another model has them, which pass for those of the Earth."""
    return fields.assign(
        geopotential_at_surface=fields["geopotential_at_surface"] * 0.5 + 100,
        land_sea_mask=fields["land_sea_mask"].round(),
    )


def written(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, fields in files.items():
        fields.to_netcdf(folder / f"{name}.nc", engine="netcdf4")
    return folder


def bare(fields):
    return fields[STATIC].drop_vars(["time", "level"], errors="ignore")


def statics_of(archive):
    return bare(archive.fields(STATIC, archive.times[:1], ()))


def test_a_file_of_statics_wins_over_what_the_archive_holds(tmp_path, weather):
    folder = written(tmp_path, a=changed(weather), right=weather[STATIC])

    archive = Archive(folder / "a.nc", statics=str(folder / "right.nc"))

    xr.testing.assert_equal(statics_of(archive), bare(weather))
    case = Case(np.datetime64("2020-01-01T00", "h"), 1, 6)
    frames = archive.read(case, TASKS["GraphCast_small"]).frames
    xr.testing.assert_equal(bare(frames), bare(weather))
    assert archive.cost(case, TASKS["GraphCast_small"]).wanted_bytes > 0


def test_it_wins_over_statics_that_the_archive_holds_at_every_time_in_another_unit(tmp_path, weather):
    heights = (
        (changed(weather)[STATIC] / 9.80665).expand_dims(time=weather["time"]).map(lambda a: a.assign_attrs(units="m"))
    )
    heights["land_sea_mask"].attrs["units"] = "1"
    folder = written(tmp_path, a=weather.drop_vars(STATIC).assign(heights), right=weather[STATIC])

    archive = Archive(folder / "a.nc", statics=str(folder / "right.nc"))

    xr.testing.assert_equal(statics_of(archive), bare(weather))
    assert archive.dims["land_sea_mask"] == ("latitude", "longitude")
    assert "converted" not in archive.changes


def test_a_file_of_statics_ends_a_quarrel_between_the_others(tmp_path, weather):
    folder = written(tmp_path / "in", a=weather, b=changed(weather)[STATIC])
    right = written(tmp_path / "right", right=weather[STATIC].expand_dims(time=weather["time"][:1]))
    with pytest.raises(InputError, match=r"must be the same in all files, .*a\.nc and .*b\.nc hold it differently"):
        Archive(folder)

    archive = Archive(folder, statics=str(right / "right.nc"))

    xr.testing.assert_equal(statics_of(archive), bare(weather))


@pytest.mark.parametrize(
    ("statics", "found"),
    [
        (lambda weather: weather[["2m_temperature"]], "holds none, of 2m_temperature;"),
        (
            lambda weather: weather[STATIC].expand_dims(time=weather["time"]),
            "holds geopotential_at_surface, land_sea_mask at 4 times, of .*; select one time",
        ),
    ],
)
def test_a_file_of_statics_that_gives_none_is_refused(tmp_path, weather, statics, found):
    folder = written(tmp_path, a=weather, other=statics(weather))

    with pytest.raises(InputError, match=rf"inputs\.statics must name a file that holds fields .*other\.nc {found}"):
        Archive(folder / "a.nc", statics=str(folder / "other.nc"))


@pytest.mark.parametrize("times", [1, 4])
def test_a_geopotential_whose_level_was_lost_beside_an_orography_is_refused(tmp_path, weather, times):
    lost = weather["geopotential"].sel(level=500, drop=True).isel(time=slice(times)).rename("z").to_dataset()
    folder = written(tmp_path, a=weather, geopotential_500=lost)

    with pytest.raises(InputError, match="looks like the geopotential at about 500 hPa without its level"):
        Archive(folder)


def test_alone_it_is_no_orography(tmp_path, weather):
    lost = weather["geopotential"].sel(level=500, drop=True).isel(time=0, drop=True).rename("z").to_dataset()
    folder = written(tmp_path, a=weather.drop_vars("geopotential_at_surface"), geopotential_500=lost)
    archive, task = Archive(folder), TASKS["GraphCast_small"]

    (fault,) = find_faults(archive.read(Case(np.datetime64("2020-01-01T00", "h"), 1, 6), task), task, archive.grid, 0)

    assert fault.variable == "geopotential_at_surface"
    assert "looks like the geopotential at about 500 hPa" in fault.found


def test_files_that_agree_are_one_archive_even_if_one_has_them_at_its_only_time_and_is_packed(tmp_path, weather):
    packed = {
        name: {"dtype": "int16", "scale_factor": 2.0 if name == STATIC[0] else 1e-4, "_FillValue": -32767}
        for name in STATIC
    }
    early, late = weather.isel(time=slice(3)), weather.isel(time=slice(3, 4))
    every = early.assign(early[STATIC].expand_dims(time=early["time"]))
    single = late.assign(late[STATIC].expand_dims(time=late["time"]))
    written(tmp_path, a=every, c=weather[STATIC])
    single.to_netcdf(tmp_path / "b.nc", engine="netcdf4", encoding=packed)

    archive = Archive(tmp_path)

    assert archive.times.size == 4
    assert archive.dims["land_sea_mask"] == ("latitude", "longitude")
    xr.testing.assert_allclose(statics_of(archive), bare(weather), atol=1)
