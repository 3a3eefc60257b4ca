"""A training so small that it is over in seconds."""

import copy

import numpy as np
import xarray as xr

from graphcast_batch.config.messages import parse_config
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.recipe import TrainingRecipe
from tests.conftest import ROOT

TASK = {
    "input_variables": ["temperature", "2m_temperature", "land_sea_mask", "toa_incident_solar_radiation"],
    "target_variables": ["temperature", "2m_temperature", "total_precipitation_6hr"],
    "forcing_variables": ["toa_incident_solar_radiation", "day_progress_sin"],
    "pressure_levels": [500, 850],
}
CONTENT = {
    "inputs": {"kind": "synthetic", "resolution": 30},
    "times": {"first": "2020-01-01T00", "last": "2020-01-03T18", "every_hours": 6},
    "validation": {"times": {"list": ["2020-02-01T00", "2020-02-02T06", "2020-02-03T18"]}, "rollout": 2, "every": 4},
    "model": {
        "weights": {
            "kind": "random",
            "architecture": {"mesh_size": 0, "latent_size": 4, "gnn_msg_steps": 1},
            "task": TASK,
        },
        "statistics": str(ROOT / "stats" / "synthetic"),
    },
    "phases": [
        {"rollout": 1, "updates": 8, "peak": 1e-2, "warm_up": 2, "last": 0.0},
        {"rollout": 2, "updates": 2, "peak": 1e-3},
    ],
    "batch": 4,
    "samples_per_call": 2,
    "checkpoint_every": 4,
    "workers": {"device": "cpu", "count": 1, "threads": 1},
}


def content(**changes):
    """Of a recipe, as YAML has it; a key with double underscores is one of a section."""
    made = copy.deepcopy(CONTENT)
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = made
        for section in sections:
            place = place[section]
        place[key] = value
    return made


def recipe_in(folder, **changes):
    return parse_config(content(folder=str(folder), **changes), TrainingRecipe, origin="of a test")


def write_archive(path, hours=range(-6, 91, 6), constant=False, **changes):
    """The variables of the small task on the synthetic planet, as a file; ``changes`` replace variables, None drops."""
    times = np.datetime64("2020-01-01T00", "ns") + np.array(hours) * np.timedelta64(1, "h")
    names = ["temperature", "2m_temperature", "total_precipitation_6hr", "land_sea_mask"]
    fields = SyntheticPlanet().fields(names, times, regular_grid(30), [500, 850])
    if constant:  # but for a hair: frames that repeat themselves are refused
        hair = xr.DataArray(np.arange(times.size) % 2 * np.float32(1e-3), {"time": times})
        first = fields.isel(time=0, drop=True)
        fields = fields.assign(
            {name: first[name] + hair for name in names[:2]} | {names[2]: first[names[2]] + 0 * hair}
        )
        fields = fields.transpose("time", "level", "latitude", "longitude")
    for name, field in changes.items():
        fields = fields.drop_vars(name) if field is None else fields.assign({name: field})
    fields.to_netcdf(path)
    return fields
