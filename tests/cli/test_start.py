"""What `init` writes loads and plans, and `schema` says what may stand in a config."""

import json
import os
import pty
import re
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
import yaml

from graphcast_batch.cli import main
from graphcast_batch.config.loading import load_config
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.setup.input_faults import input_faults
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.variables import VARIABLES
from tests.conftest import ROOT

SMALL_13 = ROOT / "tests" / "reference" / "small_13"


def init(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["init", *map(str, arguments)])
    return ended.value.code


def archive(path, names, levels, last="2020-01-03T00"):
    times = np.arange("2020-01-01T00", last, 6, dtype="datetime64[h]").astype("datetime64[ns]")
    SyntheticPlanet().fields(names, times, regular_grid(15), levels).to_netcdf(path)
    return path


def keys(config):
    return [case.key for case in assemble(config).plan.cases]


def test_without_answers_a_run_of_the_synthetic_planet_is_written(tmp_path, capsys):
    file = tmp_path / "first.yaml"

    assert init(file) == 0

    assert keys(load_config(file)) == ["2020-01-01T00", "2020-01-01T12", "2020-01-02T00", "2020-01-02T12"]
    told = capsys.readouterr()
    assert f"next: graphcast-batch plan {file}\n" in told.out
    assert load_config(file).store.name == "first.zarr"
    assert "ends in .zarr" not in told.out + told.err


def test_a_store_whose_name_does_not_end_in_zarr_gets_a_note(tmp_path, capsys):
    assert init(tmp_path / "first.yaml", "--store", tmp_path / "run") == 0
    told = capsys.readouterr()
    assert f"some tools read {tmp_path / 'run'} only if its name ends in .zarr" in (told.out + told.err).replace(
        "\n", " "
    )


def test_the_times_of_an_archive_are_proposed_that_have_the_frame_before_and_all_of_their_truth(tmp_path):
    path = archive(tmp_path / "a.nc", ["temperature", "2m_temperature", "land_sea_mask"], [500, 850])
    file = tmp_path / "first.yaml"

    init(file, "--inputs", path, "--steps", 2)  # held until 2020-01-02T18

    config = load_config(file)
    assert keys(config) == ["2020-01-01T06", "2020-01-01T18", "2020-01-02T06"]
    assert (config.times.first.hour, f"{config.times.last:%dT%H}") == (6, "02T06")
    assert config.model.weights.task.target_variables == ("2m_temperature", "temperature")
    assert config.model.weights.task.pressure_levels == (500, 850)


def test_an_archive_too_short_for_truth_still_has_its_times_proposed(tmp_path):
    path = archive(tmp_path / "a.nc", ["temperature", "2m_temperature"], [500])
    file = tmp_path / "first.yaml"

    init(file, "--inputs", path, "--steps", 40, "--every-hours", 6)

    assert keys(load_config(file))[-1] == "2020-01-02T18"


def test_an_archive_of_all_that_a_published_model_takes_is_given_its_task(tmp_path):
    names = [name for name, variable in VARIABLES.items() if variable.kind != "forcing"]
    levels = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]  # Lam et al. 2023, GraphCast_small
    path = archive(tmp_path / "a.nc", names, levels, "2020-01-01T18")

    init(tmp_path / "first.yaml", "--inputs", path)

    assert yaml.safe_load((tmp_path / "first.yaml").read_text())["model"]["weights"]["task"] == "GraphCast_small"


def test_dataset_files_are_recognized_and_fix_the_times(tmp_path, capsys):
    answers = ("--inputs", SMALL_13 / "source-*.nc", "--weights", SMALL_13 / "checkpoint.npz")
    file = tmp_path / "first.yaml"

    init(file, *answers, "--statistics", SMALL_13, "--steps", 3)

    config = load_config(file)
    assert (config.inputs.kind, config.times, config.model.statistics) == ("datasets", None, SMALL_13)
    assert len(keys(config)) == 1
    assert init(tmp_path / "other.yaml", *answers, "--statistics", SMALL_13, "--first", "2020-01-01T00") == 2
    assert "fixes the initial times; leave out --first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["a b", "null", "2020-01-01", "x: y", "# 1", "1e3", "~", "é", "{}", "'", '"', "off", "\\n"]
)
def test_any_name_is_written_so_that_it_is_read_back(tmp_path, name):
    init(tmp_path / "first.yaml", "--store", f"./{name}", "--weights", "random")
    init(tmp_path / "other.yaml", "--store", name)

    for file in ("first", "other"):
        assert load_config(tmp_path / f"{file}.yaml").store.name == name or name == "~"


def test_a_name_with_a_line_break_is_refused(tmp_path, capsys):
    assert init(tmp_path / "first.yaml", "--store", "a\nb") == 2
    assert "must be UTF-8 without line breaks and other control characters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--inputs", "/nowhere/*.nc"], 1, "InputNotFoundError"),
        (["--weights", "w.npz"], 2, "needs the statistics that it was trained with"),
        (["--first", "yesterday"], 2, "times.first"),
        (["--first", "2021-01-01T00"], 2, "must not be before first"),
    ],
)
def test_answers_that_do_not_fit_write_nothing(tmp_path, capsys, arguments, code, message):
    assert init(tmp_path / "first.yaml", *arguments) == code

    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "first.yaml").write_text("mine")

    assert init(tmp_path / "first.yaml") == 2

    assert "first.yaml must not" in capsys.readouterr().err
    assert (tmp_path / "first.yaml").read_text() == "mine"


def test_on_a_terminal_it_asks_for_what_is_not_given(tmp_path):
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "graphcast_batch", "init", "first.yaml", "--inputs", "synthetic"]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path) as process:
        os.close(theirs)
        os.write(ours, b"\n5\nmy store\n\n2020-01-01T18\n6\n")
        told = b""
        try:
            while piece := os.read(ours, 4096):
                told += piece
        except OSError:  # how Linux tells that the other side is closed
            pass
    os.close(ours)

    assert process.returncode == 0, told
    assert b"6 h steps of each forecast [8]: " in told
    config = load_config(tmp_path / "first.yaml")
    assert (config.steps, config.store.name) == (5, "my store")
    assert keys(config) == ["2020-01-01T00", "2020-01-01T06", "2020-01-01T12", "2020-01-01T18"]


def schema(capsys, *kind):
    with pytest.raises(SystemExit):
        main(["schema", *kind])
    found = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def as_json(path):
    """A YAML file as an editor sees it, for which a date is text."""
    return json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))


def test_the_shipped_configs_and_recipes_fit_the_schemas(capsys):
    for kind, folder in (("run", "configs"), ("recipe", "configs/training")):
        found = schema(capsys, kind)
        files = sorted((ROOT / folder).glob("*.yaml"))
        assert files
        for file in files:
            jsonschema.validate(as_json(file), found)


def test_what_init_writes_fits_the_schema(tmp_path, capsys):
    init(tmp_path / "first.yaml")
    capsys.readouterr()

    jsonschema.validate(as_json(tmp_path / "first.yaml"), schema(capsys))


@pytest.mark.parametrize(
    "change",
    [
        {"times": {"file": "times.txt", "hours": [0, 12]}},
        {"times": {"list": ["2020-01-01"]}},
        {"outputs": "none", "scores": {"online": True}, "figures": None},
        {"limits": {"temperature": [100, 400]}, "cache": "off"},
        {"outputs": {"keep_bits": {"geopotential": 14}}},
    ],
)
def test_what_a_config_may_also_say_fits_the_schema(capsys, change):
    jsonschema.validate(as_json(ROOT / "configs" / "demo.yaml") | change, schema(capsys))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"stpes": 3}, []),
        ({"steps": "many"}, ["steps"]),
        ({"steps": 0}, ["steps"]),
        ({"inputs": {"kind": "archives", "path": "x"}}, ["inputs"]),
        ({"outputs": "all"}, ["outputs"]),
        ({"model": {}}, ["model"]),
        ({"workers": {"device": "tpu"}}, ["workers", "device"]),
    ],
)
def test_what_a_config_must_not_say_does_not_fit_the_schema(capsys, change, place):
    wrong = as_json(ROOT / "configs" / "demo.yaml") | change

    with pytest.raises(jsonschema.ValidationError) as found:
        jsonschema.validate(wrong, schema(capsys))

    assert list(found.value.absolute_path) == place


@pytest.mark.parametrize("kind", ["run", "recipe"])
def test_every_key_is_described(capsys, kind):
    found = schema(capsys, kind)
    models = [found, *found["$defs"].values()]
    models += [part for model in models for part in model.get("anyOf", [])]

    silent = {
        f"{model.get('title')}.{key}"
        for model in models
        for key, value in model.get("properties", {}).items()
        if key != "kind" and "description" not in value
    }

    assert not silent


def hourly(first="2019-12-31T00", hours=37, step=1):
    """Weather with the precipitation of each hour, as the CDS gives it."""
    times = (np.datetime64(first) + np.arange(0, hours, step) * np.timedelta64(1, "h")).astype("datetime64[ns]")
    names = ["temperature", "vertical_velocity", "specific_humidity", "2m_temperature", "total_precipitation_6hr"]
    fields = SyntheticPlanet().fields(names, times, regular_grid(30), [100, 500, 850, 1000])
    named = fields.rename(total_precipitation_6hr="total_precipitation")
    named["total_precipitation"] = (named["total_precipitation"] / 6).astype("float32")
    return named


def proposal(tmp_path, fields, *arguments):
    """What `init` proposes for an archive, once `plan` has taken it."""
    fields.to_netcdf(tmp_path / "a.nc")
    assert init(tmp_path / "first.yaml", "--inputs", tmp_path / "a.nc", "--store", tmp_path / "s", *arguments) == 0
    config = load_config(tmp_path / "first.yaml")
    run = assemble(config)
    task = config.model.weights.task
    for case in run.plan.cases:
        assert input_faults(run.source, case, task, 0) == []
    return task, [case.key for case in run.plan.cases]


def test_of_an_hourly_archive_the_hours_of_analyses_are_proposed(tmp_path):
    task, cases = proposal(tmp_path, hourly(), "--steps", 1)

    assert "total_precipitation_6hr" in task.target_variables
    assert cases == ["2019-12-31T12", "2020-01-01T00"]  # the frame before needs precipitation from 00 UTC on


def test_precipitation_that_five_of_six_hours_lack_is_left_out_with_the_reason(tmp_path, capsys):
    task, cases = proposal(tmp_path, hourly(step=6), "--steps", 1)

    assert "total_precipitation_6hr" not in task.target_variables
    assert cases == ["2019-12-31T06", "2019-12-31T18", "2020-01-01T06"]
    told = " ".join(capsys.readouterr().err.split())
    assert "left out: total_precipitation_6hr: must hold every time" in told
    assert "total_precipitation (hourly) at each time and 1, 2, 3, 4, 5 h before" in told


def test_levels_without_a_variable_and_variables_of_another_kind_are_left_out(tmp_path, capsys):
    fields = hourly(step=6).drop_vars("total_precipitation")
    fields["vertical_velocity"] = fields["vertical_velocity"].where(fields["level"] > 100)
    fields["specific_humidity"] = fields["specific_humidity"].isel(level=-1, drop=True)

    task, _ = proposal(tmp_path, fields, "--steps", 1)

    assert task.pressure_levels == (500, 850, 1000)
    assert sorted(task.target_variables) == ["2m_temperature", "temperature", "vertical_velocity"]
    told = capsys.readouterr().err
    assert "left out: 100 hPa: vertical_velocity has gaps there" in told
    assert "left out: specific_humidity: it must have the dimensions time, level, latitude, longitude" in told


def test_of_an_archive_with_gaps_the_longest_row_of_times_is_proposed(tmp_path):
    fields = hourly(hours=97, step=6).drop_vars("total_precipitation")

    _, cases = proposal(tmp_path, fields.isel(time=[0, 1, 2, 3, *range(6, 17)]), "--steps", 1)

    assert cases == ["2020-01-01T18", "2020-01-02T06", "2020-01-02T18", "2020-01-03T06", "2020-01-03T18"]


@pytest.mark.parametrize("change", [lambda f: f[["land_sea_mask"]], lambda f: f.isel(time=slice(1))])
def test_an_archive_that_starts_nothing_is_refused_with_what_it_lacks(tmp_path, capsys, change):
    times = np.arange("2020-01-01T00", "2020-01-02T00", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    fields = SyntheticPlanet().fields(["2m_temperature", "land_sea_mask"], times, regular_grid(30), [])
    change(fields).to_netcdf(tmp_path / "a.nc")

    assert init(tmp_path / "first.yaml", "--inputs", tmp_path / "a.nc") in (1, 2)
    assert re.search("must hold (a variable that changes with time|times 6 h apart)", capsys.readouterr().err)
