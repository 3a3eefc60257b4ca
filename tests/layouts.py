"""The same weather written in every layout that people have; what each must be recognized as, and how near it stays."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.models.forcings import solar_radiation
from graphcast_batch.variables import LEVELS_13, VARIABLES

DEGREES = 15
FIRST, LAST = np.datetime64("2019-12-31T12", "ns"), np.datetime64("2020-01-02T00", "ns")
SHORT = {
    "temperature": "t",
    "geopotential": "z",
    "u_component_of_wind": "u",
    "v_component_of_wind": "v",
    "vertical_velocity": "w",
    "specific_humidity": "q",
    "2m_temperature": "t2m",
    "mean_sea_level_pressure": "msl",
    "10m_u_component_of_wind": "u10",
    "10m_v_component_of_wind": "v10",
    "total_precipitation": "tp",
    "toa_incident_solar_radiation": "tisr",
    "land_sea_mask": "lsm",
    "geopotential_at_surface": "z",
}
KINDS = {kind: [v.name for v in VARIABLES.values() if v.kind == kind] for kind in ("level", "surface", "static")}
SUMMED = "total_precipitation_6hr"


def weather(degrees=DEGREES):
    """Every hour of all variables; precipitation of each hour, and of the six before from the seventh on."""
    grid = regular_grid(degrees)
    times = np.arange(FIRST, LAST + np.timedelta64(1, "h"), np.timedelta64(1, "h"))
    names = [name for kind in KINDS.values() for name in kind]
    fields = SyntheticPlanet().fields(names, times, grid, LEVELS_13)
    hourly = (fields[SUMMED] / 6).astype(np.float32)
    summed = hourly.astype(np.float64).rolling(time=6).sum().astype(np.float32)
    sun = solar_radiation(times, grid.latitude, grid.longitude).astype(np.float32)
    fields = fields.assign(
        {
            SUMMED: summed,
            "total_precipitation": hourly,
            "toa_incident_solar_radiation": (("time", "latitude", "longitude"), np.asarray(sun)),
        }
    )
    for name, array in fields.data_vars.items():
        array.attrs = {"units": VARIABLES[name].units} if name in VARIABLES else {"units": "m"}
    return fields


def every_6_hours(fields):
    """From the first time on at which the precipitation of 6 h is known."""
    return fields.isel(time=slice(6, None, 6))


@dataclass(frozen=True)
class Layout:
    """One way of writing the weather.

    Attributes:
        write: writes hourly weather into a folder and gives the section ``inputs`` that reads it.
        title: what `plan` must call it.
        exact: whether the inputs are those of GraphCast's own layout bit by bit.
        degrees: grid that the weather is written on.
    """

    write: Callable[[xr.Dataset, Path], dict]
    title: str
    exact: bool = True
    degrees: float = DEGREES


def dataset_file(fields, folder):
    """GraphCast's own layout: what the others are held against."""
    frames = every_6_hours(fields).drop_vars("total_precipitation")
    times = frames["time"].values
    moving = [name for name, array in frames.data_vars.items() if "time" in array.dims]
    frames = frames.rename(latitude="lat", longitude="lon").assign_coords(time=times - times[0])
    complete = xr.merge([frames[moving].expand_dims("batch"), frames.drop_vars(moving)])
    path = folder / f"source-era5_date-2019-12-31_res-{DEGREES:.1f}_levels-13_steps-{times.size - 2:02}.nc"
    complete.assign_coords(datetime=(("batch", "time"), times[None])).to_netcdf(path, engine="netcdf4")
    return {"kind": "datasets", "path": str(path), "per_file": "all"}


def archive(path, **more):
    return {"kind": "archive", "path": path if isinstance(path, list) else str(path), **more}


def as_zarr(fields, path, **options):
    fields.drop_encoding().to_zarr(path, zarr_format=2, consolidated=True, **options)
    return path


def as_netcdf(fields, path, **options):
    fields.drop_encoding().to_netcdf(path, engine="netcdf4", **options)
    return path


def without_hourly(fields):
    return every_6_hours(fields).drop_vars("total_precipitation")


def north_first(fields):
    return fields.isel(latitude=slice(None, None, -1))


def more_levels(fields):
    """Levels from below upward, with two that the task does not take."""
    aloft = fields[KINDS["level"]].interp(level=[*LEVELS_13, 225, 975], method="nearest")
    aloft = (
        aloft.transpose("time", "level", ...).isel(level=slice(None, None, -1)).assign_coords(level=lambda f: f.level)
    )
    return xr.merge([fields.drop_dims("level"), aloft.astype(np.float32)])


def weatherbench(fields, folder):
    return archive(as_zarr(north_first(more_levels(without_hourly(fields))), folder / "era5.zarr"))


def weatherbench_low(fields, folder):
    turned = without_hourly(fields).transpose("time", "level", "longitude", "latitude", missing_dims="ignore")
    return archive(as_zarr(turned, folder / "era5-low.zarr"))


def weatherbench_forecasts(fields, folder):
    """Two forecasts a day of 0 to 12 h, with precipitation since their start."""
    leads = np.arange(0, 13, 6) * np.timedelta64(1, "h")
    inits = np.array(["2019-12-31T12", "2020-01-01T00", "2020-01-01T12"], "datetime64[ns]")
    moving = [name for name, array in fields.data_vars.items() if "time" in array.dims and name != SUMMED]
    runs = []
    for init in inits:
        valid = init + leads
        frames = fields[moving].reindex(time=valid)
        hourly = fields["total_precipitation"].astype(np.float64)
        since = [hourly.where((hourly.time > init) & (hourly.time <= time), drop=True).sum("time") for time in valid]
        total = xr.concat(since, "time").assign_coords(time=valid)
        frames["total_precipitation"] = total.where(
            frames["temperature"].notnull().any(("level", "latitude", "longitude"))
        )
        runs.append(frames.assign_coords(time=leads).rename(time="prediction_timedelta"))
    complete = xr.concat(runs, "time").assign_coords(time=inits)
    complete["total_precipitation"].attrs["units"] = "m"
    return archive(as_zarr(xr.merge([complete, fields[KINDS["static"]]]), folder / "forecasts.zarr"))


def arco(fields, folder):
    hourly = north_first(fields.drop_vars(SUMMED))
    return archive(as_zarr(hourly, folder / "arco.zarr"))


def arco_apart(fields, folder):
    hourly = north_first(fields.drop_vars(SUMMED))
    levels = as_zarr(hourly[KINDS["level"]], folder / "levels.zarr")
    surface = as_zarr(hourly.drop_vars(KINDS["level"] + KINDS["static"]).drop_vars("level"), folder / "surface.zarr")
    statics = as_netcdf(hourly[KINDS["static"]], folder / "statics.nc")
    return archive([str(levels), str(surface)], statics=str(statics))


def short(fields):
    return fields.rename({name: SHORT[name] for name in fields.data_vars})


def cds(fields, folder):
    """As downloads come: levels, single levels and invariants apart, a file a month, around the date line."""
    place = folder / "cds"
    place.mkdir()
    turned = north_first(fields.drop_vars(SUMMED)).assign_coords(longitude=lambda f: (f.longitude + 180) % 360 - 180)
    turned = turned.sortby("longitude").rename(time="valid_time", level="pressure_level")
    turned = turned.assign_coords(number=0, pressure_level=turned["pressure_level"].astype(float))
    for month, part in turned.groupby(turned["valid_time"].dt.strftime("%Y-%m")):
        part = part.assign_coords(expver=("valid_time", ["0001"] * part.sizes["valid_time"]))
        levels = short(part[KINDS["level"]]).isel(pressure_level=slice(None, None, -1))
        as_netcdf(levels, place / f"levels-{month}.nc")
        single = part.drop_vars([*KINDS["level"], *KINDS["static"], "pressure_level"])
        as_netcdf(short(single), place / f"single-{month}.nc")
    as_netcdf(short(turned[KINDS["static"]].expand_dims(valid_time=[FIRST])), folder / "invariant.nc")
    return archive(place, statics=str(folder / "invariant.nc"))


def cds_legacy(fields, folder):
    """With final and preliminary ERA5 along expver."""
    old = north_first(fields.drop_vars(SUMMED))
    late = old["time"] >= np.datetime64("2020-01-01T03")
    moving = old.drop_vars(KINDS["static"])
    both = xr.concat([moving.where(~late), moving.where(late)], "expver").assign_coords(expver=[1, 5])
    levels = short(both[KINDS["level"]])
    single = short(both.drop_vars(KINDS["level"]).drop_vars("level"))
    statics = short(old[KINDS["static"]].expand_dims(time=[FIRST]))
    paths = [as_netcdf(levels, folder / "pl.nc"), as_netcdf(single, folder / "sfc.nc")]
    return archive(list(map(str, paths)), statics=str(as_netcdf(statics, folder / "static.nc")))


def graphcast_names(fields, folder):
    return archive(as_netcdf(without_hourly(fields).rename(latitude="lat", longitude="lon"), folder / "long.nc"))


def other_units(fields, folder):
    """Height in gpm, levels in Pa, Celsius, hPa, mm, g/kg and percent."""
    frames = without_hourly(fields)

    def turned(name, factor, offset, units):
        return ((frames[name].astype(np.float64) - offset) / factor).assign_attrs(units=units)

    frames = frames.assign(
        {
            "geopotential": turned("geopotential", 9.80665, 0, "gpm"),
            "geopotential_at_surface": turned("geopotential_at_surface", 9.80665, 0, "m"),
            "temperature": turned("temperature", 1, 273.15, "degC"),
            "2m_temperature": turned("2m_temperature", 1, 273.15, "°C"),
            "mean_sea_level_pressure": turned("mean_sea_level_pressure", 100, 0, "hPa"),
            SUMMED: turned(SUMMED, 1e-3, 0, "mm"),
            "specific_humidity": turned("specific_humidity", 1e-3, 0, "g kg**-1"),
            "land_sea_mask": turned("land_sea_mask", 0.01, 0, "%"),
        }
    ).rename(geopotential="geopotential_height", geopotential_at_surface="orography")
    frames = frames.assign_coords(level=("level", frames["level"].values * 100.0, {"units": "Pa"}))
    return archive(as_netcdf(frames, folder / "units.nc"))


def other_names(fields, folder):
    """A layout that nobody else has, told in the config."""
    frames = without_hourly(fields).rename({"temperature": "ta", "level": "plev", "time": "t0"})
    return archive(as_netcdf(frames, folder / "own.nc"), names={"ta": "temperature", "plev": "level", "t0": "time"})


GRIB_LEVELS = {"temperature": 130, "geopotential": 129, "u_component_of_wind": 131, "v_component_of_wind": 132}
GRIB_LEVELS |= {"vertical_velocity": 135, "specific_humidity": 133}
GRIB_SINGLE = {
    "2m_temperature": 167,
    "mean_sea_level_pressure": 151,
    "10m_u_component_of_wind": 165,
    "10m_v_component_of_wind": 166,
    "geopotential_at_surface": 129,
    "land_sea_mask": 172,
}
GRIB_HOURLY = {"total_precipitation": 228, "toa_incident_solar_radiation": 212}


def grib(fields, folder):
    """ECMWF's parameters, each hour's precipitation and radiation as the first hour of a forecast."""
    frames, messages = every_6_hours(fields), []
    for time in frames["time"].values:
        for name, number in GRIB_LEVELS.items():
            for level in LEVELS_13:
                field = frames[name].sel(time=time, level=level)
                messages.append(_message(field, number, time, typeOfLevel="isobaricInhPa", level=level))
        for name, number in GRIB_SINGLE.items():
            field = frames[name].sel(time=time) if "time" in frames[name].dims else frames[name]
            messages.append(_message(field, number, time))
    for time in fields["time"].values:
        for name, number in GRIB_HOURLY.items():
            start = time - np.timedelta64(1, "h")
            messages.append(_message(fields[name].sel(time=time), number, start, stepType="accum", stepRange="0-1"))
    (folder / "era5.grib").write_bytes(b"".join(messages))
    return archive(folder / "era5.grib")


def _message(field, number, start, **keys):
    import eccodes

    kind = "pl" if "typeOfLevel" in keys else "sfc"
    handle = eccodes.codes_grib_new_from_samples(f"regular_ll_{kind}_grib2")
    values = field.isel(latitude=slice(None, None, -1)).values
    rows, columns = values.shape
    stamp = str(start.astype("datetime64[h]"))
    keys = {
        "Ni": columns,
        "Nj": rows,
        "latitudeOfFirstGridPointInDegrees": 90.0,
        "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": 0.0,
        "longitudeOfLastGridPointInDegrees": 360.0 - 360.0 / columns,
        "iDirectionIncrementInDegrees": 360.0 / columns,
        "jDirectionIncrementInDegrees": 180.0 / (rows - 1),
        "dataDate": int(stamp[:10].replace("-", "")),
        "dataTime": int(stamp[11:]) * 100,
        "packingType": "grid_ieee",
        "paramId": number,
        **keys,
    }
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, values.ravel().astype(float))
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def finer(fields, folder):
    return archive(as_zarr(without_hourly(fields), folder / "finer.zarr"), regrid="subsample")


LAYOUTS = {
    "weatherbench2, 0.25° order": Layout(weatherbench, "WeatherBench 2"),
    "weatherbench2, low resolution": Layout(weatherbench_low, "WeatherBench 2"),
    "weatherbench2-hres forecasts": Layout(weatherbench_forecasts, "WeatherBench 2 forecasts", exact=False),
    "arco-era5, joint": Layout(arco, "ARCO-ERA5"),
    "arco-era5, separate stores": Layout(arco_apart, "ARCO-ERA5"),
    "cds, folder of months": Layout(cds, "CDS names since September 2024"),
    "cds-legacy, expver": Layout(cds_legacy, "ECMWF's short names"),
    "grib": Layout(grib, "GRIB"),
    "graphcast names": Layout(graphcast_names, "GraphCast's names"),
    "other units": Layout(other_units, "WeatherBench 2", exact=False),
    "names in the config": Layout(other_names, "WeatherBench 2"),
    "finer grid, subsampled": Layout(finer, "WeatherBench 2", degrees=DEGREES / 2),
}
