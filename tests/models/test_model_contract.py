"""The promises of the port of models, tried on every model of the table by public calls of the port only.

DeepMind's package is replaced by a stand-in where it is not installed.
"""

from dataclasses import replace
from typing import get_args, get_type_hints

import jax
import numpy as np
import pytest
import xarray as xr

from graphcast_batch.cli.infer_command import infer
from graphcast_batch.config.model_section import CheckpointWeights, Implementation, ModelConfig, RandomWeights
from graphcast_batch.errors import CheckpointError, ConfigError, InputError, PackageError, StatisticsError
from graphcast_batch.grid import regular_grid
from graphcast_batch.models.base import CallSize
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.parameters import random_parameters
from graphcast_batch.models.model_kinds import DEFAULT_MODEL, MODELS
from graphcast_batch.spec import TASKS, Architecture, Task
from tests.models.conftest import compilations, hasty, joined, made_up
from tests.models.deepmind_stand_in import install_stand_in, made_up_packages

TASK = Task(
    input_variables=("2m_temperature", "temperature", "land_sea_mask", "toa_incident_solar_radiation"),
    target_variables=("2m_temperature", "temperature", "total_precipitation_6hr"),
    forcing_variables=("toa_incident_solar_radiation", "year_progress_sin"),
    pressure_levels=(500, 850),
)
ARCHITECTURE = Architecture(mesh_size=1, latent_size=8, gnn_msg_steps=1)
PER_CALL = 2


@pytest.fixture(scope="module", params=MODELS)
def kind(request, tmp_path_factory):
    found = MODELS[request.param]
    try:
        found.packages()
    except PackageError:
        root = tmp_path_factory.mktemp("packages") / "site"
        with pytest.MonkeyPatch.context() as patch, made_up_packages(root, patch) as install:
            install_stand_in(install)
            yield found
    else:
        yield found


@pytest.fixture(scope="module")
def made():
    """Random weights, inputs and statistics."""
    return made_up(ARCHITECTURE, TASK)


def parts(made):
    return made.checkpoint, made.statistics, made.grid, made.channels, "float32"


@pytest.fixture(scope="module")
def model(kind, made):
    """One model for all tests, whose programs are compiled in haste: most of the time is the compiler's."""
    with hasty():
        yield kind.load(*parts(made), steps_per_call=PER_CALL)


@pytest.fixture(scope="module")
def four(model, made):
    """The calls of a forecast of four steps, on the host."""
    calls = model.forecast(made.inputs, xr.Dataset(), 4)
    return [{name: np.asarray(values) for name, values in frames.items()} for frames in calls]


def test_the_table_has_each_model_that_a_config_may_name():
    assert set(MODELS) == set(get_args(Implementation)) == set(get_args(get_type_hints(infer)["implementation"]))
    assert ModelConfig.model_fields["implementation"].default == DEFAULT_MODEL


def test_a_model_says_what_it_takes_and_predicts_and_where(model, made):
    assert model.task == made.checkpoint.task
    assert (model.task.step_hours, model.task.input_frames) == (6, made.inputs.sizes["time"])
    assert model.device == jax.devices()[0].device_kind


def test_frames_are_float32_fields_of_every_target_in_calls_of_equal_steps(four, made):
    assert len(four) == 2
    for frames in four:
        assert set(frames) == set(TASK.target_variables)
        for name, values in frames.items():
            levels = (len(TASK.pressure_levels),) if name == "temperature" else ()
            assert values.shape == (PER_CALL, *levels, *made.grid.shape)
            assert values.dtype == np.float32
            assert np.isfinite(values).all()


def test_steps_that_no_call_of_several_divides_come_one_by_one(model, made):
    calls = list(model.forecast(made.inputs, xr.Dataset(), 3))

    assert [values.shape[0] for frames in calls for values in frames.values()] == [1] * 3 * len(TASK.target_variables)


def test_a_shorter_forecast_is_the_beginning_of_a_longer_one(model, made, four):
    short = joined(model.forecast(made.inputs, xr.Dataset(), 2))

    for name, values in short.items():
        np.testing.assert_array_equal(values, four[0][name])


def test_one_start_has_one_forecast_unless_the_model_takes_noise(kind, model, made, four):
    again = joined(model.forecast(made.inputs, xr.Dataset(), 4))

    same = all(np.array_equal(values, joined(four)[name]) for name, values in again.items())
    assert same != kind.takes_noise


def test_a_forecast_depends_on_its_start_and_leaves_it_as_it_is(model, made, four):
    before = made.inputs.copy(deep=True)
    warmer = made.inputs.assign({"2m_temperature": made.inputs["2m_temperature"] + 1})
    other = joined(model.forecast(warmer, xr.Dataset(), 2))

    assert not np.array_equal(other["2m_temperature"], four[0]["2m_temperature"])
    xr.testing.assert_identical(made.inputs, before)


def test_other_weights_give_their_own_forecast_without_another_program(kind, model, made, four):
    drawn = kind.weights(RandomWeights(kind="random", seed=5, architecture=ARCHITECTURE, task=TASK))
    other = drawn.checkpoint(made.channels)
    with hasty():
        expected = joined(
            kind.load(other, *parts(made)[1:], steps_per_call=PER_CALL).forecast(made.inputs, xr.Dataset(), 4)
        )

    with compilations() as compiled:
        model.replace_weights(other.parameters)
        found = joined(model.forecast(made.inputs, xr.Dataset(), 4))
        model.replace_weights(made.checkpoint.parameters)
        again = joined(model.forecast(made.inputs, xr.Dataset(), 4))

    assert compiled == []
    before = joined(four)
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
        np.testing.assert_array_equal(again[name], before[name])
        # The stand-in for DeepMind's package has no network.
        assert not np.array_equal(values, before[name]) or kind is not MODELS[DEFAULT_MODEL]


def test_a_swap_that_fails_can_be_tried_again(made):
    model = MODELS[DEFAULT_MODEL].load(*parts(made))._model
    fold, broken = model._fold, iter([MemoryError("the device is full")])

    def failing(*arguments):
        for error in broken:
            raise error
        return fold(*arguments)

    model._fold = failing
    with pytest.raises(MemoryError, match="the device is full"):
        model.replace_weights(made.checkpoint.parameters)
    with pytest.raises(AssertionError, match="could not be replaced"):
        next(model.forecast(made.inputs, xr.Dataset(), 1))
    model.replace_weights(made.checkpoint.parameters)
    assert next(model.forecast(made.inputs, xr.Dataset(), 1))


def test_weights_of_another_shape_are_refused_and_those_before_stay(model, made, four):
    wider = ARCHITECTURE.model_copy(update={"latent_size": 16})
    parameters = random_parameters(wider, made.channels.inputs, made.channels.outputs, 0)
    with pytest.raises(CheckpointError, match=r"the other weights: .* must have shape"):
        model.replace_weights(parameters)
    after = joined(model.forecast(made.inputs, xr.Dataset(), 4))
    assert all(np.array_equal(values, after[name]) for name, values in joined(four).items())


def test_forecasts_computed_together_are_those_computed_alone_or_are_refused(kind, model, made):
    later = made.inputs.assign_coords(time=made.inputs["time"] + np.timedelta64(150, "D"))
    starts = [(made.inputs, xr.Dataset()), (later + 0.5, xr.Dataset())]
    if not kind.batches:
        with pytest.raises(ConfigError, match=r"one forecast at a time, but 2 .*batch_size: 1"):
            next(iter(model.forecast_many(starts, 2)))
        return
    alone = [joined(model.forecast(*start, 2)) for start in starts]
    calls = list(model.forecast_many(starts, 2))

    for k, frames in enumerate(alone):
        together = joined(call[k] for call in calls)
        for name, values in frames.items():
            np.testing.assert_allclose(together[name], values, rtol=0, atol=1e-4 * np.abs(values).max())


def test_the_loss_is_a_number_with_a_gradient_or_is_refused(kind, model, made, four):
    names = list(TASK.target_variables)
    place = ("prediction_timedelta", "latitude", "longitude")
    dims = {name: (*place[:1], "level", *place[1:]) if four[0][name].ndim == 4 else place for name in names}
    truth = xr.Dataset(
        {name: (dims[name], four[0][name][:1] + 1) for name in names},
        coords={"prediction_timedelta": [np.timedelta64(6, "h")], "level": list(TASK.pressure_levels)},
    )
    start = made.checkpoint.parameters, made.inputs, xr.Dataset(), truth
    if not kind.gives_loss:
        with pytest.raises(ConfigError, match="native only"):
            model.loss(*start)
        return
    found = model.loss(*start)
    assert found["loss"] > 0
    assert found["gradient_norm"] > 0


@pytest.mark.parametrize("name", ["temperature", "land_sea_mask"])
def test_inputs_without_a_variable_are_refused_by_its_name(model, made, name):
    with pytest.raises(InputError, match=rf"{name} is missing"):
        next(model.forecast(made.inputs.drop_vars(name), xr.Dataset(), 2))


@pytest.mark.parametrize("kept", [[1], [0, 0]], ids=["too few", "not one step apart"])
def test_inputs_without_a_frame_are_refused_with_the_times_that_they_hold(model, made, kept):
    with pytest.raises(InputError, match=rf"2 frames, 6 h apart, but hold {len(kept)}: 2020-03-01T"):
        next(model.forecast(made.inputs.isel(time=kept), xr.Dataset(), 2))


def test_weights_and_statistics_that_do_not_fit_are_refused_by_name(kind, made):
    other = replace(made.checkpoint, parameters={})
    with pytest.raises(CheckpointError, match=r"the parameter .* is missing"):
        kind.load(other, *parts(made)[1:])
    lacking = made.statistics | {"mean": made.statistics["mean"].drop_vars("temperature")}
    with pytest.raises(StatisticsError, match="temperature"):
        kind.load(made.checkpoint, lacking, *parts(made)[2:])


def test_random_weights_are_those_of_their_seed_and_fit_the_model(kind, made):
    sizes = {"kind": "random", "architecture": ARCHITECTURE, "task": TASK}
    drawn = [kind.weights(RandomWeights(seed=seed, **sizes)) for seed in (0, 0, 1)]
    first, same, other = (weights.checkpoint(weights.channels({})) for weights in drawn)

    assert (drawn[0].task, drawn[0].architecture) == (TASK, ARCHITECTURE) == (first.task, first.architecture)
    assert first.sha256 == same.sha256 != other.sha256
    for module, named in first.parameters.items():
        for name, values in named.items():
            np.testing.assert_array_equal(values, same.parameters[module][name])
            assert name != "w" or not np.array_equal(values, other.parameters[module][name])
    kind.load(first, *parts(made)[1:])


def test_a_checkpoint_that_is_not_there_is_refused_by_its_path(kind, tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.npz"):
        kind.weights(CheckpointWeights(kind="checkpoint", path=tmp_path / "absent.npz"))


def test_predicted_memory_grows_with_what_is_computed_and_shrinks_with_the_mode(kind):
    sizes = Architecture(mesh_size=5, latent_size=256, gnn_msg_steps=16)
    call = CallSize(sizes, regular_grid(1.0), Channels.of(TASKS["GraphCast_small"], {}), "bfloat16", accelerated=False)
    needed = [kind.predicted_bytes(call, mode) for mode in kind.memory_modes]

    assert needed == sorted(needed, reverse=True)
    assert min(needed) > 4 * call.grid.size * (call.channels.inputs + call.channels.outputs)
    for larger in (
        replace(call, precision="float32"),
        replace(call, steps=2),
        replace(call, cases=2),
        replace(call, grid=regular_grid(0.5)),
        replace(call, architecture=sizes.model_copy(update={"latent_size": 512})),
        replace(call, channels=Channels.of(TASKS["GraphCast"], {})),
    ):
        more = [kind.predicted_bytes(larger, mode) for mode in kind.memory_modes]
        assert all(after > before for before, after in zip(needed, more, strict=True))


def test_a_model_names_its_implementation_and_the_packages_that_it_needs(kind):
    assert kind.description()
    for name, version in kind.packages().items():
        assert name in kind.description()
        assert version in kind.description()
