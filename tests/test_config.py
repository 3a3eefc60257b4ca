import math
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.loading import dump_config, load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.spec import TASKS, Task

ROOT = Path(__file__).parents[1]
GOOD = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())


def parsed(**changes):
    return parse_config(GOOD | changes, RunConfig, origin="here")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_and_opens_with_its_launch_line(path):
    load_config(path)

    assert path.read_text().startswith(f"# graphcast-batch run configs/{path.name}\n")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_a_dumped_config_loads_as_it_was(path, tmp_path):
    config = load_config(path)

    (tmp_path / "run.yaml").write_text(dump_config(config))

    assert load_config(tmp_path / "run.yaml") == config


def test_an_unknown_key_is_named_by_its_path_with_the_nearest_valid_one():
    with pytest.raises(ConfigError, match=r"inputs\.resolutoin: unknown key; did you mean resolution\?"):
        parsed(inputs={"kind": "synthetic", "resolutoin": 6})
    with pytest.raises(ConfigError, match=r"stpes: unknown key; did you mean steps\?"):
        parsed(stpes=3)
    model = {**GOOD["model"], "weights": {"kind": "random", "architecture": {"mesh_siez": 2}}}
    with pytest.raises(
        ConfigError, match=r"model\.weights\.architecture\.mesh_siez: unknown key; did you mean mesh_size"
    ):
        parsed(model=model)
    with pytest.raises(ConfigError, match=r"workers\.zzz: unknown key; valid keys here: count, device, threads"):
        parsed(workers={"zzz": 1})


def test_every_finding_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parsed(steps=0, retries=-1, stroe="x")

    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == ["steps", "retries", "stroe"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "8"}, r"steps: Input should be a valid integer, but is '8'"),
        ({"steps": 8.5}, r"steps: Input should be a valid integer"),
        ({"times": None}, r"times is required with inputs\.kind: synthetic"),
        ({"inputs": {"kind": "datasets", "path": "x"}}, r"times must be left out with inputs\.kind: datasets"),
        (
            {"inputs": {"kind": "tape", "path": "x"}},
            r"inputs\.kind: one of archive, datasets, synthetic, but is 'tape'$",
        ),
        ({"inputs": {"kind": "dataset", "path": "x"}}, r"inputs\.kind: .*, but is 'dataset'; did you mean datasets\?"),
        ({"inputs": {"path": "x"}}, r"inputs\.kind: required; one of archive, datasets, synthetic"),
        ({"inputs": {"kind": None}}, r"inputs\.kind: one of archive, datasets, synthetic, but is 'None'"),
        ({"model": {"weights": {}}}, r"model\.weights\.kind: required; one of checkpoint, random"),
        ({"times": {"first": "2020-01-01"}}, r"times: give list, file, or all of first, last and every_hours"),
        ({"times": {"list": []}}, r"times: list must hold at least one time"),
        ({"times": {"list": ["2020-01-01", "2020-01-01T00"]}}, r"times: list must hold each time once"),
        (
            {"times": {"first": "2020-01-02", "last": "2020-01-01", "every_hours": 6}},
            r"last .* must not be before first",
        ),
        (
            {"times": {"first": "1900-01-01T00", "last": "2200-01-01T00", "every_hours": 1}},
            r"at most 1000000 initial times, but from 1900-01-01T00 to 2200-01-01T00 every 1 h makes 2629753; bring",
        ),
        ({"times": {"list": ["2020-01-01T00:30"]}}, r"times\.list\.0: an initial time must be a whole hour"),
        ({"times": {"list": ["soon"]}}, r"times\.list\.0: Invalid isoformat string: 'soon'"),
        ({"times": {"list": ["1677-12-31"]}}, r"must be in the years 1678 to 2261, but is 1677-12-31T00:00:00"),
        ({"times": {"list": ["2262-01-01"]}}, r"must be in the years 1678 to 2261, but is 2262-01-01T00:00:00"),
        ({"times": {"list": ["0001-01-01T00:00+05:00"]}}, r"must be in the years 1678 to 2261, but is 0001-01-01"),
        ({"figures": {"variables": []}}, r"figures\.variables: .*at least 1"),
        (
            {"figures": {"variables": ["x"], "projection": "orthographic"}},
            r"figures: projection: orthographic and center: .* but projection is orthographic and center not given",
        ),
        (
            {"figures": {"variables": ["x"], "center": [45, 10]}},
            r"figures: .*belong together, but projection is plate_carree and center \[45\.0, 10\.0\]",
        ),
        ({"figures": {"variables": ["x"], "projection": "mercator"}}, r"figures\.projection: .*'robinson'"),
        ({"figures": {"variables": ["x"], "contours": {"level": 500}}}, r"figures\.contours\.variable: "),
        ({"figures": {"variables": ["x"], "hovmoller": [60, 35]}}, r"hovmoller must be \[south, north\], but is \[60"),
        ({"figures": {"variables": "x"}}, r"figures\.variables: Input should be a valid list, but is 'x'"),
        ({"limits": True}, r"limits: give auto, off, or a mapping of variables to \[low, high\], not True"),
        ({"limits": "of"}, r"limits: give auto, off, or a mapping of variables to \[low, high\], not 'of'"),
        *(
            ({"limits": {"temperature": wrong}}, r"limits: a variable has its \[low, high\], .* temperature has ")
            for wrong in (3, [1], [2, 1], [1, 1], [1, 2, 3], ["1", "2"], [True, 2], [0, math.inf], [math.nan, 1], None)
        ),
        ({"limits": {500: [1, 2]}}, r"limits: a variable has its \[low, high\], .* but 500 has \[1, 2\]"),
        ({"time_limits": {"read": 0}}, r"time_limits\.read: Input should be greater than 0, but is 0"),
        ({"time_limits": {"rite": 5}}, r"time_limits\.rite: unknown key; did you mean write\?"),
        ({"outputs": {"variable": ["x"]}}, r"outputs\.variable: unknown key; did you mean variables\?"),
        ({"outputs": {"variables": []}}, r"outputs\.variables: .*at least 1"),
        (
            {"outputs": {"lead_hours": [24], "every_hours": 24}},
            r"outputs: give either lead_hours or every_hours, not both",
        ),
        (
            {"outputs": {"region": {"latitude": [60, 30], "longitude": [0, 90]}}},
            r"outputs\.region: latitude must be \[south, north\], but is \[60\.0, 30\.0\]",
        ),
        (
            {"outputs": {"region": {"latitude": [30, 60], "longitude": [10, 10]}}},
            r"outputs\.region: longitude must be \[west, east\], two meridians",
        ),
        ({"outputs": {"region": {"latitude": [30, 60]}}}, r"outputs\.region\.longitude: required, but missing"),
        ({"outputs": {"region": {"latitude": [30, 91], "longitude": [0, 9]}}}, r"outputs\.region\.latitude\.1: "),
        ({"outputs": {"keep_bits": 23}}, r"outputs\.keep_bits.*: Input should be less than or equal to 22, but is 23"),
        (
            {"outputs": {"keep_bits": {"temperature": 0}}},
            r"outputs\.keep_bits.*temperature.*greater than or equal to 1",
        ),
        ({"outputs": {"compression": "gzip"}}, r"outputs\.compression: Input should be 'lz4', 'zstd' or 'none'"),
        ({"outputs": {"max_files": 0}}, r"outputs\.max_files: Input should be greater than 0"),
        ({"store": "s3://bucket/run"}, r"store: stores on object stores are not supported yet; give a folder"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(changes, message):
    with pytest.raises(ConfigError, match=message):
        parsed(**changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", "off"),  # which YAML reads as false
        ("'off'", "off"),
        ("auto", "auto"),
        ("{2m_temperature: [150, 400.5]}", {"2m_temperature": (150.0, 400.5)}),
        ("{}", {}),
    ],
)
def test_limits_are_kept_as_they_were_meant(text, expected, tmp_path):
    config = parsed(limits=yaml.safe_load(text))

    assert config.limits == expected
    (tmp_path / "run.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "run.yaml") == config


def test_a_missing_file_a_list_and_broken_yaml_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_config(tmp_path / "nowhere.yaml")
    for name, content, message in (
        ("list.yaml", "- a\n", "must be a mapping of keys to values, but is list"),
        ("broken.yaml", "a: [", "must be readable YAML"),
        ("evil.yaml", "a: !!python/object/apply:os.system [echo]", "must be readable YAML"),
        ("binary.yaml", "\x00", "must be readable YAML"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=f"{name}.*{message}"):
            load_config(tmp_path / name)


def test_paths_hold_in_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)
    weights = {"kind": "checkpoint", "path": "~/checkpoint.npz"}

    config = parsed(store="run", model={"weights": weights, "statistics": "/stats"})

    assert config.store == tmp_path / "run"
    assert config.model.weights.path == Path("/home/someone/checkpoint.npz")
    assert config.model.statistics == Path("/stats")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/*.nc", "{here}/data/*.nc"),
        ("~/era5.zarr", "/home/someone/era5.zarr"),
        ("/data/[ab].nc", "/data/[ab].nc"),
        ("s3://bucket/era5.zarr", "s3://bucket/era5.zarr"),
    ],
)
@pytest.mark.parametrize("kind", ["archive", "datasets"])
def test_paths_of_inputs_hold_too_and_addresses_stay(tmp_path, monkeypatch, kind, path, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)

    config = parsed(inputs={"kind": kind, "path": path}, times=GOOD["times"] if kind == "archive" else None)

    assert config.inputs.path == expected.format(here=tmp_path)


def test_a_repeated_key_is_named_with_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("steps: 4\nmodel:\n  precision: auto\n  precision: float32\n")

    with pytest.raises(ConfigError, match=r"twice\.yaml.* but precision is there again on line 4; remove one"):
        load_config(path)


def test_a_key_may_be_in_two_mappings_and_overrule_a_merged_one(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text("deep: {a: &a {<<: &b {x: 1}, x: 2}}\nagain: {<<: *a, x: 3}\n")

    assert read_mapping(path) == {"deep": {"a": {"x": 2}}, "again": {"x": 3}}


def test_times_may_be_written_as_dates_texts_or_with_a_zone():
    texts = "list: [2020-01-01, 2020-01-01T06, 2020-01-01 12:00:00, '2020-01-01T19:00+01:00']"

    found = parse_config(yaml.safe_load(texts), TimesConfig, origin="here").list

    assert found == tuple(datetime(2020, 1, 1, hour) for hour in (0, 6, 12, 18))  # noqa: DTZ001 - UTC without a zone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_variables": ()}, "target_variables must name at least one"),
        ({"input_variables": ("a", "a")}, "input_variables must name each once, but repeats a"),
        ({"forcing_variables": ("2m_temperature",)}, "a target or a forcing, but 2m_temperature is both"),
        ({"pressure_levels": (500, 100)}, "pressure_levels must ascend"),
        ({"input_duration": "10h"}, "input_duration must be a multiple of 6h, but is 10h"),
        ({"input_duration": "soon"}, "input_duration must be a multiple of 6h, but is soon"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(changes, message):
    fields = TASKS["GraphCast_small"].model_dump() | changes
    with pytest.raises(ConfigError, match=message):
        parse_config(fields, Task, origin="here")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    )
)
def test_whatever_a_section_holds_the_error_is_ours(junk):
    for section in ("inputs", "times", "model", "figures", "store", "workers", "limits", "time_limits"):
        try:
            parsed(**{section: junk})
        except ConfigError:
            continue
