"""Write a forecast as a netCDF file with GraphCast's own dimensions: batch, time (lead time), level, lat, lon."""

from pathlib import Path

import xarray as xr

from graphcast_batch.errors import StoreError
from graphcast_batch.files.process_identity import mark


def in_graphcast_dims(forecast: xr.Dataset) -> xr.Dataset:
    """Rename the dimensions of a forecast to those of DeepMind's package.

    Args:
        forecast: (prediction_timedelta, [level], latitude, longitude) with the scalar coordinate time.

    Returns:
        (batch, time, [level], lat, lon), where time is the lead time and datetime (batch, time) the valid time.
    """
    valid = (forecast["time"] + forecast["prediction_timedelta"]).values
    names = {"prediction_timedelta": "time", "latitude": "lat", "longitude": "lon"}
    renamed = forecast.drop_vars("time").rename(names)
    return renamed.expand_dims("batch").assign_coords(datetime=(("batch", "time"), valid[None]))


def save_predictions(forecast: xr.Dataset, path: Path) -> None:
    """Write a forecast as a netCDF file, which appears in one step with all of its content.

    Args:
        forecast: (prediction_timedelta, [level], latitude, longitude) with the scalar coordinate time.
        path: path of the file; a file that is there is replaced.

    Raises:
        StoreError: the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{mark()}.unfinished")
    try:
        in_graphcast_dims(forecast).to_netcdf(unfinished, engine="netcdf4")
        unfinished.replace(path)
    except OSError as error:
        raise StoreError(f"the predictions cannot be written to {path}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
