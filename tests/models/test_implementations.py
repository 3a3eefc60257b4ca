"""What the native network and DeepMind's package must both give, and what is told where that package cannot."""

import importlib
import json
import sys

import jax
import numpy as np
import pytest
import xarray as xr

from graphcast_batch.app.single_forecast import infer
from graphcast_batch.config.loading import load_config
from graphcast_batch.errors import CheckpointError, ConfigError, PackageError, StatisticsError, StoreMismatchError
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.models.deepmind.deepmind_forecaster import DeepmindForecaster
from graphcast_batch.models.deepmind.package import installed_package
from graphcast_batch.models.graphcast.forecaster import Forecaster
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.store_identity import existing_store, lay_out
from graphcast_batch.setup.worker_setup import worker_context
from tests.conftest import SMALL
from tests.models.conftest import FOLDER, joined, load_reference

IMPLEMENTATIONS = {"native": Forecaster, "deepmind": DeepmindForecaster}


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


@pytest.fixture
def make(implementation):
    """Makes a forecaster of the implementation, or skips with the reason why it cannot."""

    def made(reference, precision="float32", steps_per_call=1):
        if implementation == "native":
            return reference.forecaster(precision, steps_per_call)
        parts = (reference.checkpoint, reference.statistics, reference.grid, reference.channels)
        try:
            return DeepmindForecaster(*parts, precision, steps_per_call)
        except PackageError as error:
            pytest.skip(str(error))

    return made


def published(reference, name, precision="float32"):
    return reference.predictions[precision][name].transpose("time", ..., "lat", "lon").values


def in_deviations(reference, name, difference):
    deviation = reference.statistics["diffs_stddev"][name].values
    return np.abs(difference) / (deviation[:, None, None] if deviation.ndim else deviation)


def test_float32_frames_are_the_published_ones_at_every_point_and_lead_time(make, reference):
    frames = joined(make(reference).forecast(reference.inputs, reference.forcings, reference.steps))

    for name, values in frames.items():
        assert in_deviations(reference, name, values - published(reference, name)).max() < 2e-4, name


def test_bfloat16_frames_stray_from_float32_no_farther_than_the_published_ones(make, reference):
    frames = joined(make(reference, "bfloat16").forecast(reference.inputs, reference.forcings, reference.steps))

    def stray(values, name):
        squares = np.square(values - published(reference, name))
        return np.sqrt(squares.mean(axis=tuple(range(1, values.ndim))))

    for name, values in frames.items():
        assert (stray(values, name) > 0).all(), name
        assert (stray(values, name) <= 1.25 * stray(published(reference, name, "bfloat16"), name)).all(), name


@pytest.mark.usefixtures("hasty_compiler")
def test_a_rollout_comes_call_by_call_as_float32_fields_of_every_target_by_name(make):
    reference = load_reference("small_13")
    channels, levels = reference.channels, len(reference.checkpoint.task.pressure_levels)
    forecaster = make(reference, steps_per_call=2)
    calls = forecaster.forecast(reference.inputs, reference.forcings, 3)

    # Two does not divide three, so that each call is of one step.
    for lead in range(3):
        frames = next(calls)
        assert tuple(frames) == tuple(sorted(channels.targets))
        for name, values in frames.items():
            shape = (1, levels) if name in channels.on_levels else (1,)
            assert values.shape == (*shape, *reference.grid.shape)
            assert values.dtype == np.float32
            difference = np.asarray(values)[0] - published(reference, name)[lead]
            assert in_deviations(reference, name, difference).max() < 2e-4, (name, lead)
    assert next(calls, None) is None
    assert forecaster.device == jax.devices()[0].device_kind


@pytest.mark.usefixtures("hasty_compiler")
def test_several_steps_of_a_call_are_those_of_one_at_once(make):
    reference = load_reference("small_13")
    calls = list(make(reference, steps_per_call=2).forecast(reference.inputs, reference.forcings, 2))

    assert [values.shape[0] for call in calls for values in call.values()] == [2] * len(reference.channels.targets)
    for name, values in calls[0].items():
        difference = np.asarray(values) - published(reference, name)[:2]
        assert in_deviations(reference, name, difference).max() < 2e-4, name


@pytest.mark.usefixtures("hasty_compiler")
def test_forcings_that_the_inputs_lack_are_computed_alike(make):
    reference = load_reference("small_13")
    bare = reference.inputs.drop_vars("toa_incident_solar_radiation")
    frames = joined(make(reference).forecast(bare, xr.Dataset(), 1))
    ours = joined(reference.forecaster("float32").forecast(bare, xr.Dataset(), 1))

    for name, values in frames.items():
        assert in_deviations(reference, name, values - ours[name]).max() < 2e-4, name


def test_weights_and_statistics_that_do_not_fit_are_refused_before_anything_is_imported(implementation):
    reference, other = load_reference("small_13"), load_reference("operational_13")
    kind = IMPLEMENTATIONS[implementation]
    with pytest.raises(CheckpointError, match=r"grid_nodes_mlp/~/linear_0:w must have shape"):
        kind(other.checkpoint, reference.statistics, reference.grid, reference.channels, "float32")
    lacking = reference.statistics | {"mean": reference.statistics["mean"].drop_vars("temperature")}
    with pytest.raises(StatisticsError, match="the mean statistics lack temperature"):
        kind(reference.checkpoint, lacking, reference.grid, reference.channels, "float32")


def test_inference_gives_the_published_frames_with_either(implementation):
    reference = load_reference("small_13")
    if implementation == "deepmind":
        require_the_package()
    result = infer(**asked_for(implementation))

    for name in reference.channels.targets:
        values = result.predictions[name].transpose("prediction_timedelta", ..., "latitude", "longitude").values
        assert in_deviations(reference, name, values - published(reference, name)[:1]).max() < 2e-4, name


def test_the_loss_is_asked_of_the_native_implementation_only():
    with pytest.raises(ConfigError, match=r"native only, not deepmind"):
        infer(**asked_for("deepmind") | {"with_loss": True})


def asked_for(implementation):
    (dataset,) = (FOLDER / "small_13").glob("source-*.nc")
    return {
        "dataset": dataset,
        "mode": "Checkpoint",
        "pretrained": FOLDER / "small_13" / "checkpoint.npz",
        "steps": 1,
        "statistics": FOLDER / "small_13",
        "precision": "float32",
        "with_loss": False,
        "variable": "temperature",
        "level": 500,
        "save": None,
        "implementation": implementation,
    }


def require_the_package():
    """Skips where DeepMind's package is not installed, or cannot work."""
    reference = load_reference("small_13")
    parts = (reference.checkpoint, reference.statistics, reference.grid, reference.channels)
    try:
        DeepmindForecaster(*parts, "float32")
    except PackageError as error:
        pytest.skip(str(error))


def forecaster_of_reference(precision="float32"):
    reference = load_reference("small_13")
    return DeepmindForecaster(reference.checkpoint, reference.statistics, reference.grid, reference.channels, precision)


def test_an_absent_package_is_told_with_how_to_install_it(packages):
    with pytest.raises(PackageError, match=r"neither is installed here; it is not on PyPI: pip install \"git\+https"):
        forecaster_of_reference()


def test_the_unrelated_package_of_pypi_is_recognized_without_running_it(packages):
    packages("graphcast.__init__", "raise SystemExit('was run')")
    packages("graphcast.caster")

    with pytest.raises(
        PackageError, match=r"graphcast \(.*site.graphcast\) is another one .*lacks graphcast\.graphcas"
    ):
        forecaster_of_reference()


def test_a_single_file_of_that_name_is_another_package_too(packages, tmp_path):
    (tmp_path / "site" / "weathernext.py").touch()
    importlib.invalidate_caches()

    with pytest.raises(PackageError, match=r"weathernext \(a single file\) is another one of that name"):
        installed_package()


def test_the_newest_package_that_is_really_theirs_is_taken(packages):
    packages("weathernext.another")
    packages("graphcast.graphcast", version="0.2")
    assert str(installed_package()) == "DeepMind's graphcast 0.2"

    packages("weathernext.weathernext1_graph.graphcast")
    assert installed_package().name == "weathernext"


def test_a_package_without_one_of_its_modules_is_told_which(packages):
    packages("weathernext.weathernext1_graph.graphcast", version="0.9")

    with pytest.raises(PackageError, match=r"weathernext 0\.9 .* finds no module weathernext\.utils"):
        forecaster_of_reference()


def test_a_library_that_the_package_needs_and_does_not_find_is_named(packages):
    packages("weathernext.weathernext1_graph.graphcast", "import jraph_of_another_world")

    with pytest.raises(PackageError, match=r"weathernext1_graph\.graphcast finds no module jraph_of_another_world"):
        forecaster_of_reference()


def test_a_package_that_trips_over_another_library_is_told_with_the_reason(packages):
    packages("weathernext.weathernext1_graph.graphcast", "import jax\njax.of_another_world")

    with pytest.raises(
        PackageError, match=r"with jax .* raises AttributeError: module 'jax' has no attribute 'of_anot"
    ):
        forecaster_of_reference()


def test_a_package_of_before_0_3_is_refused_beside_an_xarray_that_copies_no_datasets_by_their_name(packages):
    try:
        xr.Dataset(xr.Dataset())
    except TypeError:
        packages("graphcast.graphcast", version="0.2")
        with pytest.raises(
            PackageError, match=r"graphcast 0\.2 needs xarray 2026\.2\.0 or older, but xarray 20.* is in"
        ):
            forecaster_of_reference()
    else:
        pytest.skip(f"xarray {xr.__version__} still copies datasets so")


def test_the_first_versions_are_refused_in_bfloat16_beside_a_jax_without_tree_map(packages):
    packages("graphcast.graphcast", version="0.1.1")

    with pytest.raises(
        PackageError, match=r"graphcast 0\.1\.1 needs jax\.tree_map for bfloat16, but jax .* no longer has it"
    ):
        forecaster_of_reference("bfloat16")


@pytest.fixture
def run_of(small_config):
    """Assembles the same small run for an implementation."""

    def of(implementation):
        return assemble(load_config(small_config(model=SMALL["model"] | {"implementation": implementation})))

    return of


def test_a_store_of_one_implementation_is_refused_by_the_other(run_of, packages):
    packages("weathernext.weathernext1_graph.graphcast", version="0.3.0")
    store = lay_out(run_of("deepmind"), "float32", run_serially)

    assert store.root["attributes"]["implementation"] == "deepmind"
    assert json.loads(store.root["attributes"]["versions"])["weathernext"] == "0.3.0"
    assert existing_store(run_of("deepmind"))
    with pytest.raises(StoreMismatchError, match=r"implementation: the store has deepmind, this run has \(absent\)"):
        existing_store(run_of("native"))
    with pytest.raises(StoreMismatchError, match="implementation: the store has deepmind"):
        lay_out(run_of("native"), "float32", run_serially)


def test_a_store_that_names_no_implementation_is_of_the_native_one(run_of):
    store = lay_out(run_of("native"), "float32", run_serially)

    assert "implementation" not in store.identity
    assert existing_store(run_of("native"))
    with pytest.raises(StoreMismatchError, match=r"implementation: the store has \(absent\), this run has deepmind"):
        existing_store(run_of("deepmind"))


def test_a_run_without_the_package_ends_before_its_store_is_made(run_of, packages):
    run = run_of("deepmind")

    with pytest.raises(PackageError, match="neither is installed here"):
        lay_out(run, "float32", run_serially)
    assert not run.config.store.exists()


def test_a_worker_imports_the_implementation_that_the_config_names_and_no_other(run_of, monkeypatch):
    run = run_of("native")
    lay_out(run, "float32", run_serially)
    module = "graphcast_batch.models.deepmind.deepmind_forecaster"
    monkeypatch.setitem(sys.modules, module, None)  # what makes its import fail
    (use, *_) = memory_uses(run, accelerated=False)
    worker_context(run.config, run.source, use, "worker")

    theirs = run.config.model_copy(update={"model": run.config.model.model_copy(update={"implementation": "deepmind"})})
    with pytest.raises(ModuleNotFoundError, match=r"graphcast_batch\.models\.deepmind\.deepmind_forecaster"):
        worker_context(theirs, run.source, use, "worker")


@pytest.mark.parametrize(("key", "value"), [("batch_size", 2), ("memory", "lean")])
def test_what_the_package_cannot_do_is_refused_before_the_run(small_config, key, value):
    model = SMALL["model"] | {"implementation": "deepmind", key: value}
    with pytest.raises(ConfigError, match=rf"model\.{key} must be .* deepmind, but is {value}"):
        assemble(load_config(small_config(model=model)))
