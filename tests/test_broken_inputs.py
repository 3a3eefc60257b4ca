"""Whatever is wrong with inputs is told before a run: who, what was expected, what was found, what to do."""

import re
import shutil

import pytest
import xarray as xr
import yaml

from graphcast_batch.config.loading import dump_config
from graphcast_batch.errors import ConfigError, GridError, InputError, StatisticsError, TaskError
from graphcast_batch.setup.input_faults import input_faults
from graphcast_batch.setup.run_setup import assemble

from .broken_inputs import BROKEN, MENDED, in_netcdf, same
from .conftest import ROOT, SMALL
from .layouts import weather
from .test_layouts import config_of


@pytest.fixture(scope="module")
def hourly():
    return weather()


def told(config):
    """All that ``graphcast-batch check`` tells of a config."""
    try:
        run = assemble(config, able=False)
    except (ConfigError, GridError, InputError, StatisticsError, TaskError) as error:
        return [str(error)]
    task, resolution = run.checkpoint.task, run.checkpoint.architecture.resolution
    found = [fault for case in run.plan.cases for fault in input_faults(run.source, case, task, resolution)]
    return [reason for _, reason in run.plan.skipped] + list(map(str, found))


def test_of_right_inputs_nothing_is_told(hourly, tmp_path):
    assert told(config_of(in_netcdf(same)(hourly, tmp_path), tmp_path / "store")) == []


@pytest.mark.parametrize("name", BROKEN)
def test_of_broken_inputs_the_fault_is_told_and_nothing_else_and_its_remedies_work(name, hourly, tmp_path):
    inputs = BROKEN[name].write(hourly, tmp_path)
    config = config_of(inputs, tmp_path / "store")
    texts = told(config)
    assert texts
    for text in texts:
        assert re.search(BROKEN[name].told, text), text
        assert {*re.findall(r"\binputs\.([a-z_]+)", text)} <= type(config.inputs).model_fields.keys(), text
    for change in remedies(texts):
        after = told(config_of(changed(inputs, change), tmp_path / "store"))
        assert not after if name in MENDED else not {*after} & {*texts}, (change, after)
    assert name not in MENDED or remedies(texts), "what can be mended in the config must say how"


CHOICES = {
    "kind": ("datasets", "archive"),
    "precipitation": ("hourly", "since_start"),
    "regrid": ("subsample", "conservative", "linear"),
    "resolution": ("15",),
}


def remedies(texts):
    """Every change of the section ``inputs`` that some messages propose."""
    found = {}
    for text in texts:
        for key, mapping in re.findall(r"\binputs\.(names|units):? (\{[^{}]*\})", text):
            found[key, mapping] = {key: yaml.safe_load(mapping)}
        for key, values in re.findall(rf"\binputs\.({'|'.join(CHOICES)}):? ([^;]*)", text):
            found |= {(key, word): {key: word} for word in re.findall(r"\w+", values) if word in CHOICES[key]}
    return list(found.values())


def changed(inputs, change):
    if "kind" in change:
        return {"path": inputs["path"], **change}
    merged = {
        key: {**inputs.get(key, {}), **value} if isinstance(value, dict) else value for key, value in change.items()
    }
    return inputs | merged


@pytest.fixture
def of_statistics(tmp_path):
    """What is told of statistics after a change of one file of them."""

    def tell(kind, change):
        folder = tmp_path / "stats"
        shutil.copytree(ROOT / "stats" / "synthetic", folder)
        path = folder / f"{kind}_by_level.nc"
        with xr.open_dataset(path) as dataset:
            changed = change(dataset.load())
        path.unlink()
        if changed is not None:
            changed.to_netcdf(path)
        inputs = {"kind": "synthetic", "resolution": 15}
        (text,) = told(config_of(inputs, tmp_path / "store", model=SMALL["model"] | {"statistics": str(folder)}))
        return text

    return tell


def without_500_hpa(statistics):
    return statistics.drop_sel(level=500)


def with_a_gap(statistics):
    return statistics.assign(temperature=statistics["temperature"].where(statistics["level"] != 500))


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("mean", lambda s: None, "must hold one of mean_by_level.nc and .*, but neither is there; .*give .* folder"),
        (
            "stddev",
            lambda s: s.drop_vars("temperature"),
            "the stddev statistics lack temperature; .*compute .* from the inputs",
        ),
        ("mean", without_500_hpa, r"the mean of geopotential lacks the levels \[500\] hPa.*; .* compute"),
        ("mean", with_a_gap, "the mean of temperature at 500 hPa must lie within .* K, but is nan; .* compute"),
        ("diffs_stddev", lambda s: s * 0, r"the diffs_stddev of .* must be positive, but is \[0\.0.*; .* compute"),
        ("mean", lambda s: s.expand_dims(time=3), "must hold numbers or numbers by level, but hold .*; give files as "),
    ],
)
def test_of_broken_statistics_the_fault_is_told(kind, change, expected, of_statistics):
    assert re.search(expected, text := of_statistics(kind, change)), text


def columns(table):
    """The text of each column without its spaces, as cells are folded within words too."""
    rows = [line.split("│")[1:-1] for line in table.splitlines() if line.startswith("│")]
    return ["".join(cells).replace(" ", "") for cells in zip(*rows, strict=True)]


@pytest.mark.parametrize("name", ["a level is missing", "a NaN"])
def test_the_command_shows_a_table_of_faults_with_their_remedies(name, hourly, command, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(config_of(BROKEN[name].write(hourly, tmp_path), tmp_path / "store")))
    done = command("check", path)
    assert done.returncode == 3, done.stderr
    assert "0 of 2 Cases can be run, 2 cannot" in done.stdout
    _, variable, _, fault, remedy = columns(done.stdout)
    assert re.search(BROKEN[name].told.replace(" ", ""), f"{variable}{fault};{remedy}")
