"""Check a training recipe against its inputs and weights, and prepare what training workers need."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import InputError, TrainingError
from graphcast_batch.inputs.case_inputs import COMPUTABLE, Timeline, read_inputs
from graphcast_batch.inputs.quality.checks import check_inputs, check_statistics
from graphcast_batch.inputs.sources.configured import open_source, resolution_remedy
from graphcast_batch.inputs.statistics import Statistics, read_statistics
from graphcast_batch.models.base import Checkpoint
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.trainer import frozen_modules
from graphcast_batch.models.graphcast.weights import ConfiguredWeights
from graphcast_batch.models.normalization import normalization
from graphcast_batch.models.state_arrays import initial_arrays
from graphcast_batch.plan import Case, plan_times
from graphcast_batch.recipe import TrainingRecipe
from graphcast_batch.training.samples import SampleReader, Times, needed_times
from graphcast_batch.training.training_folder import TrainingFolder, refuse_other


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """A recipe with the inputs, weights and samples that it names.

    Attributes:
        recipe: the recipe as it was given.
        source: fields at absolute times.
        checkpoint: weights to begin with, their task and architecture.
        channels: places of the task's variables.
        statistics: statistics by which fields are normalized.
        static: (point, static) fields that never change.
        frozen: names of the modules whose weights are not trained.
        times: the initial times of training samples, by the number of steps of the rollout.
        validation: initial times of the validation samples.
    """

    recipe: TrainingRecipe
    source: Timeline
    checkpoint: Checkpoint
    channels: Channels
    statistics: Statistics
    static: NDArray[np.float32]
    frozen: frozenset[str]
    times: dict[int, Times]
    validation: Times

    @property
    def summary(self) -> list[str]:
        """Sentences that report how many samples there are."""
        asked, own = (len(plan_times(times)) for times in (self.recipe.times, self.recipe.validation.times))
        found = [
            f"{times.size} of {asked} initial times have samples with {rollout} steps"
            for rollout, times in self.times.items()
        ]
        steps = self.recipe.validation.rollout
        return [*found, f"{self.validation.size} of {own} initial times of validation have samples with {steps} steps"]


def training_setup(recipe: TrainingRecipe) -> TrainingSetup:
    """Open inputs, weights and statistics, and check the folder; nothing is written and no device is used.

    Raises:
        TrainingError: the folder holds another training, there is no sample, or training and validation share a time.
        GraphcastBatchError: something is missing, or one part does not fit another.
    """
    weights = ConfiguredWeights(recipe.model.weights)
    task, resolution = weights.task, weights.architecture.resolution
    source = _opened(recipe, weights)
    channels = weights.channels(source.dims)
    checkpoint = weights.checkpoint(channels)
    statistics = read_statistics(recipe.model.statistics)
    normalization(channels, statistics.by_kind)  # what it needs is there
    state = TrainingFolder(recipe.folder).state()
    if state:
        refuse_other(state, recipe, checkpoint.sha256, recipe.folder)
    times, validation = _times(recipe, weights, SampleReader(source, channels, task, 0), source.origin)
    first = read_inputs(source, Case(min(found[0] for found in times.values()), 1, task.step_hours), task)
    check_inputs(first, task, source.grid, resolution)
    check_statistics(statistics.by_kind, str(recipe.model.statistics), task, lambda: first.frames)
    _, _, static = initial_arrays(channels, first.frames, source.grid)
    frozen = frozen_modules(recipe.model.freeze, checkpoint.parameters)
    return TrainingSetup(recipe, source, checkpoint, channels, statistics, static, frozen, times, validation)


def _opened(recipe: TrainingRecipe, weights: ConfiguredWeights) -> Timeline:
    task, resolution = weights.task, weights.architecture.resolution
    every = {*task.input_variables, *task.target_variables, *task.forcing_variables} - COMPUTABLE
    source = open_source(recipe.inputs, task.pressure_levels, resolution, sorted(every))
    absent = sorted(every - set(source.dims))
    if absent:
        raise InputError(
            f"{source.origin} must hold every variable of the task that is trained, but lacks {', '.join(absent)}; add "
            "them, or begin with weights of another task"
        )
    if not source.grid.fits(resolution):
        raise InputError(
            f"{source.origin} must be on a grid of {resolution:g}°, which the weights were trained for, but is on "
            f"{source.grid}; {resolution_remedy(recipe.inputs, source.grid.resolution, resolution)}, or give weights "
            "for this one"
        )
    return source


def _times(
    recipe: TrainingRecipe, weights: ConfiguredWeights, reader: SampleReader, origin: str
) -> tuple[dict[int, Times], Times]:
    """Return the initial times of training by the steps of rollouts, and those of validation."""
    asked, own = (np.array(plan_times(times)) for times in (recipe.times, recipe.validation.times))
    times = {rollout: reader.startable(asked, rollout) for rollout in sorted({p.rollout for p in recipe.phases})}
    validation = reader.startable(own, recipe.validation.rollout)
    for what, wanted, found in [
        *(("times", rollout, found) for rollout, found in times.items()),
        ("validation.times", recipe.validation.rollout, validation),
    ]:
        if not found.size:
            raise TrainingError(
                f"{what} must have an initial time of which {origin} holds the {weights.task.input_frames} frames that "
                f"go in and the {wanted} steps of the rollout, but it holds all of none; take other times, shorter "
                "rollouts or a longer archive"
            )
    seen = [needed_times(found, weights.task, rollout).ravel() for rollout, found in times.items()]
    shared = np.intersect1d(np.concatenate(seen), needed_times(validation, weights.task, recipe.validation.rollout))
    if shared.size:
        raise TrainingError(
            f"validation must see no time that training sees, but {shared.size} are seen by both, the first of them "
            f"{shared[0].astype('datetime64[h]')}; let validation.times begin later, or times end earlier"
        )
    return times, validation
