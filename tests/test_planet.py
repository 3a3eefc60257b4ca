"""The weights that ship with the package, on weather of the synthetic planet that they were not trained on."""

import csv

import numpy as np
import pytest
import xarray as xr
import yaml

from graphcast_batch.inputs.quality.limits import limits
from graphcast_batch.recipe import load_recipe
from tests.conftest import ROOT

SEEN = load_recipe(ROOT / "configs" / "training" / "planet.yaml")
INIT_TIMES = ["2017-01-10T00", "2017-04-11T06", "2017-07-12T12", "2017-10-13T18"]


@pytest.fixture(scope="module")
def forecasts(run_on_ray, tmp_path_factory):
    """A store of 10 days from some initial times, and the RMSE of forecast and persistence in the first 3 days."""
    folder = tmp_path_factory.mktemp("planet")
    config = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text()) | {
        "store": str(folder / "store"),
        "times": {"list": INIT_TIMES},
        "workers": {"device": "cpu", "count": 1, "threads": 1},
        "scores": {"regions": ["global"]},
    }
    del config["figures"]

    def run(steps):
        (folder / "run.yaml").write_text(yaml.safe_dump(config | {"steps": steps}))
        made = run_on_ray("run", folder / "run.yaml", cwd=ROOT)
        assert made.returncode == 0, made.stderr

    run(12)
    scored = run_on_ray("evaluate", folder / "store", "--baseline", "persistence", cwd=ROOT)
    assert scored.returncode == 0, scored.stderr
    scores = {name: rmse(folder / "store", name) for name in ("forecast", "persistence")}
    run(40)
    return xr.open_zarr(folder / "store"), scores


def rmse(store, name):
    """By variable, level and lead time in hours, global."""
    from graphcast_batch.evaluation.score_export import write_table

    table = store.parent / f"{name}.csv"
    write_table(store, table, name, "all")
    with table.open() as file:
        found = [row for row in csv.DictReader(file) if (row["metric"], row["region"]) == ("rmse", "global")]
    return {(row["variable"], row["level"], int(row["lead_hours"])): float(row["value"]) for row in found}


def test_it_has_learnt_from_other_years():
    assert SEEN.times.last.year < 2017
    assert SEEN.validation.times.last.year < 2017


@pytest.mark.parametrize("hours", [6, 24, 72])
def test_every_variable_is_forecast_better_than_by_persistence(forecasts, hours):
    _, scores = forecasts
    found = {key: value for key, value in scores["forecast"].items() if key[2] == hours}

    worse = {
        key: (value, scores["persistence"][key]) for key, value in found.items() if value >= scores["persistence"][key]
    }
    assert len(found) > 6 * 13
    assert worse == {}


def test_ten_days_stay_within_what_is_physical(forecasts):
    stored, _ = forecasts
    last = stored.isel(prediction_timedelta=-1).load()
    for name, field in last.data_vars.items():
        for level in field["level"].values.tolist() if "level" in field.dims else [None]:
            values = field.values if level is None else field.sel(level=level).values
            low, high = limits(name, level)
            assert np.all((values > low) & (values < high)), (name, level)
