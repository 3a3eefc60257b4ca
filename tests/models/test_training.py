from functools import cache

import jax
import numpy as np
import pytest

from graphcast_batch.errors import TrainingError
from graphcast_batch.models.edge_blocks import blocked
from graphcast_batch.models.graphcast.forecaster import used
from graphcast_batch.models.graphcast.loss import rollout_loss
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.graphcast.trainer import Trainer, arrays_of, frozen_modules
from graphcast_batch.models.graphcast.training_program import Samples
from graphcast_batch.models.graphs import build_graphs
from graphcast_batch.models.normalization import normalization
from graphcast_batch.models.state_arrays import forcing_blocks, initial_arrays, target_points
from graphcast_batch.spec import Architecture, Task
from tests.models.conftest import made_up

pytestmark = pytest.mark.usefixtures("hasty_compiler")

TASK = Task(
    input_variables=("temperature", "2m_temperature", "land_sea_mask", "toa_incident_solar_radiation"),
    target_variables=("temperature", "2m_temperature", "total_precipitation_6hr"),
    forcing_variables=("toa_incident_solar_radiation",),
    pressure_levels=(500, 850),
)
PLAIN = {
    "precision": "float32",
    "weight_decay": 0.0,
    "clip": 1e9,
    "average": None,
    "frozen": (),
    "together": 1,
}
CLIP, DECAY, SHARE = 0.05, 0.1, 0.75
PUBLISHED = {"weight_decay": DECAY, "clip": CLIP, "average": SHARE, "together": 4}
"""What was published, with numbers that are felt in two updates; all samples together."""
B1, B2, EPSILON = 0.9, 0.95, 1e-8
"""Of AdamW: Lam et al. 2023, supplement 4.4; the last is Kingma and Ba's."""


@cache
def case():
    return made_up(Architecture(mesh_size=0, latent_size=4, gnn_msg_steps=1), TASK, rows=5, columns=8)


@cache
def drawn(count=4, steps=2):
    """Samples of random weather."""
    channels, points = case().channels, case().grid.size
    random = np.random.default_rng(5)

    def field(*shape):
        return random.normal(size=shape).astype(np.float32)

    carried, forced = channels.width(channels.carried), channels.width(channels.forced)
    return Samples(
        frames=field(count, 2, points, carried),
        forcings=field(count, 2, points, channels.width(channels.forced_inputs)) * 1e6,
        known=field(count, steps, points, forced) * 1e6,
        targets=field(count, steps, points, channels.outputs),
    )


def trainer(**changes):
    """The same one whenever the same is asked for, with all that it has compiled."""
    return _trainer(tuple(sorted((PLAIN | changes).items())))


@cache
def _trainer(options):
    return trainer_of(case(), np.ones((case().grid.size, 1), np.float32), **dict(options))


def trainer_of(reference, static, **changes):
    graphs = build_graphs(reference.checkpoint.architecture, reference.grid)
    parts = (reference.checkpoint, reference.statistics, reference.grid, reference.channels, static, graphs)
    return Trainer(*parts, **PLAIN | changes)


def updated(rates=(1e-3,), **changes):
    """A training after some updates, and what they said."""
    made = trainer(**changes)
    training, said = made.begin(), []
    for rate in rates:
        training, update = made.update(training, drawn(), rate)
        said.append(update)
    return training, said


def by_module(training, kind):
    """Arrays of one kind, such as parameters or mu (Adam's mean), by module and name."""
    found = {}
    for place, array in arrays_of(training).items():
        *kinds, module, name = place.split(":")
        if kinds and kinds[-1] == kind:
            found.setdefault(module, {})[name] = array
    return found


def gradient(training):
    """Of the first update, before the decay: the first mean that Adam keeps is a share of it."""
    return jax.tree.map(lambda mean: mean / np.float32(1 - B1), by_module(training, "mu"))


def test_loss_gradient_and_its_norms_are_those_of_deepminds_package(reference):
    steps, channels, grid = reference.steps, reference.channels, reference.grid
    frames, forcings, static = initial_arrays(channels, reference.inputs, grid)
    init_time = reference.inputs["time"].values[-1]
    (known,) = forcing_blocks(channels, reference.forcings, init_time, steps, steps, grid)
    targets = target_points(channels, reference.truth, grid)
    samples = Samples(*(part[None] for part in (frames, forcings, known, targets)))
    made = trainer_of(reference, static)

    training, update = made.update(made.begin(), samples, 0.0)

    expected = reference.loss["float32"]
    assert float(update.loss) == pytest.approx(expected["loss"], rel=1e-4)
    assert {name: float(part) for name, part in update.parts.items()} == pytest.approx(
        expected["diagnostics"], rel=1e-3
    )
    assert float(update.gradient_norm) == pytest.approx(expected["gradient_norm"], rel=1e-3)
    norms = {
        module: np.sqrt(sum(np.square(part).sum() for part in named.values()))
        for module, named in gradient(training).items()
    }
    asked = {module: norm for module, norm in expected["gradient_norm_by_module"].items() if norm}
    assert norms == pytest.approx(asked, rel=1e-3)


def slope_of(precision, *, rematerialized):
    """What gives loss and gradient, from weights and all that `of_rollouts` gives."""
    reference = case()
    predictor = Predictor(reference.checkpoint.architecture, reference.channels, precision)
    scales = normalization(reference.channels, reference.statistics)
    loss = rollout_loss(predictor, reference.grid, rematerialized=rematerialized)

    def of_weights(weights, graphs, static, frames, forcings, known, targets):
        constants = Constants(predictor.folded(weights, graphs), scales, static)
        return loss(constants, ModelState(tuple(frames), tuple(forcings)), known, targets)[0]

    return jax.jit(jax.value_and_grad(of_weights))


def of_rollouts(precision, steps):
    reference = case()
    graphs = blocked(build_graphs(reference.checkpoint.architecture, reference.grid), 10**6)
    weights = jax.tree.map(lambda part: np.asarray(part, precision), used(reference.checkpoint.parameters))
    static = np.ones((reference.grid.size, 1), precision)
    return weights, graphs, static, *(part[0].astype(precision) for part in drawn(1, steps))


def test_the_gradient_is_the_slope_of_the_loss_and_takes_memory_for_frames_alone():
    with jax.enable_x64(True):
        weights, *known = of_rollouts("float64", 3)
        kept, again = (
            slope_of("float64", rematerialized=choice).lower(weights, *known).compile() for choice in (False, True)
        )
        (loss, slopes), (same_loss, same) = jax.tree.map(np.asarray, (kept(weights, *known), again(weights, *known)))
        random = np.random.default_rng(1)
        along = jax.tree.map(lambda part: random.normal(size=part.shape), weights)
        step = 1e-7
        ahead, back = (
            float(again(jax.tree.map(lambda part, way, far=far: part + far * way, weights, along), *known)[0])
            for far in (step, -step)
        )
        kept_longer, longer = (
            slope_of("float64", rematerialized=choice).lower(*of_rollouts("float64", 11)).compile()
            for choice in (False, True)
        )

    assert {part.dtype for part in jax.tree.leaves(slopes)} == {np.dtype("float64")}
    slope = sum(float((part * way).sum()) for part, way in zip(*map(jax.tree.leaves, (slopes, along)), strict=True))
    # The error of a central difference: about the square of the step, and rounding over the step.
    assert (ahead - back) / (2 * step) == pytest.approx(slope, rel=1e-7)
    assert float(loss) == pytest.approx(float(same_loss), rel=1e-12)
    for one, other in zip(*map(jax.tree.leaves, (slopes, same)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)

    frame_bytes = 2 * (drawn(1).frames.nbytes + drawn(1).forcings.nbytes)  # twice those of float32
    kept_bytes, kept_longer_bytes, again_bytes, longer_bytes = (
        program.memory_analysis().temp_size_in_bytes for program in (kept, kept_longer, again, longer)
    )
    assert longer_bytes - again_bytes < 8 * 2 * frame_bytes
    assert kept_longer_bytes - kept_bytes > 8 * 5 * frame_bytes


@cache
def frozen():
    return tuple(sorted(frozen_modules(["mesh_gnn/*", "*layer_norm"], case().checkpoint.parameters)))


def assert_same_gradient(found, complete, scale=1.0):
    """Array by array: what float32 rounds off in a sum goes with its terms, of which one element may hold little."""
    for module, named in gradient(found).items():
        for name, slope in named.items():
            other = gradient(complete)[module][name] * scale
            assert np.linalg.norm(slope - other) <= 1e-4 * np.linalg.norm(other) + 1e-5 * scale, (module, name)


def test_samples_may_be_summed_up_in_parts():
    (one, (said,)), (parts, (also,)) = updated(together=1), updated(together=2, frozen=frozen())

    assert float(said.loss) == pytest.approx(float(also.loss), rel=1e-6)
    assert_same_gradient(parts, one)


def test_the_loss_is_the_mean_over_samples():
    _, (said,) = updated()
    made = trainer()

    assert float(said.loss) == pytest.approx(made.losses(made.begin(), drawn()).mean(), rel=1e-5)


def test_all_samples_may_be_done_together_and_a_gradient_above_the_norm_is_scaled_down_to_it():
    (one, (said,)), (clipped, (also,)) = updated(together=1), updated(**PUBLISHED)

    norm = float(said.gradient_norm)
    assert norm > CLIP
    assert float(said.loss) == pytest.approx(float(also.loss), rel=1e-6)
    assert float(also.gradient_norm) == pytest.approx(norm, rel=1e-5)
    assert_same_gradient(clipped, one, CLIP / norm)


def test_updates_are_those_of_adamw_and_the_mean_of_weights_comes_out():
    rates = (1e-3, 5e-4)
    made = trainer(**PUBLISHED)
    begun = made.result(made.begin())
    (first, _), (second, _) = updated(rates[:1], **PUBLISHED), updated(rates, **PUBLISHED)
    means, weights, averaged = by_module(second, "mu"), by_module(second, "parameters"), made.result(second)

    # Loshchilov and Hutter 2019, algorithm 2, written out for two updates; biases and norms do not decay.
    for module, named in gradient(first).items():
        for name, one in named.items():
            two = (means[module][name] - B1 * (1 - B1) * one) / (1 - B1)
            expected, mean, square = begun[module][name].astype(np.float64), 0.0, 0.0
            average = expected
            for n, (slope, rate) in enumerate(zip((one, two), rates, strict=True), 1):
                mean, square = B1 * mean + (1 - B1) * slope, B2 * square + (1 - B2) * slope.astype(np.float64) ** 2
                way = (mean / (1 - B1**n)) / (np.sqrt(square / (1 - B2**n)) + EPSILON)
                expected = expected - rate * (way + (DECAY * expected if one.ndim > 1 else 0))
                average = SHARE * average + (1 - SHARE) * expected
            np.testing.assert_allclose(weights[module][name], expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(averaged[module][name], average, rtol=1e-4, atol=1e-5)


def test_frozen_modules_stay_bit_by_bit_and_the_others_move():
    begun, made = case().checkpoint.parameters, trainer(together=2, frozen=frozen())

    training, (said,) = updated((1e-2,), together=2, frozen=frozen())

    found = made.result(training)
    assert found.keys() == begun.keys()
    for module, named in found.items():
        idle = module in frozen() or "mesh2grid_gnn/~_networks_builder/processor_nodes_0_mesh_nodes" in module
        assert all(np.array_equal(named[name], begun[module][name]) for name in named) == idle, module
    _, (complete,) = updated()
    assert float(said.gradient_norm) < float(complete.gradient_norm)


def test_an_update_that_is_not_finite_changes_nothing():
    samples = drawn()
    targets = samples.targets.copy()
    targets[2, 1, 5, 0] = np.nan
    made = trainer()
    training, _ = updated((1e-3,))
    before = arrays_of(training)

    after, update = made.update(training, samples._replace(targets=targets), 1e-3)

    assert np.isnan(float(update.loss))
    for place, array in arrays_of(after).items():
        np.testing.assert_array_equal(array, before[place])


def test_a_training_goes_on_bit_by_bit_from_its_arrays():
    made = trainer()
    complete, _ = updated((1e-2, 1e-2))
    half, _ = updated((1e-2,))

    taken_up = made.restored(made.begin(), arrays_of(half))
    found, _ = made.update(taken_up, drawn(), 1e-2)

    expected = arrays_of(complete)
    for place, array in arrays_of(found).items():
        np.testing.assert_array_equal(array, expected[place])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: {place: array.astype(np.float64) for place, array in arrays.items()},
        lambda arrays: dict(list(arrays.items())[1:]),
        lambda arrays: {place: array[..., :1] if array.ndim else array for place, array in arrays.items()},
        lambda arrays: {place.replace("mu", "nu"): array for place, array in arrays.items()},
    ],
    ids=["types", "fewer", "shapes", "names"],
)
def test_the_arrays_of_another_training_are_refused(spoil):
    made = trainer()

    with pytest.raises(TrainingError, match="must be that of this recipe and these weights"):
        made.restored(made.begin(), spoil(arrays_of(made.begin())))


def test_in_bfloat16_the_loss_is_near_and_weights_stay_float32():
    _, (fine,) = updated()
    training, (coarse,) = updated(precision="bfloat16")

    # 8 bits of mantissa, over a few layers.
    assert float(coarse.loss) == pytest.approx(float(fine.loss), rel=0.02)
    assert float(coarse.gradient_norm) == pytest.approx(float(fine.gradient_norm), rel=0.2)
    assert {array.dtype for array in jax.tree.leaves(by_module(training, "parameters"))} == {np.dtype("float32")}
