"""`check` and a run's worker come to the same verdict over random archives."""

import random

import numpy as np
import pytest
import yaml

from graphcast_batch.app.planning import fitting
from graphcast_batch.config.loading import load_config
from graphcast_batch.errors import GraphcastBatchError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.setup import run_setup, store_identity, worker_setup
from graphcast_batch.setup.resources import memory_uses
from tests.conftest import SMALL
from tests.fuzz.archives import FORCINGS, NETWORK, ended, unmoved

FIRST = np.datetime64("2020-01-01T00", "ns")
LEVELS = (500, 850)
NAMES = ("temperature", "geopotential", "2m_temperature", "mean_sea_level_pressure", "total_precipitation_6hr")
STATICS = ("land_sea_mask", "geopotential_at_surface")
INITS = ("2020-01-01T06", "2020-01-01T12", "2020-01-01T18")


def hourly_rain(fields):
    """In place of the sum over 6 h."""
    return fields.rename(total_precipitation_6hr="total_precipitation")


def without_times(chance, fields):
    return fields.isel(time=sorted(chance.sample(range(fields.sizes["time"]), chance.randint(2, 7))))


def with_moving_statics(chance, fields):
    name = chance.choice(STATICS)
    moving = fields[name].expand_dims(time=fields["time"]).copy(deep=True)
    moving.values[chance.randrange(len(moving))] += chance.choice((0.0, 1e-3))
    return fields.assign({name: moving.transpose("time", ...)})


def with_a_gap(chance, fields):
    name = chance.choice(NAMES)
    values = fields[name].copy(deep=True)
    values.values[(chance.randrange(len(values)), *(0 for _ in values.dims[1:]))] = np.nan
    return fields.assign({name: values})


def with_a_repeated_frame(chance, fields):
    name, place = chance.choice(NAMES[:4]), chance.randrange(1, fields.sizes["time"])
    values = fields[name].copy(deep=True)
    values.values[place] = values.values[place - 1]
    return fields.assign({name: values})


def in_another_unit(chance, fields):
    name = chance.choice(NAMES[:4])
    return fields.assign({name: (fields[name] * chance.choice((1e-2, 100))).astype(np.float32)})


def without_a_variable(chance, fields):
    return fields.drop_vars(chance.choice((*NAMES, *STATICS)))


def without_a_level(chance, fields):
    return fields.isel(level=[chance.randrange(2)])


CHANGES = (
    *(without_times, with_moving_statics, with_a_gap, with_a_repeated_frame),
    *(in_another_unit, without_a_variable, without_a_level),
)


def archive(chance, folder):
    """A file or two, right or with a fault or two."""
    times = FIRST + np.arange(8) * np.timedelta64(6, "h")
    fields = SyntheticPlanet().fields([*NAMES, *STATICS], times, regular_grid(30), LEVELS)
    for change in chance.sample(CHANGES, chance.choice((0, 1, 1, 2))):
        if all(name in fields for name in (*NAMES, *STATICS)):
            fields = change(chance, fields)
    if chance.random() < 0.2 and "total_precipitation_6hr" in fields:
        fields = hourly_rain(fields)
    if chance.random() < 0.3 and fields.sizes["time"] > 3:
        moving = [name for name in NAMES if name in fields]
        late = fields[chance.sample(moving, chance.randint(1, len(moving)))].isel(time=slice(2, None))
        rest = fields.drop_vars(list(late.data_vars))
        late.to_netcdf(folder / "late.nc")
        fields = rest
    fields.to_netcdf(folder / "a.nc")


def config(chance, folder):
    inputs = [*chance.sample(NAMES, chance.randint(1, 5)), *chance.sample(STATICS, chance.randint(0, 2))]
    targets = [name for name in inputs if name in NAMES]
    targets += [name for name in NAMES if name not in inputs and chance.random() < 0.2]
    task = {
        "input_variables": [*inputs, *FORCINGS],
        "target_variables": targets,
        "forcing_variables": FORCINGS,
        "pressure_levels": list(LEVELS),
    }
    content = {
        "store": str(folder / "store"),
        "inputs": {"kind": "archive", "path": str(folder / "*.nc")},
        "times": {"list": sorted(chance.sample(INITS, chance.randint(1, 3)))},
        "steps": 1,
        "model": {"weights": {"kind": "random", "architecture": NETWORK, "task": task}},
        "limits": "off",
    }
    if chance.random() < 0.5:
        content["model"]["statistics"] = SMALL["model"]["statistics"]
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


def run_verdict(path, monkeypatch):
    """Keys of the Cases that a run's own parts complete, and whether that is all of them."""

    monkeypatch.setattr(worker_setup, "_loaded_model", unmoved)
    complete = []
    try:
        run = run_setup.assemble(load_config(path))
        fitting(run)
        store_identity.lay_out(run, "float32", run_serially)
        context = worker_setup.worker_context(run.config, run.source, memory_uses(run, accelerated=False)[0], "test")
    except GraphcastBatchError as error:
        return [], False, str(error)
    why = ""
    for case in run.plan.cases:
        try:
            context.run_case(case, None, 1)
            complete.append(case.key)
        except GraphcastBatchError as error:
            why = str(error)
    return complete, len(complete) == len(run.plan.cases) and not run.plan.skipped, why


def verdicts(seed, folder, monkeypatch):
    chance = random.Random(seed)
    archive(chance, folder)
    path = config(chance, folder)
    checked = ended("check", path)
    complete, everything, why = run_verdict(path, monkeypatch)
    return checked, complete, everything, why


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 150))])
def test_check_and_run_come_to_the_same_verdict(seed, tmp_path, monkeypatch):
    checked, complete, everything, why = verdicts(seed, tmp_path, monkeypatch)

    assert (checked.code == 0) == everything, f"{checked.printed}\nrun: {complete}, {why}"
    if "StatisticsError" not in checked.printed and " Cases can be run" in checked.printed:
        assert f"{len(complete)} of " in checked.printed, f"{checked.printed}\nrun: {complete}, {why}"


def test_statistics_are_of_times_that_hold_the_targets_too(tmp_path, monkeypatch):
    """Precipitation is forecast but does not go in, and the first times have none, as with hourly sums."""
    times = FIRST + np.arange(8) * np.timedelta64(6, "h")
    fields = SyntheticPlanet().fields([*NAMES[:1], NAMES[4]], times, regular_grid(30), LEVELS)
    fields[["temperature"]].to_netcdf(tmp_path / "a.nc")
    fields[["total_precipitation_6hr"]].isel(time=slice(2, None)).to_netcdf(tmp_path / "late.nc")
    content = yaml.safe_load(config(random.Random(0), tmp_path).read_text())
    task = content["model"]["weights"]["task"]
    task["input_variables"], task["target_variables"] = ["temperature", *FORCINGS], [NAMES[0], NAMES[4]]
    content["model"].pop("statistics", None)
    content["times"] = {"list": list(INITS)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))

    checked = ended("check", tmp_path / "run.yaml")

    assert checked.code == 0, checked.printed
    assert run_verdict(tmp_path / "run.yaml", monkeypatch)[:2] == (list(INITS), True)


def test_a_static_that_changes_is_a_fault_to_check_as_to_run(tmp_path, monkeypatch):
    times = FIRST + np.arange(4) * np.timedelta64(6, "h")
    fields = SyntheticPlanet().fields(["temperature", "land_sea_mask"], times, regular_grid(30), LEVELS)
    mask = fields["land_sea_mask"].expand_dims(time=times).copy(deep=True)
    mask.values[1, 3, 3] = 0.5
    fields.assign(land_sea_mask=mask).to_netcdf(tmp_path / "a.nc")
    content = yaml.safe_load(config(random.Random(0), tmp_path).read_text())
    task = content["model"]["weights"]["task"]
    task["input_variables"], task["target_variables"] = ["temperature", "land_sea_mask", *FORCINGS], ["temperature"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content | {"times": {"list": list(INITS[:1])}}))

    checked = ended("check", tmp_path / "run.yaml")

    assert checked.code == 3
    assert "0 of 1 Cases can be run" in checked.printed
    complete, everything, why = run_verdict(tmp_path / "run.yaml", monkeypatch)
    assert (complete, everything) == ([], False)
    assert "land_sea_mask must be a target or a forcing" in why
