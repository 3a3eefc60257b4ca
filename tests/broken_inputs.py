"""Right weather becomes inputs that are broken in one way each, with what a user must read of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from .layouts import KINDS, SUMMED, archive, as_netcdf, as_zarr, cds, dataset_file, without_hourly

NAMED = "source-era5_date-2019-12-31_res-15.0_levels-13_steps-04.nc"


@dataclass(frozen=True)
class Broken:
    """One way in which inputs are broken.

    Attributes:
        write: writes them into a folder, of hourly weather, and gives the section ``inputs`` that reads them.
        told: regular expression of what must be told: who, what was expected, what was found, what to do.
    """

    write: Callable[[xr.Dataset, Path], dict]
    told: str


def same(fields):
    return fields


def in_netcdf(change, **more):
    """Six-hourly weather in one file, after a change."""
    return lambda fields, folder: archive(as_netcdf(change(without_hourly(fields)), folder / "broken.nc"), **more)


def in_dataset_file(change, name="frames.nc", beside=False):
    """The same in GraphCast's own layout, alone or beside a right file."""

    def write(fields, folder):
        right = Path(dataset_file(fields, folder)["path"])
        with xr.open_dataset(right, decode_timedelta=False) as dataset:
            changed = change(dataset.load())
        if not beside:
            right.unlink()
        as_netcdf(changed, folder / name)
        return {"kind": "datasets", "path": str(folder / "*.nc")}

    return write


def in_two_files(first, second):
    def write(fields, folder):
        as_netcdf(first(without_hourly(fields)), folder / "a.nc")
        as_netcdf(second(without_hourly(fields)), folder / "b.nc")
        return archive(folder)

    return write


def put(name, value, where=(1, 7, 4, 5)):
    """Of one variable a value, or some, at a place; by default at the second time, on the level of 500 hPa."""

    def apply(fields):
        array = fields[name].copy(deep=True)
        array.values[where] = value
        return fields.assign({name: array})

    return apply


def silently(name, factor, offset=0.0):
    """One variable in another unit, of which nothing is said."""

    def apply(fields):
        array = ((fields[name].astype(np.float64) - offset) / factor).astype(np.float32)
        return fields.assign({name: array.assign_attrs(units="")})

    return apply


def with_units(name, units):
    return lambda fields: fields.assign({name: fields[name].assign_attrs(units=units)})


def times(*chosen):
    return lambda fields: fields.isel(time=list(chosen))


def at_times(values, **attributes):
    return lambda fields: fields.assign_coords(time=("time", values, attributes))


def at_places(**values):
    return lambda fields: fields.assign_coords(values)


def finer(fields):
    places = {"latitude": np.linspace(-90, 90, 25), "longitude": np.arange(0, 360, 7.5)}
    return fields.sel(places, method="nearest").assign_coords(places)


def coarse(fields):
    places = [dim for dim in fields.dims if dim[:3] in ("lat", "lon")]
    return fields.isel(dict.fromkeys(places, slice(None, None, 2)))


def with_a_repeated_frame(fields):
    frames = [0, 0, *range(2, fields.sizes["time"])]
    repeated = fields.isel(time=frames).assign_coords(time=fields["time"])
    return repeated.assign(toa_incident_solar_radiation=fields["toa_incident_solar_radiation"])


def with_a_column_twice(fields):
    return fields.pad(longitude=(0, 1), mode="wrap").assign_coords(longitude=np.arange(0, 361, 15.0))


def curvilinear(fields):
    latitude, longitude = np.meshgrid(fields["latitude"], fields["longitude"], indexing="ij")
    scattered = fields.drop_vars(["latitude", "longitude"]).rename(latitude="y", longitude="x")
    return scattered.assign_coords(latitude=(("y", "x"), latitude), longitude=(("y", "x"), longitude))


def with_text(fields):
    return fields.assign(land_sea_mask=("latitude", np.array([f"row {row}" for row in range(13)])))


def warmer(fields):
    return fields.assign(temperature=(fields["temperature"] + 5).assign_attrs(units="K"))


def packed_without_scale(fields):
    counts = ((fields["temperature"] - 260) / 0.005).astype(np.int16)
    return fields.assign(temperature=counts.assign_attrs(units="K"))


def never_filled(fields, folder):
    """Five levels written, the others left to netCDF's filler."""
    frames = without_hourly(fields)
    path = as_netcdf(frames.drop_vars("temperature"), folder / "filler.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.createVariable("temperature", "f4", frames["temperature"].dims)[:, :5] = frames["temperature"][:, :5]
    return archive(path)


def of_endless_times(fields, folder):
    path = as_netcdf(without_hourly(fields), folder / "endless.nc", unlimited_dims=["time"])
    with netCDF4.Dataset(path, "a") as file:
        file["time"][6_000_000] = 0
    return archive(path)


def of_many_members(fields, folder):
    """Of a variable that would take exabytes nothing is written."""
    path = as_netcdf(without_hourly(fields).drop_vars("temperature"), folder / "huge.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("number", 10**12)
        dims = ("time", "level", "latitude", "longitude", "number")
        file.createVariable("temperature", "f4", dims, chunksizes=(1, 1, 13, 24, 1))
    return archive(path)


def without_chunks(filler):
    """Those of one field are deleted, which reads as the filler, or as 0 if there is none."""

    def write(fields, folder):
        encoding = {"temperature": {"chunks": (1, 1, 13, 12), "_FillValue": filler}}
        path = as_zarr(without_hourly(fields), folder / "holes.zarr", encoding=encoding)
        lost = list((path / "temperature").glob("1.7.0.*"))
        assert len(lost) == 2
        for chunk in lost:
            chunk.unlink()
        return archive(path)

    return write


def with_fill_value_0(fields, folder):
    encoding = {"land_sea_mask": {"_FillValue": 0.0}}
    return archive(as_zarr(without_hourly(fields), folder / "zeros.zarr", encoding=encoding))


def with_flipped_bytes(fields, folder):
    path = as_zarr(without_hourly(fields), folder / "flipped.zarr")
    chunk = max((path / "geopotential").glob("[0-9]*"), key=lambda file: file.stat().st_size)
    content = bytearray(chunk.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 64)
    content[middle] = bytes(255 - byte for byte in content[middle])
    chunk.write_bytes(content)
    return archive(path)


def without_metadata(fields, folder):
    path = as_zarr(without_hourly(fields), folder / "bare.zarr")
    for part in path.rglob(".z*"):
        part.unlink()
    return archive(path)


def with_metadata_cut_off(fields, folder):
    path = folder / "cut.zarr"
    without_hourly(fields).drop_encoding().to_zarr(path, zarr_format=3, consolidated=False)
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:20])
    return archive(path)


def cut_off(layout):
    def write(fields, folder):
        path = as_netcdf(without_hourly(fields), folder / "cut.nc", format=layout)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return archive(path)

    return write


def grib_cut_off(_, folder):
    eccodes = pytest.importorskip("eccodes", reason="the extra grib is not installed")
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
    message = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return of_bytes("cut.grib", message + message[: len(message) // 2])(_, folder)


def of_bytes(name, content):
    def write(_, folder):
        (folder / name).write_bytes(content)
        return archive(folder / name)

    return write


def of_nothing(name):
    return lambda _, folder: archive(folder / name)


def of_an_empty_folder(_, folder):
    (folder / "downloads").mkdir()
    return archive(folder / "downloads")


def cds_every_6_hours(fields, folder):
    return cds(fields.isel(time=slice(6, None, 6)), folder)


def restarting(fields, folder):
    """Precipitation since the start of one forecast, then of the next."""
    frames = fields.drop_vars([SUMMED, "total_precipitation"]).isel(time=slice(None, None, 6))
    total = fields["total_precipitation"].astype(np.float64).cumsum("time").isel(time=slice(None, None, 6))
    next_one = total["time"] >= np.datetime64("2020-01-01")
    total = (total - next_one * total.isel(time=1)).assign_attrs(units="m")
    return archive(as_netcdf(frames.assign(total_precipitation=total), folder / "sums.nc"), precipitation="since_start")


def with_statics_of_land_only(fields, folder):
    frames = without_hourly(fields)
    moving = as_netcdf(frames.drop_vars(KINDS["static"]), folder / "moving.nc")
    return archive(moving, statics=str(as_netcdf(frames[["land_sea_mask"]], folder / "statics.nc")))


def dataset_as_archive(fields, folder):
    return archive(dataset_file(fields, folder)["path"])


def archive_as_dataset(fields, folder):
    return {"kind": "datasets", "path": in_netcdf(same)(fields, folder)["path"]}


MOON = {"units": "moons since 2020-01-01"}
HALF_PAST = np.datetime64("2019-12-31T18:30", "ns") + np.arange(6) * np.timedelta64(6, "h")
OF_360_DAYS = xr.date_range("2019-12-30T18", periods=6, freq="6h", calendar="360_day", use_cftime=True)
LATITUDE, LONGITUDE = np.linspace(-90, 90, 13), np.arange(0, 360, 15.0)
AGAIN = "copy or download it again"

BROKEN = {
    # What is missing.
    "a variable is missing": Broken(
        in_netcdf(lambda f: f.drop_vars("vertical_velocity")),
        "vertical_velocity must be there, but it lacks the variables vertical_velocity and has 10m_u.*; add them, ",
    ),
    "a variable of a dataset file is missing": Broken(
        in_dataset_file(lambda d: d.drop_vars("geopotential")),
        r"frames\.nc: geopotential must be there, but it lacks the variables geopotential and has 10m_u.*; add "
        r"them, ",
    ),
    "a level is missing": Broken(
        in_netcdf(lambda f: f.drop_sel(level=925)),
        r"geopotential, .* must be on the levels \[50, .* hPa, but \[925\] are missing from .*; provide them, or ",
    ),
    "an initial time is missing": Broken(
        in_netcdf(times(0, 1)),
        "time must hold every time that the forecast needs, but the input times 2020-01-01T06:00 are missing from its "
        "2 times, 2019-12-31T18:00 to 2020-01-01T00:00; add them, or start from other times",
    ),
    "the time 6 h before is missing": Broken(
        in_netcdf(times(1, 2, 3)),
        "time must hold every .*, but the input times 2019-12-31T18:00 are missing from .*; add them, or ",
    ),
    "times at half past": Broken(
        in_netcdf(at_times(HALF_PAST)),
        "time must hold every .*, but the input times .* are missing from .* 2019-12-31T18:30 to .*; add them, or ",
    ),
    "no times": Broken(in_netcdf(times()), r"broken\.nc must hold at least one time, but holds none; give files "),
    "the static is not in its file": Broken(
        with_statics_of_land_only,
        "geopotential_at_surface must be there, but it lacks the variables geopotential_at_surface .*; add them",
    ),
    "downloads of every 6 h": Broken(
        cds_every_6_hours,
        "total_precipitation_6hr must hold every time .*, but the input times .* are missing from its 0 times; "
        "it is computed from "
        r"total_precipitation \(hourly\) at each time and 1, 2, 3, 4, 5 h before: add those times, correct ",
    ),
    "a pattern without match": Broken(
        of_nothing("era5-*.nc"),
        r"the pattern .*era5-\*\.nc must match netCDF, GRIB or zarr, but matches nothing .*; correct inputs\.path",
    ),
    "no such file": Broken(
        of_nothing("none.nc"),
        r"the input .*none\.nc must be a complete netCDF file, but there is none .*; give the path of existing data",
    ),
    "a folder without files": Broken(
        of_an_empty_folder,
        r"the folder .*downloads must hold netCDF, GRIB or zarr, but holds nothing .*; correct inputs\.path",
    ),
    # What is not whole.
    "netCDF4 cut off": Broken(
        cut_off("NETCDF4"), rf"cut\.nc must be a complete netCDF file, but cannot be read: .* HDF error.*; {AGAIN}"
    ),
    "netCDF3 cut off": Broken(
        cut_off("NETCDF3_64BIT"),
        rf"cut\.nc must be a complete netCDF file, but .* it has \d+ of the \d+ bytes .*; {AGAIN}",
    ),
    "an empty file": Broken(
        of_bytes("none.nc", b""), rf"none\.nc must be a complete netCDF file, but cannot be read: it is empty; {AGAIN}"
    ),
    "a page in place of a file": Broken(
        of_bytes("page.nc", b"<html>404 Not Found</html>\n"),
        rf"page\.nc must be a complete netCDF file, but .* it is text that begins with '<html>404 Not .*; {AGAIN}",
    ),
    "GRIB cut off": Broken(
        grib_cut_off, rf"cut\.grib must be a complete GRIB file, but cannot be read: End of resource .*; {AGAIN}"
    ),
    "no GRIB": Broken(
        of_bytes("none.grib", b"GRAB"), rf"none\.grib must be a complete GRIB file, but .* No valid message.*; {AGAIN}"
    ),
    "no zip": Broken(
        of_bytes("none.zarr.zip", b"PK"), rf"zarr\.zip must be a zarr store, but .*: File is not a zip file; {AGAIN}"
    ),
    "zarr with flipped bytes": Broken(
        with_flipped_bytes,
        rf"flipped\.zarr must be complete, but cannot be read: .* decompression.*; {AGAIN}, or leave the Case out",
    ),
    "zarr without metadata": Broken(
        without_metadata,
        r"the input .*bare\.zarr must be a zarr store, but there is none .*; give the path of existing",
    ),
    "zarr with metadata cut off": Broken(
        with_metadata_cut_off, rf"cut\.zarr must be a zarr store, but cannot be read: .* line 2 column .*; {AGAIN}"
    ),
    "times without end": Broken(
        of_endless_times,
        rf"endless\.nc must have at most 5000000 values each, but it declares 6000001 values of time; {AGAIN}",
    ),
    # What cannot be weather.
    "a NaN": Broken(
        in_netcdf(put("temperature", np.nan)),
        "temperature must be finite, but 1 of 8112 values are missing or infinite, the first at time 2020-01-01T00:00, "
        "level 500, latitude -30, longitude 75, in 1 of 13 levels, in 1 of 2 times; fill them from another source, or ",
    ),
    "NaN below the ground": Broken(
        in_netcdf(put("geopotential", np.nan, np.s_[:, -1, :6])),
        "geopotential must be finite, but 288 of 8112 values .* level 1000, .* in 1 of 13 levels, in 2 of 2 "
        "times; fill",
    ),
    "infinity": Broken(
        in_netcdf(put("specific_humidity", np.inf)),
        "specific_humidity must be finite, but 1 of 8112 values are missing or infinite, .* level 500, .*; fill them",
    ),
    "netCDF's filler": Broken(
        never_filled, "temperature must be finite, but 4992 of 8112 values .* level 300, .* in 8 of 13 levels, .*; fill"
    ),
    "zarr without chunks, filler NaN": Broken(
        without_chunks(np.nan),
        "temperature must be finite, but 312 of 8112 values .* 2020-01-01T00:00, level 500, .*; fill them",
    ),
    "zarr without chunks, no filler": Broken(
        without_chunks(None),
        "temperature must be exactly 0 in no more than 10% of a field, but 1 of 26 fields are 0 in up to 100%, the "
        "first at time 2020-01-01T00:00, level 500, .*; chunks that were never written read as 0: complete ",
    ),
    "a field of one value": Broken(
        in_netcdf(put("temperature", 260.0, (1, 7))),
        "temperature must vary over the globe, but 1 of 26 fields hold one value .* level 500, .*; complete the data",
    ),
    "a frame twice": Broken(
        in_netcdf(with_a_repeated_frame),
        "10m_u_.*, vertical_velocity must change within 6 h, but the frames number 1 and 2 are the same .*; "
        "check whether|toa_incident_solar_radiation must be the solar radiation of the hour .*, but .*; correct",
    ),
    "too hot": Broken(
        in_netcdf(put("temperature", 400)),
        "temperature must lie within .* K at 500 hPa, but 1 of 8112 values .* to 400 in all, the first at time "
        "2020-01-01T00:00, level 500, latitude -30, longitude 75, .*; correct the data",
    ),
    "less than dry": Broken(
        in_netcdf(put("specific_humidity", -0.01)),
        r"specific_humidity must lie within .* at 500 hPa, but 1 of 8112 values lie .* at -0\.01 to .*; correct "
        r"the data",
    ),
    "too high": Broken(
        in_netcdf(put("geopotential", 3e5)),
        r"geopotential must lie within .* m\*\*2 s\*\*-2 at 500 hPa, but 1 of 8112 .* to 300000 in .*; correct "
        r"the data",
    ),
    "too low a pressure": Broken(
        in_netcdf(put("mean_sea_level_pressure", 7e4, (1, 4, 5))),
        "mean_sea_level_pressure must lie within 83000 and 112000 Pa, but 1 of 624 values .* at 70000 .*; correct the",
    ),
    "too much rain": Broken(
        in_netcdf(put(SUMMED, 7, (1, 4, 5))),
        rf"{SUMMED} must lie within .* m, but 1 of 624 values .*; correct the data",
    ),
    "a planet without mountains": Broken(
        in_netcdf(put("geopotential_at_surface", 0, ...)),
        r"geopotential_at_surface must not be 0 everywhere, but 1 of 1 fields are 0 all .*; the data hold no",
    ),
    "packed data without their scale": Broken(
        in_netcdf(packed_without_scale), "temperature must lie within .*, but 80[0-9]{2} of 8112 values .*; correct the"
    ),
    # What is in another unit, or order.
    "hPa": Broken(
        in_netcdf(silently("mean_sea_level_pressure", 100)),
        "mean_sea_level_pressure must lie within 83000 and 112000 Pa, but 624 of 624 values .*; this looks like hPa: "
        r"give inputs\.units \{mean_sea_level_pressure: 'hPa'\}, or convert it",
    ),
    "Celsius": Broken(
        in_netcdf(silently("2m_temperature", 1, 273.15)),
        r"2m_temperature must lie within .*, but .*; this looks like C: give inputs\.units \{2m_temperature: 'C'\}",
    ),
    "Celsius on levels": Broken(
        in_netcdf(silently("temperature", 1, 273.15)),
        r"temperature must lie within .*, but .*; this looks like C: give inputs\.units \{temperature: 'C'\}",
    ),
    "millimeters": Broken(
        in_netcdf(silently(SUMMED, 1e-3)),
        rf"{SUMMED} must lie within .*, but .*; this looks like mm: give inputs\.units \{{{SUMMED}: 'mm'\}}",
    ),
    "height for geopotential": Broken(
        in_netcdf(silently("geopotential", 9.80665)),
        r"geopotential must lie within .*, but .*; this looks like m: give inputs\.units \{geopotential: 'm'\}",
    ),
    "grams": Broken(
        in_netcdf(silently("specific_humidity", 1e-3)),
        "specific_humidity must lie within .*, but 8112 of 8112 .*; this looks like g kg-1: give inputs.units ",
    ),
    "percent": Broken(
        in_netcdf(silently("land_sea_mask", 0.01)),
        r"land_sea_mask must lie within -0.05 and 1.05, but .* 0 to 100 in all.*; this looks like %: give "
        r"inputs\.units ",
    ),
    "levels in Pa": Broken(
        in_netcdf(lambda f: f.assign_coords(level=f["level"] * 100)),
        r"geopotential, .* must be on the levels .*, but .* are missing from \[5000, .*; these look like Pa: set "
        r"inputs\.units: \{level: Pa\}",
    ),
    "a unit that is none": Broken(
        in_netcdf(with_units("temperature", "furlong")),
        r"temperature of .*broken\.nc must be in K or a unit .*, but is in 'furlong'; convert it, or if "
        r"the data are wrong about it, state the unit: inputs\.units \{temperature: 'K'\}",
    ),
    "a level twice": Broken(
        in_netcdf(lambda f: f.isel(level=[0, *range(12)])),
        r"coordinate level of .*broken\.nc must hold each level once, but is \[50, 50, 100, .*; drop the repeats",
    ),
    "levels in words": Broken(
        in_netcdf(lambda f: f.assign_coords(level=[f"{level} hPa" for level in f["level"].values])),
        "coordinate level of .* must hold numbers, but holds <U8; give it as numbers",
    ),
    "a time twice": Broken(
        in_netcdf(times(0, 1, 1, 2)),
        r"times of .*broken\.nc must ascend, each once, but 2020-01-01T00:00.* is there twice; sort them",
    ),
    "times out of order": Broken(
        in_netcdf(times(0, 2, 1)),
        "times of .* must ascend, each once, but 2020-01-01T00:00.* follows 2020-01-01T06:00.*; sort them, "
        "and drop repeats",
    ),
    "times that are numbers": Broken(
        in_netcdf(at_times(np.arange(6))),
        r"coordinate time of .* must hold dates of the standard calendar, but holds int64; give it units such as ",
    ),
    "times of 360 days a year": Broken(
        in_netcdf(at_times(OF_360_DAYS)),
        "coordinate time of .* must hold dates of the standard calendar, but holds those of the calendar 360_day; .* "
        r"convert them: python -c .*convert_calendar\(",
    ),
    "times in moons": Broken(
        in_netcdf(at_times(np.arange(6), **MOON)),
        r"times of .*broken\.nc must be dates, but cannot .* 'moons since 2020-01-01'.*; give time units such as "
        r"\"hours",
    ),
    "precipitation that starts again": Broken(
        restarting,
        r"total_precipitation of .*sums\.nc must not fall with time, as it is summed since a start, but at "
        r"2020-01-01T00:00 it is .* m less than 6 h before; another forecast starts between: keep .*, or set "
        r"inputs\.precipitation: hourly, or leave the Case out",
    ),
    # What lies elsewhere.
    "a finer grid": Broken(
        in_netcdf(finer),
        r"broken\.nc must be on a grid of 15°, .*, but is on 25 x 48 \(7\.5°\); set inputs\.regrid: subsample, ",
    ),
    "a coarser grid": Broken(
        in_netcdf(coarse),
        r"must be on a grid of 15°, .*, but is on 7 x 12 \(30°\); give inputs of that resolution, or ",
    ),
    "a coarser grid to be made finer": Broken(
        in_netcdf(coarse, regrid="linear"),
        r"data on 7 x 12 \(30°\) can only be regridded to that resolution or a coarser one, not to 15°; "
        r"use ",
    ),
    "two grids": Broken(
        in_two_files(times(0, 1, 2), lambda f: coarse(f.isel(time=[3, 4]))),
        r"all files of an archive must have one grid, but .*a\.nc has 13 x 24 \(15°\) and .*b\.nc has 7 x 12 .*; "
        r"regrid ",
    ),
    "a pole is missing": Broken(
        in_netcdf(lambda f: f.isel(latitude=slice(1, None))),
        r"the grid of .*broken\.nc .* must hold both poles or neither, but lacks the row at -90°: -75, .*; download",
    ),
    "the tropics are missing": Broken(
        in_netcdf(lambda f: f.isel(latitude=[0, 1, 2, 3, 9, 10, 11, 12])),
        r"the grid of .*broken\.nc .* must be uniformly spaced, but its steps run from 15 to 90 degrees; regrid "
        r"the data",
    ),
    "Europe alone": Broken(
        in_netcdf(lambda f: f.sel(latitude=slice(30, 75), longitude=slice(0, 45))),
        r"the grid of .*broken\.nc .* must reach both poles .*, but is 30, 45, 60, 75; give global data",
    ),
    "half the globe": Broken(
        in_netcdf(lambda f: f.sel(longitude=slice(0, 179))),
        r"the grid of .* must go once around the globe .*, but its steps run from 15 to 15°; give global data",
    ),
    "uneven longitudes": Broken(
        in_netcdf(at_places(longitude=LONGITUDE + (LONGITUDE > 100))),
        "the grid of .* must go once around the globe in 24 equal steps of 15°, but its steps run from 15 to "
        "16°; give ",
    ),
    "radians": Broken(
        in_netcdf(at_places(latitude=np.deg2rad(LATITUDE), longitude=np.deg2rad(LONGITUDE))),
        r"the grid of .* must reach both poles .*, but is -1\.57.*; give global data",
    ),
    "the first column again at the end": Broken(
        in_netcdf(with_a_column_twice),
        r"longitude of .*broken\.nc must hold each place on the globe once, but 0° is there twice; drop the repeats",
    ),
    "a latitude that is none": Broken(
        in_netcdf(at_places(latitude=np.where(LATITUDE == 30, np.nan, LATITUDE))),
        r"latitude of .*broken\.nc must hold finite numbers, but holds nan at index 8 of 13; correct it",
    ),
    "curvilinear": Broken(
        in_netcdf(curvilinear),
        r"must have the coordinate latitude of one dimension, but has .* latitude \(y, x\), .* in inputs\.names.*, or "
        r"regrid it",
    ),
    # What is called or laid out otherwise.
    "a layout that nobody knows": Broken(
        in_netcdf(lambda f: f[["temperature"]].rename(temperature="thetao", level="depth")),
        r"broken\.nc must have variables of a known layout .*, but has thetao; map them to the names of .*, such as ",
    ),
    "two of one name": Broken(
        in_netcdf(lambda f: f.assign(ta=f["temperature"]), names={"ta": "temperature"}),
        r"one variable of .*broken\.nc must be temperature, but temperature and ta both are; .* inputs\.names ",
    ),
    "two members": Broken(
        in_netcdf(lambda f: f.assign(temperature=f["temperature"].expand_dims(number=2))),
        "temperature of .* must have dimensions among time, .*, but has number, time, .*; select one place along",
    ),
    "members without end": Broken(
        of_many_members, "temperature of .* must have dimensions among time, .*, but has .*, number; select one place"
    ),
    "no time where it must be": Broken(
        in_netcdf(lambda f: f.assign({"2m_temperature": f["2m_temperature"].isel(time=0, drop=True)})),
        "2m_temperature must have the dimensions time, latitude, longitude, but has latitude, longitude; transpose it",
    ),
    "text": Broken(
        in_netcdf(with_text),
        r"land_sea_mask of .*broken\.nc must hold numbers, but holds <U6; give it as numbers, or .* inputs\.names, or "
        "leave the Case out",
    ),
    "a time in two files": Broken(
        in_two_files(times(0, 1, 2), lambda f: warmer(f).isel(time=[2, 3, 4])),
        r"each time of temperature must be in one file, or be alike in all that hold it, but 2020-01-01T06:00 on \d+ "
        r"hPa is in .*a\.nc and in .*b\.nc with values that differ by up to 5; leave one of them out of inputs\.path",
    ),
    # What is called otherwise.
    "no precipitation": Broken(
        in_netcdf(lambda f: f.drop_vars(SUMMED)),
        f"{SUMMED} must be there, but it lacks the variables {SUMMED} and has 10m_u.*; add them, .* inputs.names, "
        "or use a checkpoint",
    ),
    "a variable with a slip in its name": Broken(
        in_netcdf(lambda f: f.rename(temperature="temperatur")),
        r"temperature must be there, .*, such as inputs\.names \{temperatur: temperature\}, or use a checkpoint",
    ),
    "all names in another language": Broken(
        in_netcdf(lambda f: f.rename({name: f"{name}_feld" for name in f.data_vars})),
        r"broken\.nc must have variables of a known layout \(grib, .*\), but has 10m_u_component_of_wind_feld, .*; "
        r".* the model.s variables, such as inputs\.names \{",
    ),
    "a hundred other names": Broken(
        in_netcdf(lambda f: f.drop_vars("temperature").assign({f"t{n}": f["2m_temperature"] for n in range(100)})),
        r"temperature must be there, but it lacks the variables temperature and has 113 others, of which t\d+, t\d+, "
        r"t\d+, t\d+, t\d+ are nearest by name; add them",
    ),
    "levels of another name": Broken(
        in_netcdf(lambda f: f.rename(level="stockwerk")),
        "must have the dimension level, but has time, stockwerk, latitude, longitude; say in inputs.names which it is, "
        r"such as inputs\.names \{stockwerk: level\}",
    ),
    "latitudes of another name": Broken(
        in_netcdf(lambda f: f.rename(latitude="y")),
        r"must have the coordinate latitude of one dimension, but has .*, y \(y\); .* inputs\.names \{y: latitude\}",
    ),
    "times that may be starts of forecasts": Broken(
        in_netcdf(lambda f: f.rename(time="forecast_reference_time")),
        "must have the dimension time, but has dates along forecast_reference_time, .* valid times; "
        r"if they are .*, set inputs\.names \{forecast_reference_time: time\}",
    ),
    "two temperatures": Broken(
        in_netcdf(lambda f: f.assign(t=f["temperature"])),
        r"one variable of .*broken\.nc must be temperature, but temperature and t both are; .* inputs\.names "
        r"\{t: other_t\}",
    ),
    "precipitation as a rate": Broken(
        in_netcdf(with_units(SUMMED, "kg m-2 s-1")),
        rf"{SUMMED} of .* must be in m .*, but is in 'kg m-2 s-1', a rate; multiply it by .* "
        rf"seconds, or if the data are wrong about it, state the unit: inputs\.units \{{{SUMMED}: 'm'\}}",
    ),
    "zarr whose zeros are missing": Broken(
        with_fill_value_0,
        r"land_sea_mask must be finite, but \d+ of 312 values .*; its fill value is 0, so its zeros read as missing: "
        r"if they are data, write it with another \(in zarr, set fill_value to null in its \.zarray and ",
    ),
    # Dataset files.
    "hPa in a dataset file": Broken(
        in_dataset_file(silently("mean_sea_level_pressure", 100)),
        r"mean_sea_level_pressure must lie within .*; this looks like hPa: give inputs\.units \{mean_sea_level",
    ),
    "levels in Pa in a dataset file": Broken(
        in_dataset_file(lambda d: d.assign_coords(level=d["level"] * 100)),
        r"frames\.nc: geopotential, .* these look like Pa: set inputs\.units: \{level: Pa\}",
    ),
    "a unit that is none in a dataset file": Broken(
        in_dataset_file(with_units("temperature", "furlong")),
        r"temperature of .*frames\.nc must be in K or .*, but is in 'furlong'; .* inputs\.units \{temperature: 'K'\}",
    ),
    "a slip in a name in a dataset file": Broken(
        in_dataset_file(lambda d: d.rename(temperature="temperatur")),
        r"temperature must be there, .*, such as inputs\.names \{temperatur: temperature\}, or use",
    ),
    "a dataset file as an archive": Broken(
        dataset_as_archive,
        r"steps-04\.nc must be an archive, but is a GraphCast dataset file; use inputs\.kind: datasets",
    ),
    "an archive as dataset files": Broken(
        archive_as_dataset,
        r"must have the dimension time and the coordinate datetime .*, but has .*; if its times are absolute, use",
    ),
    "frames 12 h apart": Broken(
        in_dataset_file(lambda d: d.isel(time=slice(None, None, 2))),
        r"frames of .*frames\.nc must be 6 h apart, but are at 2019-12-31T18:00, 2020-01-01T06:00, .*; select "
        r"frames 6 h",
    ),
    "frames out of order": Broken(
        in_dataset_file(lambda d: d.isel(time=[0, 2, 1])),
        "frames of .* must be 6 h apart, but are at 2019-12-31T18:00, 2020-01-01T06:00, 2020-01-01T00:00; select "
        "frames",
    ),
    "one frame": Broken(
        in_dataset_file(lambda d: d.isel(time=[0])),
        r"frames\.nc must hold the 2 frames that go into the model, but holds 1; add those before, or leave the "
        r"file out",
    ),
    "a batch of two": Broken(
        in_dataset_file(lambda d: xr.concat([d, d], "batch", data_vars="minimal")),
        r"the dimension batch of .*frames\.nc must have size 1, but has 2; write each forecast's frames into a file",
    ),
    "another date in the name": Broken(
        in_dataset_file(same, NAMED.replace("12-31", "12-30")),
        "the name of .* contradicts its content: date is 2019-12-30 in the name and 2019-12-31 in the file; rename or ",
    ),
    "another resolution in the name": Broken(
        in_dataset_file(same, NAMED.replace("15.0", "1.0")),
        r"the name of .* contradicts its content: res is 1\.0 in the name and 15\.0 in the file; rename or replace",
    ),
    "other levels in the name": Broken(
        in_dataset_file(same, NAMED.replace("levels-13", "levels-37")),
        "the name of .* contradicts its content: levels is 37 in the name and 13 in the file; rename or replace",
    ),
    "other steps in the name": Broken(
        in_dataset_file(same, NAMED.replace("steps-04", "steps-12")),
        "the name of .* contradicts its content: steps is 12 in the name and 4 in the file; rename or replace",
    ),
    "a dataset file on another grid": Broken(
        in_dataset_file(coarse, beside=True),
        r"frames\.nc must be on a grid of 15°, .*, but is on 7 x 12 \(30°\); give weights .*, or leave the file out",
    ),
    "a time in two dataset files": Broken(
        in_dataset_file(same, beside=True),
        r"each dataset file must have an initial time of its own, but .*frames\.nc and .* both start at "
        r"2020-01-01T00; ",
    ),
}

MENDED = {
    "hPa",
    "Celsius",
    "Celsius on levels",
    "millimeters",
    "height for geopotential",
    "grams",
    "percent",
    "levels in Pa",
    "a unit that is none",
    "a finer grid",
    "a variable with a slip in its name",
    "levels of another name",
    "latitudes of another name",
    "times that may be starts of forecasts",
    "two temperatures",
    "precipitation as a rate",
    "hPa in a dataset file",
    "levels in Pa in a dataset file",
    "a unit that is none in a dataset file",
    "a slip in a name in a dataset file",
    "a dataset file as an archive",
}
"""Those whose message has a change of the config with which the same data are right."""
