"""The same weather in every layout gives the same forecasts."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.run_warnings import reading
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.setup.worker_setup import worker_context

from .conftest import SMALL
from .layouts import DEGREES, LAYOUTS, archive, dataset_file, weather, weatherbench

TIMES = ["2020-01-01T00", "2020-01-01T06"]


def config_of(inputs, store, **changes):
    architecture = SMALL["model"]["weights"]["architecture"] | {"resolution": DEGREES}
    weights = SMALL["model"]["weights"] | {"architecture": architecture}
    times = {} if inputs["kind"] == "datasets" else {"times": {"list": TIMES}}
    model = SMALL["model"] | {"weights": weights}
    content = SMALL | {"inputs": inputs, "store": str(store), "model": model} | changes
    del content["times"]
    return parse_config(content | times, RunConfig, origin="test")


def forecasts(config):
    """The two Cases, made by a worker's own parts."""
    run = assemble(config)
    lay_out(run, "float32", run_serially)
    context = worker_context(config, run.source, memory_uses(run, accelerated=False)[0], "test")
    for case in run.plan.cases[:2]:
        context.run_case(case, None, 1)
    return xr.open_zarr(config.store, chunks=None).sel(time=np.array(TIMES, "datetime64[ns]")).load()


@pytest.fixture(scope="session")
def hourly():
    return weather()


@pytest.fixture(scope="session")
def expected(hourly, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphcast")
    return forecasts(config_of(dataset_file(hourly, folder), folder / "store"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognized_and_gives_the_forecasts_of_graphcasts_own(name, hourly, expected, tmp_path):
    layout = LAYOUTS[name]
    written = hourly if layout.degrees == DEGREES else weather(layout.degrees)
    config = config_of(layout.write(written, tmp_path), tmp_path / "store")

    assert layout.title in reading(assemble(config))["layout"]
    made = forecasts(config)

    if layout.exact:
        xr.testing.assert_equal(made, expected)
    else:
        scale = expected.std(("time", "prediction_timedelta", "latitude", "longitude"))
        assert float((np.abs(made - expected) / scale).to_dataarray().max()) < 1e-5


@pytest.fixture
def over_http(tmp_path):
    """The address of a web server for a folder."""
    served = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", {}
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def in_a_bucket(tmp_path):
    """The address of a public bucket that gets the files of a folder when it is asked for."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket="weather", ACL="public-read")
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        key = str(path.relative_to(tmp_path))
        client.put_object(Bucket="weather", Key=key, Body=path.read_bytes(), ACL="public-read")
    yield "s3://weather", {"anonymous": True, "storage": {"endpoint": endpoint, "region": "us-east-1"}}
    server.stop()


@pytest.fixture
def made_archive(hourly, tmp_path):
    weatherbench(hourly, tmp_path)


@pytest.mark.parametrize("place", ["over_http", "in_a_bucket"])
def test_an_archive_elsewhere_gives_the_same(made_archive, place, request, expected, tmp_path):
    address, access = request.getfixturevalue(place)
    made = forecasts(config_of(archive(f"{address}/era5.zarr", **access), tmp_path / "store"))
    xr.testing.assert_equal(made, expected)
