import json
import tempfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.errors import StoreError
from graphcast_batch.stores.zarr.shards import Encoding, Shard
from graphcast_batch.stores.zarr.store_layout import arrays_of
from tests.stores.made_stores import case_at, fill, make, plan_of, values_of

COMPRESSIONS = ("lz4", "zstd", "none")


@settings(max_examples=30, deadline=None)
@given(
    compression=st.sampled_from(COMPRESSIONS),
    length=st.integers(1, 9),
    leads=st.integers(1, 9),
    cuts=st.sets(st.integers(1, 8)),
    seed=st.integers(0, 100),
)
def test_a_shard_is_to_the_byte_what_zarr_writes(compression, length, leads, cuts, seed):
    leads = min(leads, length)
    values = np.random.default_rng(seed).normal(size=(leads, 2, 5, 8)).astype(np.float32)
    encoding = Encoding.wanted(OutputsConfig(compression=compression), "a", length)
    with tempfile.TemporaryDirectory() as folder:
        array = zarr.create_array(
            Path(folder, "zarr"),
            shape=(1, length, 2, 5, 8),
            dtype="float32",
            chunks=(1, 1, 2, 5, 8),
            shards=(1, length, 2, 5, 8),
            compressors=encoding.codecs,
            fill_value=np.nan,
        )
        array[0, :leads] = values
        shard = Shard(Path(folder, "ours"), encoding, leads)
        borders = [0, *sorted(cut for cut in cuts if cut < leads), leads]
        for first, last in pairwise(borders):
            assert shard.sealed is None
            shard.append(first, values[first:last])

        content = Path(folder, "ours").read_bytes()
        assert content == Path(folder, "zarr", "c", "0", "0", "0", "0", "0").read_bytes()
        assert shard.sealed.is_at(Path(folder, "ours"))
        assert (shard.sealed.size, shard.sealed.checksum) == (len(content), f"{zlib.crc32(content):08x}")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_kept_of_a_value_is_told_and_holds_in_the_store(tmp_path, compression):
    bits = {"temperature": 7}
    store = make(tmp_path / "run.zarr", plan_of([0], 3, compression=compression, keep_bits=bits))
    fill(store, case_at(0, 3))
    read, exact = store.forecasts().isel(time=0), values_of(store, case_at(0, 3))

    assert read["temperature"].attrs["keep_bits"] == 7
    assert "keep_bits" not in read["2m_temperature"].attrs
    np.testing.assert_array_equal(read["2m_temperature"], exact["2m_temperature"])
    error = np.abs(read["temperature"].values.astype(np.float64) - exact["temperature"])
    assert np.all(error <= 2.0**-8 * np.abs(exact["temperature"]))
    assert error.max() > 0


def test_an_encoding_is_found_again_in_the_metadata_of_its_array(tmp_path):
    for compression in COMPRESSIONS:
        for bits in (None, 5):
            outputs = OutputsConfig(compression=compression, keep_bits=bits)
            store = make(tmp_path / f"{compression}-{bits}", plan_of([0], 12, compression=compression, keep_bits=bits))
            assert store.encodings["temperature"] == Encoding.wanted(outputs, "temperature", 8)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_byte_of_a_value_that_was_changed_is_found_by_every_reader(tmp_path, compression):
    store = make(tmp_path / "run.zarr", plan_of([0], 3, compression=compression))
    fill(store, case_at(0, 3))
    (file,) = (store.path / "2m_temperature").glob("c.*")
    whole = file.read_bytes()
    for place in (0, len(whole) // 3, len(whole) // 2):
        content = bytearray(whole)
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match="checksum"):
            xr.open_zarr(store.path)["2m_temperature"].load()


def test_a_store_of_an_earlier_version_goes_on_without_checksums_of_lead_times(tmp_path):
    plan = plan_of([0, 6], 3)
    store = make(tmp_path / "run.zarr", plan)
    root = json.loads((store.path / "zarr.json").read_text())
    for name in store.variables:
        for path, array in (
            (store.path / name / "zarr.json", json.loads((store.path / name / "zarr.json").read_text())),
            (None, root["consolidated_metadata"]["metadata"][name]),
        ):
            assert array["codecs"][0]["configuration"]["codecs"].pop() == {"name": "crc32c"}
            if path:
                path.write_text(json.dumps(array))
    (store.path / "zarr.json").write_text(json.dumps(root))

    old = make(tmp_path / "run.zarr", plan)
    case = case_at(0, 3)
    fill(old, case)

    assert not old.encodings["temperature"].checked
    read = xr.open_zarr(old.path).isel(time=0)
    for name, values in values_of(old, case).items():
        np.testing.assert_array_equal(read[name], values)


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.update(data_type="float64"),
        lambda array: array.update(codecs=[]),
        lambda array: array["codecs"][0]["configuration"].update(index_location="start"),
        lambda array: array["codecs"][0]["configuration"].update(chunk_shape=[1, 2, 2, 5, 8]),
        lambda array: array["codecs"][0]["configuration"]["codecs"].append({"name": "crc32c"}),
        lambda array: array["codecs"][0]["configuration"]["codecs"].insert(1, {"name": "crc32c"}),
        lambda array: array["codecs"][0]["configuration"]["codecs"][1]["configuration"].update(shuffle="sideways"),
        lambda array: array["codecs"][0]["configuration"]["codecs"][1]["configuration"].update(cname="lz77"),
        lambda array: array["attributes"].update(keep_bits="many"),
        lambda array: array["attributes"].update(keep_bits=-2),
    ],
)
def test_an_encoding_of_someone_else_is_refused(tmp_path, change):
    array = arrays_of(make(tmp_path / "run.zarr", plan_of([0], 12)).root)["temperature"]
    change(array)
    with pytest.raises(StoreError, match="must have an encoding that this program writes"):
        Encoding.of(array)
