import json
import re

import pytest

from graphcast_batch.bench.write_speed import measure


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("io")
    found = measure(folder, 2, resolution=10.0, steps=5, per_call=2)
    assert not list(folder.iterdir())
    return found


def samples(result, name):
    (found,) = (figure.samples for figure in result.figures if figure.name == name)
    return found


def test_every_contestant_is_measured_once_a_round(result):
    for name in (
        "disk",
        "xarray",
        "xarray, durable",
        "zarr, durable",
        "lz4",
        "none",
        "zstd",
        "lz4, 10 bits",
        "zstd, 10 bits",
    ):
        assert len(samples(result, f"time of {name}")) == 2
        assert all(taken > 0 for taken in samples(result, f"time of {name}"))


def test_ratios_are_of_the_same_round(result):
    quotients = zip(samples(result, "time of xarray"), samples(result, "time of lz4"), strict=True)
    assert samples(result, "as fast as xarray") == [slow / fast for slow, fast in quotients]
    quotients = zip(samples(result, "time of disk"), samples(result, "time of none"), strict=True)
    assert samples(result, "rate of the disk, without compression") == [disk / ours for disk, ours in quotients]


def test_what_is_stored_is_what_is_counted(result):
    frame_bytes = 83 * 19 * 36 * 4
    assert samples(result, "size of disk") == [5 * frame_bytes / 1e6]
    assert samples(result, "size of disk, streams") == samples(result, "size of disk")
    assert (samples(result, "files of disk"), samples(result, "files of disk, streams")) == ([1], [11])
    (megabytes,) = re.findall(r"(\d+) MB", result.what)
    assert int(megabytes) == round(5 * frame_bytes / 1e6)
    assert samples(result, "size of none")[0] > samples(result, "size of disk")[0] > samples(result, "size of lz4")[0]


def test_the_result_is_written(result, tmp_path):
    assert "as fast as xarray" in result.write(tmp_path).read_text()
    assert json.loads(json.dumps(result.settings)) == {"resolution": 10.0, "steps": 5, "threads": 2, "per_call": 2}
