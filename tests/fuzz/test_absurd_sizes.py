"""Small files that promise much: they are refused for what they say, before anything of that size is made."""

import io
import json
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import contextmanager

import netCDF4
import numpy as np
import pytest
import yaml
import zarr

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.config.loading import load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.errors import CheckpointError, ConfigError, InputError
from graphcast_batch.inputs.formats.classic_netcdf import needed_bytes
from graphcast_batch.inputs.formats.opening import open_netcdf
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.spec import Architecture, Task
from tests.conftest import SMALL
from tests.fuzz.targets import npy, with_entry

MOST_BYTES = 2**24
WEIGHT = "params:mesh_gnn/~_networks_builder/encoder_edges_mesh_mlp/~/linear_0:w.npy"


@contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def header(shape, dtype="<f4"):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


def zeros(shape):
    return npy(header(shape), bytes(4 * int(np.prod(shape))))


def of_version_2(length):
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length) + bytes(1000)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (npy(header((10**15,))), r"must hold the 4000000000000000 bytes of its shape .* but has room for 0"),
        (npy(header((-4, -16)), bytes(256)), "cannot be read as arrays"),
        (npy(header(f"(1{5000 * '0'},)")), "cannot be read as arrays"),
        (npy(header("(" * 5000)), "cannot be read as arrays"),
        (of_version_2(2**32 - 1), r"must be of \.npy version 1\.0"),
        (zeros((4, 4096)), r"linear_0:w must have at most the shape \(4, 16\) .* but has \(4, 4096\)"),
        (zeros((4, 16, 1)), r"linear_0:w must have at most the shape \(4, 16\)"),
        (npy(header((4, 16), "|O"), bytes(512)), "holds Python objects, which are never loaded"),
        (npy(header((4, 16), "<U4000000000"), b""), "cannot be read as arrays|must hold the"),
    ],
)
def test_an_array_is_held_against_its_architecture_before_it_is_read(entry, message, tmp_path):
    (tmp_path / "weights.npz").write_bytes(with_entry(WEIGHT, entry))

    with little_memory(), pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "weights.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_expands_like_no_weights_do_is_refused_unread(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", method) as archive, archive.open("description.npy", "w") as entry:
        entry.write(npy(header((), f"<U{2**22}")))
        entry.write(bytes(2**24))

    with little_memory(), pytest.raises(CheckpointError, match=r"expands to 167\d{5}; take a file"):
        load_checkpoint(tmp_path / "bomb.npz")


def test_an_archive_that_understates_its_sizes_is_damaged(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("description.npy", npy(header((), "<U4"), bytes(2**20)))
    content, true = packed.getvalue(), 2**20 + 128
    assert content.count(struct.pack("<I", true)) == 2
    (tmp_path / "liar.npz").write_bytes(content.replace(struct.pack("<I", true), struct.pack("<I", 144)))

    with little_memory(), pytest.raises(CheckpointError, match=r"liar\.npz is truncated, damaged"):
        load_checkpoint(tmp_path / "liar.npz")


@pytest.mark.parametrize("name", ["../../x.npy", "/etc/x.npy", "task_config:input_variables:" + "9" * 5000 + ".npy"])
def test_an_entry_of_a_strange_name_is_refused_by_name(name, tmp_path):
    (tmp_path / "weights.npz").write_bytes(with_entry(name, npy(header(()), bytes(4))))

    with pytest.raises(CheckpointError, match="holds the entry"):
        load_checkpoint(tmp_path / "weights.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["weights.npz"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("latent_size", 10**9), ("gnn_msg_steps", 10**9), ("hidden_layers", 10**9), ("mesh_size", 30)),
        *(("radius_query_fraction_edge_length", 1e9), ("radius_query_fraction_edge_length", float("inf"))),
    ],
)
def test_absurd_sizes_of_a_network_are_refused_by_name(field, value, tmp_path):
    sizes = {"mesh_size": 1, "latent_size": 8, "gnn_msg_steps": 1, field: value}
    with pytest.raises(ConfigError, match=field):
        parse_config(sizes, Architecture, origin="here")

    packed = io.BytesIO()
    np.save(packed, np.array(value))
    (tmp_path / "weights.npz").write_bytes(with_entry(f"model_config:{field}.npy", packed.getvalue()))
    with little_memory(), pytest.raises(CheckpointError, match=field):
        load_checkpoint(tmp_path / "weights.npz")


def test_the_published_sizes_are_allowed():
    sizes = {"mesh_size": 6, "latent_size": 512, "gnn_msg_steps": 16, "hidden_layers": 1, "resolution": 0.25}
    assert parse_config(sizes, Architecture, origin="here").latent_size == 512


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(10 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + "steps: *i\n", "with its aliases written out"),
        (BOMB.replace("[", "{<<: [").replace("]", "]}").replace("x", "{}"), "with its aliases written out"),
        ("a: &a [*a]\n", "with its aliases written out"),
        (f"a: &a {'x' * 2**20}\nb: [{', '.join(20 * ['*a'])}]\n", "with its aliases written out"),
        ("a: " + "[" * 20_000, "recursion"),
        ("- " * 20_000, "recursion"),
        ("steps: 0x" + "f" * 100_000, r"steps: .*but is a number of thousands of digits"),
        ("a: 1" + "0" * 100_000, "must be readable YAML"),
    ],
    ids=["lists", "merges", "itself", "long text", "brackets", "dashes", "hexadecimal", "digits"],
)
def test_text_that_stands_for_much_more_is_refused(text, message, tmp_path):
    (tmp_path / "run.yaml").write_text(text)

    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path / "run.yaml")
    assert len(str(caught.value)) < 10_000


def test_an_alias_that_is_written_out_in_reason_is_read(tmp_path):
    task = {
        "input_variables": (names := ["2m_temperature"]),
        "target_variables": names,
        "forcing_variables": [],
        "pressure_levels": [],
    }
    weights = {**SMALL["model"]["weights"], "task": task}
    content = {**SMALL, "model": {**SMALL["model"], "weights": weights}, "store": str(tmp_path / "store")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    assert "*id001" in (tmp_path / "run.yaml").read_text()

    assert load_config(tmp_path / "run.yaml").model.weights.task.input_variables == ("2m_temperature",)


def test_a_list_of_times_without_end_is_refused():
    with pytest.raises(ConfigError, match="/dev/zero must be a file, but is a device"):
        parse_config({"file": "/dev/zero"}, TimesConfig, origin="here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 10**12}, "steps: Input should be less than or equal to 2562047"),
        ({"times": {"first": "2020-01-01", "last": "2020-01-02", "every_hours": 10**30}}, r"times\.every_hours"),
        ({"inputs": {"kind": "synthetic", "resolution": 1e-9}}, r"inputs\.resolution"),
        ({"figures": {"variables": ["x"], "levels": [2**31]}}, r"figures\.levels\.0"),
        ({"store": "a\0b"}, "store: a path, .* must be UTF-8 without line breaks and other control"),
    ],
)
def test_absurd_numbers_of_a_config_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"store": "here"} | SMALL | changes, RunConfig, origin="here")


def test_more_frames_than_any_model_takes_are_refused():
    fields = {"input_variables": [], "target_variables": ["x"], "forcing_variables": [], "pressure_levels": []}
    with pytest.raises(ConfigError, match="input_duration must be at most 240h, but is 600000000h"):
        parse_config(fields | {"input_duration": "600000000h"}, Task, origin="here")


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", ".staging", "", "a\0b", "a\nb", "x" * 101, "a\\b"])
def test_a_variable_is_refused_whose_name_leads_out_of_the_store(name):
    fields = {"input_variables": [], "target_variables": [name], "forcing_variables": [], "pressure_levels": []}
    with pytest.raises(ConfigError, match=r"target_variables\.0: a variable names files too"):
        parse_config(fields, Task, origin="here")
    with pytest.raises(ConfigError, match=r"variables\.0: a variable names files too"):
        parse_config({"variables": [name]}, FiguresConfig, origin="here")


def count(number):
    return struct.pack(">Q", number)


def cdf5(dimensions, variables, attributes=bytes(12)):
    """A classic header: lengths of dimensions, and by variable the places of its dimensions; doubles all."""
    content = b"CDF\x05" + count(0) + struct.pack(">I", 10) + count(len(dimensions))
    content += b"".join(count(1) + b"x\0\0\0" + count(length) for length in dimensions) + attributes
    content += struct.pack(">I", 11) + count(len(variables))
    for places in variables:
        content += count(1) + b"x\0\0\0" + count(len(places)) + b"".join(map(count, places))
        content += b"\0\0\0\0" + count(0) + struct.pack(">I", 6) + count(0) + count(1000)
    return content


def test_the_size_that_a_header_promises_is_what_it_needs(tmp_path):
    (tmp_path / "x.nc").write_bytes(cdf5([10, 20], [[0, 1]]))
    assert needed_bytes(tmp_path / "x.nc") == 1000 + 8 * 10 * 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cdf5([10**9, 10**9], [[0, 1]]), "of the 8000000000000001000 bytes that its header promises"),
        (cdf5([2**62, 2**62], [[0, 1]]), "promises more bytes than any file has"),
        (cdf5([2**63], [[0] * 2000]), "a variable of 2000 dimensions, where 1024 are possible"),
        (cdf5([3], [[7]]), "along a dimension that it does not have"),
        (cdf5([3], [], struct.pack(">I", 12) + count(1) + count(2**63)), "ends inside its header"),
        (cdf5([3], [], struct.pack(">I", 12) + count(2**64 - 1)), "ends inside its header"),
        (b"CDF\x05" + count(0) + struct.pack(">I", 10) + count(2**64 - 1), "ends inside its header"),
    ],
)
def test_a_classic_file_that_promises_too_much_is_refused(content, message, tmp_path):
    (tmp_path / "x.nc").write_bytes(content)
    with little_memory(), pytest.raises(InputError, match=message), open_netcdf(tmp_path / "x.nc"):
        pytest.fail("it was opened")


READ = """
import json, resource, sys
from graphcast_batch.errors import GraphcastBatchError
from graphcast_batch.inputs.formats.opening import open_data
from pathlib import Path
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    try:
        with open_data(path) as dataset:
            print(json.dumps(dataset["2m_temperature"][5:9].values.tolist()))
    except GraphcastBatchError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="limits memory as Linux does")
def test_archives_that_declare_more_than_any_memory_are_read_in_part_or_refused(tmp_path):
    huge = 10**12
    for name, axis in (("axis.nc", True), ("field.nc", False)):
        with netCDF4.Dataset(tmp_path / name, "w") as file:
            file.createDimension("time", huge)
            file.createVariable("2m_temperature", "f4", ("time",), chunksizes=(1024,), fill_value=np.nan)
            if axis:
                file.createVariable("time", "f8", ("time",), chunksizes=(1024,))
    group = zarr.create_group(tmp_path / "axis.zarr")
    for name in ("time", "2m_temperature"):
        group.create_array(name, shape=(huge,), chunks=(1024,), dtype="f4", dimension_names=("time",))

    paths = [tmp_path / name for name in ("field.nc", "axis.nc", "axis.zarr")]
    told = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=True, timeout=120)

    field, of_file, of_store = map(json.loads, told.stdout.splitlines())
    assert np.isnan(field).all()
    for refusal in (of_file, of_store):
        assert refusal.startswith("InputError: ")
        assert "1000000000000 values of time" in refusal
