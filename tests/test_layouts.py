"""The same weather in every layout gives the same forecasts."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.assembly import assemble, lay_out, reading, worker_bench
from graphcast_batch.config import RunConfig, parse_config
from graphcast_batch.inputs.statistics import in_this_process

from .conftest import SMALL
from .layouts import DEGREES, LAYOUTS, dataset_file, weather

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
    lay_out(run, "float32", in_this_process)
    bench = worker_bench(config, run.source, "float32", "test")
    for case in run.plan.cases[:2]:
        bench.run_case(case, None, 1)
    return xr.open_zarr(config.store, chunks=None).sel(time=np.array(TIMES, "datetime64[ns]")).load()


@pytest.fixture(scope="session")
def hourly():
    return weather()


@pytest.fixture(scope="session")
def expected(hourly, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphcast")
    return forecasts(config_of(dataset_file(hourly, folder), folder / "store"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_and_gives_the_forecasts_of_graphcasts_own(name, hourly, expected, tmp_path):
    layout = LAYOUTS[name]
    written = hourly if layout.degrees == DEGREES else weather(layout.degrees)
    config = config_of(layout.write(written, tmp_path), tmp_path / "store")

    assert layout.title in reading(assemble(config))["inputs"]
    made = forecasts(config)

    if layout.exact:
        xr.testing.assert_equal(made, expected)
    else:
        scale = expected.std(("time", "prediction_timedelta", "latitude", "longitude"))
        assert float((np.abs(made - expected) / scale).to_dataarray().max()) < 1e-5
