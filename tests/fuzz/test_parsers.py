import io
import os
import pickle
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.files.leases import Owner
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.stores.case_records import CaseFailure
from tests.conftest import ROOT
from tests.fuzz.targets import CASE, KNOWN, REFERENCE, TARGETS, attempt
from tests.stores.made_stores import make, plan_of
from tests.stores.test_ledger import record_of

DEMO = (ROOT / "configs" / "demo.yaml").read_bytes()
quick = settings(
    derandomize=True, database=None, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck)
)


def array_bytes(value):
    packed = io.BytesIO()
    np.save(packed, value)
    return packed.getvalue()


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """Sound content for each parser."""
    folder = tmp_path_factory.mktemp("sound")
    make(folder / "store", plan_of([0], 4))
    xr.Dataset({"t": ("x", np.zeros(3, np.float32))}).to_netcdf(folder / "x.nc", format="NETCDF3_CLASSIC")
    return {
        "config": DEMO,
        "times": b"2020-01-01T00\n2020-01-02 # a comment\n",
        "checkpoint": (REFERENCE / "small_13" / "checkpoint.npz").read_bytes(),
        "checkpoint_entry": b"model_config:mesh_size.npy\n" + array_bytes(np.array(2)),
        "pickled": pickle.dumps(load_checkpoint(REFERENCE / "small_13" / "checkpoint.npz").parameters),
        "record": record_of(CASE).model_dump_json().encode(),
        "failure": CaseFailure.of(CASE, ValueError("x"), 1).model_dump_json().encode(),
        "lease": Owner.here(60.0).model_dump_json().encode(),
        "ledger_names": b"2020-01-01T00.failed.json\n2020-01-01T00.claim\nsteps-4x",
        "key": b"2020-01-01T00",
        "root": (folder / "store" / "zarr.json").read_bytes(),
        "dataset_name": b"source-era5_date-2022-01-01_res-1.0_levels-13_steps-04.nc",
        "published": b"era5_res-1.0_levels-13_steps-04",
        "classic": (folder / "x.nc").read_bytes(),
        "attributes": f"{chr(ord('A') + KNOWN.index('temperature'))}kelvin".encode(),
    }


def test_every_parser_has_sound_content_that_it_reads(sound, tmp_path):
    assert sound.keys() == TARGETS.keys()
    for target, content in sound.items():
        (tmp_path / target).mkdir()
        TARGETS[target](content, tmp_path / target)


@pytest.mark.parametrize("target", TARGETS)
def test_changed_bytes_give_the_packages_own_errors_only_and_touch_nothing_else(target, sound, tmp_path, only_inside):
    content = sound[target]
    places = st.integers(0, len(content))
    edits = st.lists(st.tuples(places, st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4)

    @quick
    @given(edits)
    def once(chosen):
        changed = content
        for place, removed, put in chosen:
            changed = changed[:place] + put + changed[place + removed :]
        folder = tmp_path / "one"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with only_inside(folder):
            attempt(target, changed, folder)

    once()


@pytest.mark.parametrize("target", TARGETS)
@quick
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode(errors="replace"))))
@example(data=b"")
def test_any_bytes_give_the_packages_own_errors_only(target, data, tmp_path_factory):
    attempt(target, data, tmp_path_factory.mktemp("one"))


def paths_in(content, path=()):
    yield path
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from paths_in(value, (*path, key))


CONFIGS = [yaml.safe_load(path.read_bytes()) for path in sorted((ROOT / "configs").glob("*.yaml"))]
RANDOM = {"kind": "random", "seed": 0, "architecture": {"mesh_size": 3, "latent_size": 32}, "task": "GraphCast_small"}
CONFIGS += [{**config, "model": {**config["model"], "weights": RANDOM}} for config in CONFIGS[:1]]
ODD = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers() | st.sampled_from([10**400, -(10**400), 2**63, 2**31]),
        st.floats(),
        st.text(max_size=20) | st.sampled_from(["../../x", "~nobody/x", "a\0b", "s3://b", "٣h", "9" * 5000 + "h"]),
        st.datetimes() | st.dates(),
        st.binary(max_size=5),
    ),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=5,
)


@settings(quick, max_examples=400)
@given(st.data())
def test_any_value_in_any_place_of_a_config_is_taken_or_refused_by_name(data):
    content = data.draw(st.sampled_from(CONFIGS))
    path = data.draw(st.sampled_from([path for path in paths_in(content) if path]))

    def put(part, rest):
        if not rest:
            return data.draw(ODD)
        copy = dict(part) if isinstance(part, dict) else list(part)
        copy[rest[0]] = put(part[rest[0]], rest[1:])
        return copy

    try:
        parse_config(put(content, path), RunConfig, origin="here")
    except ConfigError as error:
        assert "does not fit" in str(error)  # noqa: PT017 - most values are fine, and then nothing is raised


SCALARS = st.sampled_from(
    ["1", "''", "x", "~", "2020-01-01", "1:2:3", "0b2", "0o9", ".nan", "=", "2020-13-45", "1_0", "*a", "&a x", "<<"]
)
TAGS = st.sampled_from(
    [
        "",
        "!!int ",
        "!!float ",
        "!!bool ",
        "!!timestamp ",
        "!!binary ",
        "!!set ",
        "!!omap ",
        "!!pairs ",
        "!!null ",
        "!x ",
    ]
) | st.sampled_from(["!!python/name:os.system ", "!!python/object/apply:os.system "])


def collected(children):
    items = st.lists(children, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
    pairs = st.lists(st.tuples(children, children), max_size=3)
    return items | pairs.map(lambda parts: "{" + ", ".join(f"? {key} : {value}" for key, value in parts) + "}")


YAML = st.recursive(
    st.tuples(TAGS, SCALARS).map("".join),
    lambda inner: st.tuples(TAGS, st.sampled_from(["", "&a "]), collected(inner)).map("".join),
    max_leaves=8,
)


@settings(quick, max_examples=300)
@given(text=YAML)
@example(text="a: !!int ''")
@example(text="a: !!float ''")
@example(text="a: !!bool 1")
@example(text="a: !!timestamp x")
@example(text="&a [*a]")
@example(text="steps: 0x" + "f" * 5000)
@example(text="store: !!python/object/apply:os.system ['touch here']")
def test_any_yaml_gives_a_config_error_only_and_no_tag_is_executed(text, tmp_path_factory, only_inside):
    folder = tmp_path_factory.mktemp("one")
    with only_inside(folder):
        attempt("config", f"steps: {text}\n".encode(), folder)
        attempt("config", text.encode(), folder)


def test_the_watch_sees_what_it_is_there_for(tmp_path, only_inside):
    (tmp_path / "in").mkdir()

    with only_inside(tmp_path / "in"):
        (tmp_path / "in" / "file").write_text("")
    with pytest.raises(AssertionError, match="out"), only_inside(tmp_path / "in"):
        (tmp_path / "out").write_text("")
    with pytest.raises(AssertionError, match="moved"), only_inside(tmp_path / "in"):
        os.replace(tmp_path / "in" / "file", tmp_path / "moved")
    with pytest.raises(AssertionError, match=r"subprocess\.Popen"), only_inside(tmp_path / "in"):
        subprocess.run(["true"], check=True)
