"""The two cases computed with DeepMind's package, as this package's own functions take them."""

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from jax._src import compiler

from graphcast_batch.grid import Grid
from graphcast_batch.models.base import Checkpoint
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.models.graphcast.forecaster import Forecaster
from graphcast_batch.models.graphcast.parameters import random_parameters
from graphcast_batch.spec import Architecture, Task
from tests.conftest import PLAIN_EMITTERS
from tests.models.deepmind_stand_in import made_up_packages

FOLDER = Path(__file__).parents[1] / "reference"


def _open(path):
    with xr.open_dataset(path, decode_timedelta=True) as dataset:
        return dataset.load()


@dataclass
class Reference:
    """One case."""

    checkpoint: Checkpoint
    fields: xr.Dataset
    statistics: dict[str, xr.Dataset]
    predictions: dict[str, xr.Dataset]
    loss: dict[str, Any]
    forecasters: dict[tuple[str, int, bool], Forecaster] = field(default_factory=dict)

    @property
    def grid(self):
        return Grid(self.fields["latitude"].values, self.fields["longitude"].values)

    @property
    def channels(self):
        return Channels.of(self.checkpoint.task, {name: field.dims for name, field in self.fields.items()})

    @property
    def inputs(self):
        others = [name for name in self.fields if name not in self.checkpoint.task.input_variables]
        return self.fields.drop_vars(others).isel(time=slice(0, self.checkpoint.task.input_frames))

    @property
    def later(self):
        return self.fields.isel(time=slice(self.checkpoint.task.input_frames, None))

    @property
    def forcings(self):
        return self.later[["toa_incident_solar_radiation"]]

    @property
    def truth(self):
        return self.later[list(self.checkpoint.task.target_variables)].rename(time="prediction_timedelta")

    @property
    def steps(self):
        return self.later.sizes["time"]

    def forecaster(self, precision, steps_per_call=1):
        """The same one whenever it is asked for: most of a test's time is that of the compiler."""
        key = (precision, steps_per_call, jax.config.read("jax_disable_most_optimizations"))
        if key not in self.forecasters:
            parts = (self.checkpoint, self.statistics, self.grid, self.channels)
            self.forecasters[key] = Forecaster(*parts, precision, steps_per_call)
        return self.forecasters[key]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installs made-up packages in a folder, hides what is really installed, and puts all back as it was."""
    with made_up_packages(tmp_path / "site", monkeypatch) as install:
        yield install


@contextmanager
def hasty():
    """Have XLA leave out what makes programs fast, within the context."""
    before, options = jax.config.read("jax_disable_most_optimizations"), compiler.get_compile_options

    def hasty_options(*arguments, env_options_overrides=None, **others):
        return options(*arguments, env_options_overrides={**PLAIN_EMITTERS, **(env_options_overrides or {})}, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", hasty_options)
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def hasty_compiler():
    """Leaves out what makes programs fast, for tests in which the compiler takes longer than the program.

    Those that compare forecasts with published ones do without this fixture, and see the program that a user gets.
    """
    with hasty():
        yield


@pytest.fixture(scope="session", params=["small_13", "operational_13"])
def reference(request):
    return load_reference(request.param)


@cache
def load_reference(case):
    folder = FOLDER / case
    (path,) = folder.glob("source-*.nc")
    dataset = _open(path)
    times = dataset["datetime"].values[0]
    fields = dataset.drop_vars("datetime").isel(batch=0).assign_coords(time=times)
    return Reference(
        checkpoint=load_checkpoint(folder / "checkpoint.npz"),
        fields=fields.rename(lat="latitude", lon="longitude"),
        statistics={k: _open(folder / f"stats_{k}_by_level.nc") for k in ("mean", "stddev", "diffs_stddev")},
        predictions={p: _open(folder / f"predictions_{p}.nc").isel(batch=0) for p in ("float32", "bfloat16")},
        loss=json.loads((folder / "loss.json").read_text()),
    )


def joined(blocks):
    """Frames of all calls together, on the host."""
    calls = [{name: np.asarray(values) for name, values in block.items()} for block in blocks]
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def made_up(architecture: Architecture, task: Task, rows=9, columns=16, seed=0):
    """Random weights, inputs and statistics for any task of variables that are commonly known."""
    random = np.random.default_rng(seed)
    step = 180 / (rows - 1)
    grid = Grid(
        np.arange(rows, dtype=np.float32) * np.float32(step) - 90,
        np.arange(columns, dtype=np.float32) * (360 / columns),
    )
    channels = Channels.of(task, {})
    times = np.datetime64("2020-03-01T00", "ns") + np.arange(task.input_frames) * np.timedelta64(6, "h")
    place = ("latitude", "longitude")
    names = channels.carried + channels.static

    def field(name):
        dims = (() if name in channels.static else ("time",)) + (("level",) if name in channels.on_levels else ())
        sizes = {"time": times.size, "level": len(task.pressure_levels)}
        return (*dims, *place), random.normal(size=(*(sizes[d] for d in dims), *grid.shape)).astype(np.float32)

    coords = {
        "time": times,
        "level": list(task.pressure_levels),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    inputs = xr.Dataset({name: field(name) for name in names}, coords=coords)
    every = set(task.input_variables) | set(task.target_variables) | set(task.forcing_variables)
    constants = {
        kind: xr.Dataset(
            {
                name: (("level",), random.uniform(low, high, len(task.pressure_levels)))
                if name in channels.on_levels
                else ((), random.uniform(low, high))
                for name in sorted(every)
            },
            coords={"level": list(task.pressure_levels)},
        )
        for kind, low, high in (("mean", -1, 1), ("stddev", 0.5, 2), ("diffs_stddev", 0.1, 0.5))
    }
    for name, scale in (("toa_incident_solar_radiation", 1e6),):
        if name in constants["stddev"]:
            constants["stddev"][name] *= scale
    checkpoint = Checkpoint(
        random_parameters(architecture, channels.inputs, channels.outputs, seed), architecture, task
    )
    return Reference(checkpoint, inputs, constants, {}, {})


@contextmanager
def compilations():
    """Lists the seconds of each program that XLA compiles within the context."""
    found = []

    def count(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
