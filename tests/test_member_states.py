"""Ensembles of which each member starts from a member of an analysis ensemble, through the public door."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from graphcast_batch.app.planning import plan
from graphcast_batch.config.loading import dump_config
from graphcast_batch.errors import ConfigError, InputError, StoreMismatchError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.setup.store_identity import lay_out, store_identity
from graphcast_batch.variables import LEVELS_13, VARIABLES
from tests.conftest import SMALL, made_once
from tests.test_ensemble_run import save_weights

TIMES = np.arange(np.datetime64("2019-12-31T18", "ns"), np.datetime64("2020-01-01T13"), np.timedelta64(6, "h"))
INIT_TIMES = {"first": "2020-01-01T00", "last": "2020-01-01T06", "every_hours": 6}
HELD = [name for name, variable in VARIABLES.items() if variable.kind in ("level", "surface")]
STATIC = [name for name, variable in VARIABLES.items() if variable.kind == "static"]
RAIN = "total_precipitation_6hr"
STATES = [name for name in HELD if name != RAIN]


def weather(seed, names=(*HELD, *STATIC), times=TIMES):
    return SyntheticPlanet(seed).fields(list(names), times, regular_grid(15), LEVELS_13)


def members(numbers, names=STATES, times=TIMES, dim="number"):
    """Members of which each has other weather; that of number k has the seed 10 + k."""
    several = [weather(10 + number, names, times) for number in numbers]
    return xr.concat(several, xr.IndexVariable(dim, list(numbers)))


def as_zarr(fields, path):
    fields.drop_encoding().to_zarr(path, zarr_format=2, consolidated=True)
    return str(path)


def as_netcdf(fields, path):
    fields.drop_encoding().to_netcdf(path, engine="netcdf4")
    return str(path)


def written(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


def inputs(path):
    return {"kind": "archive", "path": str(path)}


def perturbations(path, count, **keys):
    return {"perturbations": {"kind": "file", "path": path, "members": count, **keys}}


@pytest.fixture(scope="session")
def control(shared_folder):
    """The inputs of the run."""
    return made_once(shared_folder / "member_states_control", lambda folder: as_zarr(weather(0), folder / "c.zarr"))


@pytest.fixture
def config(tmp_path, control):
    def make(name="run", **changes):
        return SMALL | {"store": str(tmp_path / name), "times": INIT_TIMES, "inputs": inputs(control)} | changes

    return make


@pytest.fixture
def run(command, tmp_path):
    def make(content, ends=0):
        done = command("run", written(tmp_path / "config.yaml", content))
        assert done.returncode == ends, done.stdout + done.stderr
        return done, xr.open_zarr(content["store"]).load()

    return make


def test_a_member_is_the_forecast_of_a_run_whose_inputs_are_that_members(config, run, tmp_path):
    path = as_zarr(members([0, 1]), tmp_path / "eda.zarr")
    done, ensemble = run(config(ensemble=perturbations(path, 2) | {"control": True}))
    assert "6 of 6 Cases complete" in done.stdout
    assert ensemble["perturbation"].values.tolist() == ["none", "file 0", "file 1"]
    assert ensemble["seed"].values.tolist() == [-1, -1, -1]

    own = xr.merge([weather(11, STATES), weather(0, [RAIN, *STATIC])])
    _, alone = run(config("alone", inputs=inputs(as_zarr(own, tmp_path / "own.zarr"))))
    _, unperturbed = run(config("unperturbed"))

    for name in alone:
        np.testing.assert_array_equal(ensemble[name].sel(number=2).values, alone[name].values)
        np.testing.assert_array_equal(ensemble[name].sel(number=0).values, unperturbed[name].values)
        assert not np.array_equal(ensemble[name].sel(number=1).values, alone[name].values)


@pytest.mark.parametrize(
    ("dim", "numbers", "names"),
    [
        ("member", [1, 2, 3], {}),
        ("realization", [0, 5, 7], {}),
        ("ensemble", [0, 1, 2], {}),
        ("perturbation_id", [1, 2, 3], {"perturbation_id": "number"}),
    ],
)
def test_members_are_along_any_usual_dimension_and_taken_in_the_order_of_their_numbers(
    config, tmp_path, dim, numbers, names
):
    path = as_netcdf(members(numbers[::-1], dim=dim), tmp_path / "members.nc")
    found = plan(config(ensemble=perturbations(path, 2, names=names))).assembled.members

    assert found.numbers == tuple(numbers)
    init_time = np.datetime64("2020-01-01T00")
    for place in range(2):
        frames = found.replaced(weather(0, times=TIMES[:2]), place, init_time).frames
        expected = weather(10 + numbers[place], STATES, TIMES[:2])
        xr.testing.assert_equal(frames[STATES], expected)
        for name in STATIC:
            np.testing.assert_array_equal(frames[name].values, weather(0)[name].values)


def test_members_may_be_in_a_file_each(config, tmp_path):
    for number in (3, 1, 2):
        alone = weather(10 + number, STATES).assign_coords(number=number)
        as_netcdf(alone, tmp_path / f"gep{number:02}.nc")
    found = plan(config(ensemble=perturbations(str(tmp_path / "gep*.nc"), 3))).assembled.members

    assert found.numbers == (1, 2, 3)
    frames = found.replaced(weather(0, times=TIMES[:2]), 2, np.datetime64("2020-01-01T00")).frames
    xr.testing.assert_equal(frames[STATES], weather(13, STATES, TIMES[:2]))


def test_initial_times_at_which_a_member_is_missing_are_skipped_and_named(config, run, tmp_path):
    as_netcdf(members([0, 1, 2], times=TIMES[:2]), tmp_path / "first.nc")
    as_netcdf(members([0], times=TIMES[2:]), tmp_path / "second.nc")
    content = config(ensemble=perturbations(str(tmp_path / "*.nc"), 3))

    (lacking,) = plan(content).skipped.items()
    assert lacking[0] == "2020-01-01T06"
    assert "in the members 1, 2 of" in lacking[1]
    assert "2020-01-01T06:00 are missing from its 2 times" in lacking[1]
    done, stored = run(content, ends=3)
    assert "skipped" in done.stdout
    assert np.isfinite(stored["2m_temperature"].sel(time="2020-01-01T00").values).all()

    records = [json.loads(path.read_text()) for path in tmp_path.glob("run/ledger/**/2020-01-01T00*.json")]
    read = sorted(record["details"]["read_bytes"] for record in records)
    of_state = 2 * 13 * 24 * 4 * sum(13 if VARIABLES[name].kind == "level" else 1 for name in STATES)
    assert (read[0], read[1]) == (of_state, of_state)
    assert read[2] > 2 * of_state  # with the inputs that all members share
    assert not plan(config("one", ensemble=perturbations(str(tmp_path / "*.nc"), 1))).skipped


def test_more_members_than_the_archive_holds_are_refused(config, tmp_path):
    path = as_zarr(members([0, 1]), tmp_path / "eda.zarr")
    with pytest.raises(
        InputError, match=r"eda\.zarr must hold 3 members, but holds 2: the members 0, 1; set members: 2"
    ):
        plan(config(ensemble=perturbations(path, 3)))


def test_a_member_with_a_gap_fails_alone(config, run, command, tmp_path):
    fields = members([0, 1])
    fields["temperature"][{"number": 1, "time": 2, "level": 3, "latitude": 4, "longitude": 5}] = np.nan
    content = config(ensemble=perturbations(as_zarr(fields, tmp_path / "eda.zarr"), 2))

    checked = command("check", written(tmp_path / "check.yaml", content))
    assert checked.returncode == 3
    assert "3 of 4 initial states can start a forecast, 1 cannot" in checked.stdout
    assert re.search(r"2020-01-01T06-m001 +. temperature +. 200 .*be finite", checked.stdout)
    done, stored = run(content | {"retries": 0}, ends=3)
    assert "3 of 4 Cases complete" in done.stdout
    assert "member 1 of" in done.stdout + done.stderr
    assert np.isnan(stored["2m_temperature"].sel(time="2020-01-01T06", number=1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda fields: fields.isel(number=0, drop=True),
            r"must have a dimension of members \(number, .*perturbations\.names",
        ),
        (lambda fields: fields.sel(level=[500, 850]), r"in the members 0, 1 of .* are missing from \[500, 850\]"),
        (lambda fields: fields.isel(time=slice(1)), "cannot start any of 2 Cases; the first, 2020-01-01T00"),
        (lambda fields: fields[["2m_temperature"]].rename({"2m_temperature": "x"}), "variables of a known layout"),
        (
            lambda fields: fields.assign_coords(number=[0.5, 1]),
            "another whole number for each member, but holds 0.5, 1",
        ),
        (
            lambda fields: fields.assign_coords(number=["a", "b"]),
            "another whole number for each member, but holds a, b",
        ),
    ],
)
def test_an_archive_that_cannot_be_the_ensemble_is_refused(config, tmp_path, change, message):
    path = as_netcdf(change(members([0, 1])), tmp_path / "eda.nc")
    with pytest.raises(InputError, match=message):
        plan(config(ensemble=perturbations(path, 2)))


def test_members_on_another_grid_are_refused_or_regridded(config, tmp_path):
    fine = SyntheticPlanet(10).fields(STATES, TIMES, regular_grid(7.5), LEVELS_13).expand_dims(number=[0])
    path = as_zarr(fine, tmp_path / "fine.zarr")
    with pytest.raises(InputError, match=r"grid of the inputs.*set ensemble\.perturbations\.regrid: subsample"):
        plan(config(ensemble=perturbations(path, 1)))

    found = plan(config(ensemble=perturbations(path, 1, regrid="subsample"))).assembled.members
    frames = found.replaced(weather(0, times=TIMES[:2]), 0, np.datetime64("2020-01-01T00")).frames
    coarse = fine.isel(number=0, latitude=slice(None, None, 2), longitude=slice(None, None, 2), time=slice(2))
    np.testing.assert_array_equal(frames["temperature"].values, coarse["temperature"].values)


def test_a_member_that_lacks_a_variable_that_others_hold_is_refused(config, tmp_path):
    as_netcdf(weather(10, STATES).assign_coords(number=0), tmp_path / "0.nc")
    as_netcdf(weather(11, STATES[1:]).assign_coords(number=1), tmp_path / "1.nc")
    with pytest.raises(
        InputError, match=rf"member 1 of .* same variables as .*, but {STATES[0]} is in one of them only"
    ):
        plan(config(ensemble=perturbations(str(tmp_path / "*.nc"), 2)))


def test_precipitation_that_cannot_be_summed_up_skips_all_unless_its_name_is_taken_away(config, tmp_path):
    fields = members([0, 1], names=[*STATES, RAIN]).rename({RAIN: "total_precipitation"})
    path = as_netcdf(fields, tmp_path / "eda.nc")
    with pytest.raises(InputError, match=rf"cannot start any .*{RAIN}"):
        plan(config(ensemble=perturbations(path, 2)))

    found = plan(config(ensemble=perturbations(path, 2, names={"total_precipitation": "unused"})))
    assert set(found.assembled.members.names) == set(STATES)


def test_plain_inputs_with_a_dimension_of_members_are_refused_with_the_key_to_use(config, tmp_path):
    several = xr.merge([members([0, 1]), weather(0, [RAIN, *STATIC])])
    with pytest.raises(
        InputError, match=r"has number, .*select one place along number, or .*ensemble\.perturbations, kind"
    ):
        plan(config(inputs=inputs(as_zarr(several, tmp_path / "eda.zarr"))))


def test_the_store_of_another_archive_is_refused_and_more_members_extend_it(config, tmp_path):
    path = as_zarr(members([0, 1]), tmp_path / "eda.zarr")
    content = config(ensemble=perturbations(path, 1))
    lay_out(plan(content).assembled, "float32", run_serially)

    assert len(plan(config(ensemble=perturbations(path, 2))).cases) == 4
    other = as_zarr(members([0, 1]), tmp_path / "other.zarr")
    with pytest.raises(StoreMismatchError, match=r"perturbations: the store has .*eda\.zarr.*other\.zarr"):
        plan(config(ensemble=perturbations(other, 2)))


def test_a_store_knows_its_archive_without_the_secrets_to_read_it(config, tmp_path):
    path = as_zarr(members([0]), tmp_path / "eda.zarr")
    options = {"secret_access_key": "hush-hush", "region": "eu-central-1"}
    run = plan(config(ensemble=perturbations(path, 1, storage=options))).assembled

    identity = store_identity(run, run.statistics, "float32")["perturbations"]
    assert (identity["path"], identity["storage"]) == (path, {"region": "eu-central-1"})
    assert "hush" not in dump_config(run.config)


def test_a_plan_shows_which_variables_members_replace(config, tmp_path):
    path = as_zarr(members([0, 1, 2], names=["temperature", "2m_temperature"]), tmp_path / "eda.zarr")
    shown = repr(plan(config(ensemble=perturbations(path, 2))))
    assert "the members 0, 1 of" in shown
    assert "2m_temperature, temperature" in shown


@pytest.mark.parametrize("keys", [{"seed": 1}, {"amplitude": 1}, {"members": 0}, {"statics": "x.nc"}, {"path": None}])
def test_keys_that_members_of_a_file_do_not_have_are_refused(config, keys):
    with pytest.raises(ConfigError, match=rf"ensemble\.perturbations.*{next(iter(keys))}"):
        plan(config(ensemble={"perturbations": {"kind": "file", "path": "eda.zarr", "members": 2} | keys}))


def test_31_checkpoints_on_31_analyses_are_one_ensemble_of_which_the_statistics_are_kept(config, run, tmp_path):
    """The shape of ``configs/aigefs.yaml``, with made weights and analyses."""
    shipped = yaml.safe_load((Path(__file__).parents[1] / "configs/aigefs.yaml").read_text())
    count = len(shipped["ensemble"]["checkpoints"])
    paths = [tmp_path / f"m{number:02d}.npz" for number in range(count)]
    for number, path in enumerate(paths):
        save_weights(path, number)
    states = as_zarr(members(range(count), ["temperature", "geopotential"]), tmp_path / "gefs.zarr")
    chosen = shipped["ensemble"] | {"checkpoints": [*map(str, paths)]}
    chosen["perturbations"] = chosen["perturbations"] | {"path": states}
    several = config(
        times={"list": ["2020-01-01T00"]},
        steps=2,
        model={"statistics": SMALL["model"]["statistics"]},
        ensemble=chosen,
        outputs=shipped["outputs"],
        scores=shipped["scores"],
    )

    done, stored = run(several)

    assert "31 of 31 Cases complete" in done.stdout
    assert "1 of 1 ensembles complete, 0 with a failure" in done.stdout
    assert stored["checkpoint"].values.tolist() == [path.stem for path in paths]
    assert stored["perturbation"].values.tolist() == [f"file {number}" for number in range(count)]
    assert len({*stored["weights_sha256"].values.tolist()}) == count
    control = stored["2m_temperature"].isel(time=0)
    assert np.isfinite(control.sel(number=0).values).all()
    assert np.isnan(control.sel(number=slice(1, None)).values).all()
    together = xr.open_zarr(tmp_path / "run" / "ensemble").load()
    assert len(together) == 5 * 5
    low, middle, high = (together[f"2m_temperature_quantile_{quantile}"].values for quantile in (0.1, 0.5, 0.9))
    assert ((low < middle) & (middle < high)).mean() > 0.99
    scores = xr.open_zarr(tmp_path / "run" / "scores" / "ensemble")["2m_temperature"].load()
    ranks = scores.sel(statistic=[f"rank_{rank}" for rank in range(count + 1)])
    np.testing.assert_allclose(ranks.sum("statistic").values, 1.0, rtol=1e-6)
