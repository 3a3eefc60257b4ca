"""Frames, statistics and a small task, of which perturbed states are made."""

import numpy as np
import xarray as xr
from pydantic import TypeAdapter

from graphcast_batch.config.perturbations_section import Perturbations
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.statistics import Statistics
from graphcast_batch.perturbations.base import perturbation
from graphcast_batch.spec import Task

RAIN = "total_precipitation_6hr"
SURFACE = {"2m_temperature": (280, 2.0), RAIN: (1e-4, 1e-3)}
"""Value of each field, and standard deviation of its change."""
ON_LEVELS = {"temperature": (250, 1.5), "u_component_of_wind": (5, 4.0), "specific_humidity": (1e-4, 5e-4)}
TASK = Task(
    input_variables=(*SURFACE, *ON_LEVELS, "toa_incident_solar_radiation", "land_sea_mask"),
    target_variables=(*SURFACE, *ON_LEVELS, "vertical_velocity"),
    forcing_variables=("toa_incident_solar_radiation",),
    pressure_levels=(200, 500, 850),
)
GRID = regular_grid(10)
INIT_TIME = np.datetime64("2020-01-01T06", "ns")
BY_LEVEL = np.asarray([1.0, 2.0, 3.0])
"""The change of a variable on levels grows downward."""


def statistics():
    diffs = xr.Dataset(
        {name: ((), stddev) for name, (_, stddev) in SURFACE.items()}
        | {name: ("level", stddev * BY_LEVEL) for name, (_, stddev) in ON_LEVELS.items()},
        coords={"level": np.asarray(TASK.pressure_levels, np.int32)},
    )
    return Statistics(mean=xr.Dataset(), stddev=xr.Dataset(), diffs_stddev=diffs)


def frames(grid=GRID):
    """Two frames, the second 1 % above the first; the mask has no time."""
    points = {"latitude": grid.latitude, "longitude": grid.longitude}
    growth = xr.DataArray([1.0, 1.01], coords={"time": INIT_TIME + np.asarray([-6, 0], "timedelta64[h]")}, dims="time")
    level = xr.DataArray([1.0, 1.0, 1.0], coords={"level": list(TASK.pressure_levels)}, dims="level")
    flat = xr.DataArray(np.ones(grid.shape), coords=points, dims=("latitude", "longitude"))
    found = {name: value * growth * flat for name, (value, _) in SURFACE.items()}
    found |= {name: value * growth * level * flat for name, (value, _) in ON_LEVELS.items()}
    found["land_sea_mask"] = 0.5 * flat
    return xr.Dataset(found).astype(np.float32)


def chosen(kind="spherical", **keys):
    smooth = {"length_km": 2500.0} if kind == "spherical" else {}
    return TypeAdapter(Perturbations).validate_python({"kind": kind, "members": 4, "amplitude": 0.5, **smooth, **keys})


def perturb(kind="spherical", grid=GRID, **keys):
    """Return the perturbation that a config chooses."""
    return perturbation(chosen(kind, **keys), statistics(), TASK, grid)


def added(changed, given):
    """Return what was added to each variable, in float64."""
    return changed.astype(np.float64) - given.astype(np.float64)
