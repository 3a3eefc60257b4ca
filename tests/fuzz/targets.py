"""Arbitrary bytes become what each parser reads; nothing but this package's own errors may come out."""

import io
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

from graphcast_batch.config.loading import load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.errors import GraphcastBatchError
from graphcast_batch.files.leases import FileLease, owner_in
from graphcast_batch.inputs.downloads.catalog import Published
from graphcast_batch.inputs.downloads.published import find
from graphcast_batch.inputs.formats.classic_netcdf import needed_bytes
from graphcast_batch.inputs.layouts.dialects import DIALECTS, translation
from graphcast_batch.inputs.layouts.units import conversion
from graphcast_batch.inputs.sources.dataset_file import parse_dataset_name
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.models.graphcast.pickled_parameters import read_pickled_parameters
from graphcast_batch.plan import Case
from graphcast_batch.stores.zarr.ledger import FileLedger
from graphcast_batch.stores.zarr.store_layout import read_root
from graphcast_batch.variables import VARIABLES

REFERENCE = Path(__file__).parents[1] / "reference"
KNOWN = [*VARIABLES, "tp", "t", "valid_time", "total_precipitation"]
CASE = Case(np.datetime64("2020-01-01T00", "h"), 4, 6)


def config(data, folder):
    load_config(_file(folder / "run.yaml", data))


def times(data, folder):
    parse_config({"file": str(_file(folder / "times.txt", data))}, TimesConfig, origin="here")


def checkpoint(data, folder):
    load_checkpoint(_file(folder / "weights.npz", data))


def checkpoint_entry(data, folder):
    """A sound archive with one entry more, whose name and content are the data."""
    name, _, content = data.partition(b"\n")
    key = name.decode("utf-8", errors="replace").replace("\0", "0") or "description.npy"
    load_checkpoint(_file(folder / "weights.npz", with_entry(key, content)))


def pickled(data, folder):
    channels = Channels.of(_reference().task, {})
    path = _file(folder / "weights.pkl", data)
    read_pickled_parameters(path, _reference().architecture, channels.inputs, channels.outputs)


def record(data, folder):
    steps = folder / "steps-4"
    steps.mkdir(exist_ok=True)
    _file(steps / f"{CASE.key}.json", data)
    FileLedger(folder).states([CASE])
    FileLedger(folder).record(CASE.key)


def failure(data, folder):
    _file(folder / f"{CASE.key}.failed.json", data)
    FileLedger(folder).failure(CASE.key)


def lease(data, folder):
    path = _file(folder / "x.claim", data)
    owner_in(path)
    FileLease.take(path, 60.0)


def ledger_names(data, folder):
    """Files whose names are the data, line by line."""
    for line in data.split(b"\n")[:10]:
        with suppress(OSError, ValueError):
            (folder / line.decode("utf-8", errors="replace").replace("/", "_")[:100]).touch(exist_ok=True)
    ledger = FileLedger(folder)
    ledger.free_failed()
    ledger.states([CASE])


def key(data, folder):
    text = data.decode("utf-8", errors="replace")
    assert FileLedger(folder).free_failed([text]) == []
    FileLedger(folder).record(text)


def root(data, folder):
    _file(folder / "zarr.json", data)
    read_root(folder)


def dataset_name(data, folder):
    parse_dataset_name(data.decode("utf-8", errors="replace"))


def published(data, folder):
    text = data.decode("utf-8", errors="replace")
    with suppress(GraphcastBatchError):
        assert (folder / Published("sample", text).file).parent == folder
    find("sample", text, str(folder))


def classic(data, folder):
    with suppress(ValueError):
        assert 0 <= needed_bytes(_file(folder / "x.nc", data)) < 2**63


def attributes(data, folder):
    """A dataset whose names of variables, units and other attributes are the data, line by line."""
    lines = data.decode("utf-8", errors="replace").split("\n")
    names = [KNOWN[(ord(line[0]) - ord("A")) % len(KNOWN)] if line else "x" for line in lines]
    variables = {
        name: (("latitude",), np.zeros(2), {"units": line[1:], "long_name": line})
        for name, line in zip(names, lines, strict=True)
    }
    dialect = list(DIALECTS)[len(data) % len(DIALECTS)]
    for name, line in zip(names, lines, strict=True):
        with suppress(GraphcastBatchError):
            conversion(name, line, "here")
    translation(xr.Dataset(variables, attrs={"GRIB_edition": lines[0]}), "here", dialect)


_ALL = (config, times, checkpoint, checkpoint_entry, pickled, record, failure, lease, ledger_names, key, root)
TARGETS = {function.__name__: function for function in (*_ALL, dataset_name, published, classic, attributes)}


def attempt(target, data, folder):
    with suppress(GraphcastBatchError):
        TARGETS[target](data, folder)


def with_entry(name, content):
    """Bytes of a sound checkpoint in which an entry was added, or another replaced."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for entry, bytes_of in (_sound_entries() | {name: content}).items():
            archive.writestr(entry, bytes_of)
    return packed.getvalue()


@cache
def _reference():
    return load_checkpoint(REFERENCE / "small_13" / "checkpoint.npz")


@cache
def _sound_entries():
    """Of the reference all but most weights."""
    with zipfile.ZipFile(REFERENCE / "small_13" / "checkpoint.npz") as archive:
        kept = [name for name in archive.namelist() if "params:" not in name or "encoder_edges_mesh_mlp" in name]
        return {name: archive.read(name) for name in kept}


def npy(header, data=b""):
    """An array in NumPy's format 1.0 with any header, padded as NumPy does."""
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def _file(path, data):
    path.write_bytes(data)
    return path
