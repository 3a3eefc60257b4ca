"""Made data in the layout of archives and of GraphCast's dataset files, and where the real ones are."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.spec import Task

ROOT = Path(__file__).parents[2]
LEVELS = (300, 500, 850)


@pytest.fixture(scope="session")
def reference():
    """Copies of the inputs and statistics that DeepMind's program was run with."""
    return ROOT / "tests" / "reference"


@pytest.fixture(scope="session")
def shared_data():
    """Real data that lie beside the repository on some machines and are never part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data are not here: {folder}")
    return folder


@pytest.fixture(scope="session")
def task():
    """Two targets, one of them on levels, a third one that is only predicted, and one static field."""
    forcings = ("toa_incident_solar_radiation", "year_progress_sin")
    return Task(
        input_variables=("2m_temperature", "temperature", "land_sea_mask", *forcings),
        target_variables=("2m_temperature", "temperature", "total_precipitation_6hr"),
        forcing_variables=forcings,
        pressure_levels=(300, 850),
    )


@pytest.fixture(scope="session")
def made():
    """A function that makes an archive in our own layout: noise, float32."""

    def make(first="2020-01-01T00", frames=6, hours=6, degrees=30, seed=0):
        draw = np.random.default_rng(seed)
        times = np.datetime64(first, "ns") + np.arange(frames) * np.timedelta64(hours, "h")
        latitude = np.linspace(-90, 90, 180 // degrees + 1, dtype=np.float32)
        longitude = np.arange(0, 360, degrees, dtype=np.float32)
        coords = {
            "time": times,
            "level": np.asarray(LEVELS, np.int32),
            "latitude": latitude,
            "longitude": longitude,
        }

        def noise(*dims):
            shape = [len(coords[dim]) for dim in dims]
            return dims, draw.normal(280, 10, shape).astype(np.float32)

        return xr.Dataset(
            {
                "temperature": noise("time", "level", "latitude", "longitude"),
                "2m_temperature": noise("time", "latitude", "longitude"),
                "total_precipitation_6hr": noise("time", "latitude", "longitude"),
                "toa_incident_solar_radiation": noise("time", "latitude", "longitude"),
                "land_sea_mask": noise("latitude", "longitude"),
            },
            coords=coords,
        )

    return make


@pytest.fixture(scope="session")
def as_dataset():
    """A function that turns such an archive into the layout of GraphCast's dataset files."""

    def turn(archive):
        times = archive["time"].values
        moving = [name for name, array in archive.data_vars.items() if "time" in array.dims]
        renamed = archive.rename(latitude="lat", longitude="lon").assign_coords(time=times - times[0])
        with_batch = renamed[moving].expand_dims("batch")
        fixed = renamed.drop_vars(moving)
        return xr.merge([with_batch, fixed]).assign_coords(datetime=(("batch", "time"), times[None]))

    return turn
