"""Archives of every layout lose parts at random, and every command that reads them ends with an error of its own.

``python -m tests.fuzz.archives --first 0 --rounds 1000`` says what ended with an internal error, and of which seed.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import eccodes
import numpy as np
import xarray as xr
import yaml

from graphcast_batch.cli import main
from graphcast_batch.cluster import driver
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.setup import worker_setup
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.setup.worker_setup import worker_context
from graphcast_batch.variables import VARIABLES
from tests.conftest import SMALL
from tests.layouts import DEGREES, KINDS, LAYOUTS, SUMMED, dataset_file, weather

INTERNAL_ERROR = 70
NETWORK = {"mesh_size": 1, "latent_size": 4, "gnn_msg_steps": 1}
FORCINGS = [name for name, variable in VARIABLES.items() if variable.kind == "forcing"]
HOURS = [f"2020-01-01T{hour:02}" for hour in range(0, 24, 6)]
WRITERS = {name: (layout.write, layout.degrees) for name, layout in LAYOUTS.items()} | {
    "dataset file": (dataset_file, DEGREES)
}


@dataclass(frozen=True)
class Prepared:
    """Whole archives by the name of their layout, each with its section ``inputs``, and a store of forecasts."""

    folder: Path
    inputs: dict[str, dict]
    store: Path

    @classmethod
    def make(cls, folder, names=tuple(WRITERS)):
        inputs, fields = {}, {}
        for number, name in enumerate(names):
            write, degrees = WRITERS[name]
            fields.setdefault(degrees, weather(degrees))
            place = folder / f"layout-{number}"
            place.mkdir()
            inputs[name] = write(fields[degrees], place)
        return cls(folder, inputs, _forecasts(folder))


@dataclass(frozen=True)
class Ending:
    """How one command ended: with which exit code, and what it printed."""

    arguments: tuple[str, ...]
    code: int
    printed: str


class Unmoved:
    """Forecasts of nothing, so that no device is needed: a frame of zeros for every step."""

    device = "none"

    def __init__(self, task, grid, on_levels):
        self.task = task
        self._shapes = {
            name: (*((len(task.pressure_levels),) if name in on_levels else ()), *grid.shape)
            for name in task.target_variables
        }

    def forecast(self, inputs, forcings, steps):
        for _ in range(steps):
            yield {name: np.zeros((1, *shape), np.float32) for name, shape in self._shapes.items()}


def unmoved(config, checkpoint, channels, statistics, source, use):
    """In place of a network, which would be compiled."""
    return Unmoved(checkpoint.task, source.grid, channels.on_levels)


def ended(*arguments):
    """Runs a command in this process; what it would do over Ray is done one after another."""
    printed, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _without_ray():
            main([*map(str, arguments), "--debug"])
    except SystemExit as end:
        code = end.code or 0
    return Ending(tuple(map(str, arguments)), code, printed.getvalue())


def damaged(prepared, seed, scratch):
    """A copy of one archive that has lost parts; its name, its section ``inputs`` and what was done to it."""
    chance = random.Random(seed)
    name = chance.choice(sorted(prepared.inputs))
    number = list(prepared.inputs).index(name)
    shutil.copytree(prepared.folder / f"layout-{number}", scratch / "in")
    text = json.dumps(prepared.inputs[name]).replace(str(prepared.folder / f"layout-{number}"), str(scratch / "in"))
    done = [_lose_part(chance, scratch / "in") for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5)))]
    return name, json.loads(text), done


def commands(prepared, seed, scratch, inputs):
    """What every command makes of an archive."""
    chance = random.Random(seed)
    place = inputs["path"] if isinstance(inputs["path"], str) else inputs["path"][0]
    first, config = scratch / "first.yaml", scratch / "run.yaml"
    started = ended("init", first, "--inputs", place, "--store", scratch / "first", "--steps", chance.choice((1, 2, 4)))
    yield started
    config.write_text(yaml.safe_dump(_config(chance, inputs, scratch / "store")))
    for file in (config, first) if started.code == 0 else (config,):
        yield ended("plan", file)
        yield ended("check", file)
    archive = config if chance.random() < 0.7 else place
    yield ended("stats", archive, "--to", scratch / "stats")
    yield ended("climatology", archive, "--to", scratch / "climatology.zarr")
    shutil.copytree(prepared.store, scratch / "made")
    yield ended("evaluate", scratch / "made", "--truth", archive, *chance.choice(((), ("--baseline", "persistence"))))
    if inputs["kind"] == "datasets" or chance.random() < 0.1:
        network = scratch / "network.yaml"
        network.write_text(yaml.safe_dump({"architecture": NETWORK, "task": _task(chance)}))
        with contextlib.chdir(scratch):
            yield ended("infer", "--mode", "Random", "--dataset", place, "--pretrained", network)


def _config(chance, inputs, store):
    weights = {"kind": "random", "architecture": NETWORK, "task": _task(chance)}
    times = {"times": {"list": sorted(chance.sample(HOURS, chance.randint(1, 4)))}}
    statistics = SMALL["model"]["statistics"] if chance.random() < 0.7 else None
    content = {
        "inputs": inputs,
        "store": str(store),
        "steps": chance.randint(1, 3),
        "model": {"weights": weights} | ({"statistics": statistics} if statistics else {}),
        "workers": SMALL["workers"],
    }
    return content | ({} if inputs["kind"] == "datasets" else times)


def _task(chance):
    """A published one, or one of some variables and levels."""
    if chance.random() < 0.4:
        return chance.choice(("GraphCast_small", "GraphCast_operational"))
    targets = [name for name in [*KINDS["surface"], *KINDS["level"]] if chance.random() < 0.4] or ["2m_temperature"]
    inputs = [name for name in targets if name != SUMMED or chance.random() < 0.5]
    static = [name for name in KINDS["static"] if chance.random() < 0.6]
    levels = sorted(chance.sample((50, 500, 850, 1000), chance.randint(1, 3)))
    forcings = FORCINGS if chance.random() < 0.8 else FORCINGS[1:]
    return {
        "input_variables": [*inputs, *static, *forcings],
        "target_variables": targets,
        "forcing_variables": forcings,
        "pressure_levels": levels,
    }


def _forecasts(folder):
    """A store with two Cases of the synthetic planet."""
    weights = SMALL["model"]["weights"] | {"architecture": NETWORK}
    content = SMALL | {"store": str(folder / "forecasts"), "model": SMALL["model"] | {"weights": weights}}
    content |= {"times": {"list": HOURS[:2]}, "steps": 2, "limits": "off"}
    run = assemble(config := parse_config(content, RunConfig, origin="fuzz"))
    lay_out(run, "float32", run_serially)
    with mock.patch.object(worker_setup, "_loaded_model", unmoved):
        context = worker_context(config, run.source, memory_uses(run, accelerated=False)[0], "fuzz")
    for case in run.plan.cases:
        context.run_case(case, None, 1)
    return config.store


@contextlib.contextmanager
def _without_ray():
    with (
        mock.patch.object(driver, "connected", return_value=contextlib.nullcontext()),
        mock.patch.object(driver, "each", _each),
    ):
        yield


def _each(function, argument_lists, drain):
    for arguments in argument_lists:
        try:
            yield function(*arguments)
        except Exception as error:
            yield error


def _lose_part(chance, folder):
    """Takes something away from one file or store of a folder; says what."""
    places = [path for path in sorted(folder.rglob("*")) if path.suffix in (".nc", ".zarr", ".grib")]
    if not places:
        return "nothing is left"
    place = chance.choice(places)
    if chance.random() < (0.1 if len(places) > 1 else 0.01):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        return f"{place.name} removed"
    if place.suffix == ".grib":
        return _lose_messages(chance, place)
    opened = xr.open_dataset(
        place, engine="zarr" if place.is_dir() else "netcdf4", decode_times=False, mask_and_scale=False, chunks=None
    )
    with opened:
        complete = opened.load().drop_encoding()
    change = chance.choice(CHANGES)
    left = change(chance, complete)
    if place.is_dir():
        shutil.rmtree(place)
        left.to_zarr(place, zarr_format=2, consolidated=True)
    else:
        place.unlink()
        left.to_netcdf(place, engine="netcdf4")
    return f"{place.name}: {change.__name__} leaves {dict(left.sizes)} of {sorted(map(str, left.variables))}"


def _lose_messages(chance, path):
    """GRIB messages of a variable, a level or a time, or of all but that, or some anywhere."""
    kept, key = [], chance.choice(("shortName", "level", "dataTime", "dataDate", "stepType", None))
    messages = list(_messages(path, key))
    wanted = chance.choice([value for value, _ in messages]) if messages else None
    others, share = chance.random() < 0.3, chance.choice((0.02, 0.3, 0.9, 1.0))
    for value, message in messages:
        lost = chance.random() < share if key is None else (value == wanted) != others
        if not lost:
            kept.append(message)
    path.write_bytes(b"".join(kept))
    return f"{path.name}: {len(kept)} of {len(messages)} messages are left, by {key} {wanted}, others: {others}"


def _messages(path, key):
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            yield eccodes.codes_get(handle, key) if key else None, eccodes.codes_get_message(handle)
            eccodes.codes_release(handle)


def lose_variables(chance, complete):
    names = sorted(complete.data_vars)
    count = min(len(names), chance.choice((1, 1, 2, max(0, len(names) - 1), len(names))))
    return complete.drop_vars(chance.sample(names, count))


def lose_times(chance, complete):
    return _shortened(chance, complete, ("time", "valid_time", "t0", "prediction_timedelta", "step"))


def lose_levels(chance, complete):
    return _shortened(chance, complete, ("level", "pressure_level", "plev"))


def lose_points(chance, complete):
    return _shortened(chance, complete, ("latitude", "longitude", "lat", "lon"))


def lose_a_dimension(chance, complete):
    """One place along it is left, with or without its coordinate."""
    dims = sorted(map(str, complete.dims))
    if not dims:
        return complete
    dim = chance.choice(dims)
    return complete.isel(
        {dim: chance.randrange(complete.sizes[dim])} if complete.sizes[dim] else {}, drop=chance.random() < 0.5
    )


def lose_a_dimension_of_one(chance, complete):
    """One variable loses one of its dimensions."""
    names = [name for name, array in complete.data_vars.items() if array.size and array.dims]
    if not names:
        return complete
    name = chance.choice(sorted(names))
    dim = chance.choice(complete[name].dims)
    return complete.assign({name: complete[name].isel({dim: 0}, drop=True)})


def lose_a_coordinate(chance, complete):
    names = sorted(map(str, complete.coords))
    return complete.drop_vars(chance.choice(names)) if names else complete


def lose_attributes(chance, complete):
    for name in complete.variables:
        if chance.random() < 0.5:
            complete[name].attrs = {}
    return complete


def lose_values(chance, complete):
    """One coordinate or variable has one value that is not finite, if it can."""
    name = chance.choice(sorted(map(str, complete.variables)) or [None])
    if name is None or not complete[name].size or not np.issubdtype(complete[name].dtype, np.number):
        return complete
    values = complete[name].values.astype(float)
    values.flat[chance.randrange(values.size)] = np.nan
    return complete.assign({name: (complete[name].dims, values, complete[name].attrs)})


def gain_a_time(chance, complete):
    """What is constant gets the times of the others."""
    name = next((name for name in ("time", "valid_time", "t0") if name in complete.dims), None)
    fixed = sorted(str(key) for key, array in complete.data_vars.items() if name not in array.dims)
    if name is None or not fixed:
        return complete
    one = chance.choice(fixed)
    spread = complete[one].expand_dims({name: complete.sizes[name]}).copy(deep=True)
    if chance.random() < 0.5 and spread.size:
        spread.values[-1] += 1
    return complete.assign({one: spread})


CHANGES: tuple[Callable, ...] = (
    *(2 * (lose_variables, lose_times, lose_levels)),
    lose_points,
    lose_a_dimension,
    lose_a_dimension_of_one,
    lose_a_coordinate,
    lose_attributes,
    lose_values,
    gain_a_time,
)


def _shortened(chance, complete, dims):
    dims = [dim for dim in dims if complete.sizes.get(dim)]
    if not dims:
        return complete
    dim = chance.choice(dims)
    size = complete.sizes[dim]
    left = chance.choice((0, 1, 1, 2, size // 2, size - 1, size - 1))
    return complete.isel({dim: sorted(chance.sample(range(size), min(left, size)))})


def rounds(prepared, seeds):
    """All endings of rounds with some seeds: seed, layout, what was done, ending."""
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=prepared.folder) as scratch:
            name, inputs, done = damaged(prepared, seed, Path(scratch))
            for ending in commands(prepared, seed, Path(scratch), inputs):
                yield seed, name, done, ending


def wrong(ending):
    """What must not be of a command; empty if all is well."""
    command, place = ending.arguments[:2]
    if ending.code == INTERNAL_ERROR:
        return "internal error"
    if ending.code not in (0, 1, 2, 3):
        return f"exit code {ending.code}"
    if command == "plan" and place.endswith("first.yaml") and ending.code:
        return "plan refuses what init proposes"
    return ""


def run_here():
    words = argparse.ArgumentParser()
    words.add_argument("--first", type=int, default=0)
    words.add_argument("--rounds", type=int, default=100)
    given = words.parse_args()
    counts, faults = Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_STATE_HOME"] = folder
        seeds = range(given.first, given.first + given.rounds)
        for seed, name, done, ending in rounds(Prepared.make(Path(folder)), seeds):
            counts[ending.arguments[0], ending.code] += 1
            if fault := wrong(ending):
                lines = ending.printed.strip().splitlines()
                where = [line.strip() for line in lines if "graphcast_batch/" in line][-1:]
                faults[ending.arguments[0], fault, *where] += 1
                print(seed, name, ending.arguments[0], fault, *where, lines[-1], done, sep=" | ", flush=True)
    print("\n".join(f"{command} ended {count} times with {code}" for (command, code), count in sorted(counts.items())))
    print("\n".join(f"{count} times {' | '.join(fault)}" for fault, count in faults.most_common()))


if __name__ == "__main__":
    run_here()
