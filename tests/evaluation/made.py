"""A planet of one traveling wave, whose scores have closed forms, and stores of forecasts of it."""

import numpy as np
import xarray as xr

from graphcast_batch.config.inputs_section import DatasetInputs
from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.evaluation.score_export import tables
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.plan import Case
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend

LEVELS = (500, 850)
VARIABLES = (("10m_u_component_of_wind", False), ("10m_v_component_of_wind", False), ("temperature", True))
RESOLUTION = 10.0
AMPLITUDE = 3.0
WAVES = 3
TURN_HOURS = 96.0
"""The wave comes back to where it was after so long."""
START = np.datetime64("2020-01-01T00", "h")


def wave(hours, longitude, shift=0.0):
    """Zonal wave of three crests that moves east; the mean of the square of its change over t is A² (1 - cos wt)."""
    angle = WAVES * np.deg2rad(longitude) - 2 * np.pi * np.asarray(hours)[..., np.newaxis] / TURN_HOURS
    return AMPLITUDE * np.cos(angle) + shift


class WavePlanet:
    """Every variable is the same wave, higher by 10 for each hPa of level over 500; precipitation has none."""

    def fields(self, names, times, grid, levels):
        hours = (np.asarray(times, "datetime64[ns]") - START) / np.timedelta64(1, "h")
        coords = {"time": np.asarray(times, "datetime64[ns]"), "level": np.asarray(levels, np.int32)}
        coords |= {"latitude": grid.latitude, "longitude": grid.longitude}
        rows = np.ones((grid.latitude.size, 1))
        found = {}
        for name in names:
            at_surface = wave(hours, grid.longitude.astype(np.float64))[:, np.newaxis] * rows
            if name == "land_sea_mask":
                found[name] = (("latitude", "longitude"), _land(grid))
            elif name == "temperature":
                shifts = 10.0 * (np.asarray(levels) - 500)
                values = at_surface[:, np.newaxis] + shifts[:, np.newaxis, np.newaxis]
                found[name] = (("time", "level", "latitude", "longitude"), values.astype(np.float32))
            else:
                found[name] = (("time", "latitude", "longitude"), at_surface.astype(np.float32))
        return xr.Dataset(found, coords)


def _land(grid):
    """Land in the east half, with a coast that is half of it."""
    east = np.where(grid.longitude < 180, 1.0, 0.0)
    east[0] = 0.5
    return np.repeat(east[np.newaxis], grid.latitude.size, axis=0).astype(np.float32)


def truth(resolution=RESOLUTION, levels=LEVELS):
    return SyntheticArchive(WavePlanet(), resolution, levels)


def cases(count, steps=4, every_hours=12):
    return [Case(START + np.timedelta64(every_hours * n, "h"), steps, 6) for n in range(count)]


def stored(
    path, planned, change, *, filled=None, grid=None, levels=LEVELS, variables=VARIABLES, identity=None, **outputs
):
    """A store of which each Case holds the truth after ``change`` (name, hours, values) made forecasts of it."""
    source = truth()
    layout = Layout(grid or source.grid, levels, variables, planned[0].steps, 6, OutputsConfig(**outputs))
    store = create_or_extend(
        path, Plan(tuple(planned), layout), identity=identity or {}, provenance={}, config_text="a: 1\n"
    )
    for case in planned if filled is None else filled:
        fill(store, case, change, source)
    return store


def fill(store, case, change, source):
    kept = store.kept
    leads = [hours for hours in kept.lead_hours if hours <= 6 * case.steps]
    times = case.init_time.astype("datetime64[ns]") + np.array(leads) * np.timedelta64(1, "h")
    fields = source.fields(list(kept.variables), times, kept.levels)
    rows = np.isin(source.grid.latitude, kept.latitude)
    columns = [int(np.argmin(np.abs(source.grid.longitude - lon % 360))) for lon in kept.longitude]
    frames = {}
    for name in kept.variables:
        values = fields[name].values[..., rows, :][..., columns]
        frames[name] = np.stack([change(name, hours, frame) for hours, frame in zip(leads, values, strict=True)])
        frames[name] = frames[name].astype(np.float32)
    with store.attempt(case) as attempt:
        attempt.write(0, frames)
        attempt.commit(lease=None, seconds={}, device="cpu", worker="w", attempts=1, details={})


def config_for(path, **scores):
    """A config whose own inputs are never opened."""
    return RunConfig.model_construct(
        store=path, inputs=DatasetInputs(kind="datasets", path="unused"), scores=ScoresConfig(**scores)
    )


def records(results):
    """The rows of the table of results, each as a dict."""
    return [row for table in tables(results) for row in table.to_dict("records")]
