"""A YAML file becomes a frozen Recipe: all that a training is made of."""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.field_types import File
from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.model_section import CheckpointWeights, RandomWeights
from graphcast_batch.config.run_config import WorkersConfig
from graphcast_batch.config.times_section import TimesConfig

Count = Annotated[int, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class Phase(_Frozen):
    """Updates with rollouts of one length; the learning rate rises linearly to its peak, then falls by half a cosine.

    The published training (Lam et al. 2023, supplement 4.4-4.5) is one step for 300000 updates with peak 1e-3, warm_up
    1000 and last 0, then 2 to 12 steps for 1000 updates each with peak 3e-7.
    """

    rollout: Count
    """Steps of 6 h that a sample is forecast for."""
    updates: Count
    """How many."""
    peak: Annotated[float, Field(gt=0)]
    """The highest learning rate."""
    last: Annotated[float | None, Field(ge=0)] = None
    """Learning rate of the last update; without it the peak."""
    warm_up: Annotated[int, Field(ge=0)] = 0
    """Updates of the rise from 0, the last of which has the peak."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warm_up >= self.updates:
            raise ValueError(f"warm_up must be shorter than the {self.updates} updates, but is {self.warm_up}")
        if self.last is not None and self.last > self.peak:
            raise ValueError(f"last must be the peak {self.peak} at most, but is {self.last}")
        return self

    def rate(self, update: int) -> float:
        """The learning rate of an update, counted from 0 in the phase."""
        if update < self.warm_up:
            return self.peak * (update + 1) / self.warm_up
        last = self.peak if self.last is None else self.last
        part = (update - self.warm_up) / max(self.updates - self.warm_up - 1, 1)
        return float(last + (self.peak - last) * 0.5 * (1 + np.cos(np.pi * part)))


class TrainedModel(_Frozen):
    """Which network is trained, from which weights, in which precision."""

    weights: Annotated[RandomWeights | CheckpointWeights, Field(discriminator="kind")]
    """To begin with."""
    statistics: File
    """Folder of the three normalisation files."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the network; ``auto``: bfloat16 on an accelerator, float32 on CPU. Weights are float32 always."""
    freeze: Annotated[tuple[str, ...], Strict(False)] = ()
    """Patterns of the names of modules whose weights stay as they are, such as ``mesh_gnn/*``."""


class Validation(_Frozen):
    """What tells how good the weights are: the loss of rollouts that no update has seen, beside that of persistence."""

    times: TimesConfig
    """Initial times, best none of those that are trained on."""
    rollout: Count = 1
    """Steps of 6 h of each forecast."""
    every: Count = 1000
    """Updates."""


class TrainingRecipe(_Frozen):
    """All that a training is made of."""

    folder: File
    """Where checkpoints, curves and the record go."""
    inputs: Annotated[SyntheticInputs | DatasetInputs | ArchiveInputs, Field(discriminator="kind")]
    """Where samples come from."""
    times: TimesConfig
    """Initial times of the samples."""
    validation: Validation
    """What tells how good the weights are."""
    model: TrainedModel
    """The network that is trained."""
    phases: Annotated[tuple[Phase, ...], Strict(False), Field(min_length=1)]
    """One after another, as a rule with ever longer rollouts."""
    batch: Count = 32
    """Samples of an update, over all workers (the published number)."""
    together: Count = 1
    """Samples that a worker computes together; the gradients of more are summed up one after another."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of weight matrices, for each update and unit of the learning rate (AdamW; the published value)."""
    clip: Annotated[float, Field(gt=0)] = 32.0
    """Norm above which a gradient is scaled down to it (the published value)."""
    average: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Share of the running mean of weights that stays in each update, such as 0.999; the mean is what is validated and
    what checkpoints hold. Without it the weights themselves."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the order of samples."""
    checkpoint_every: Count = 1000
    """Updates."""
    workers: WorkersConfig = WorkersConfig()
    """Processes that compute."""

    @model_validator(mode="after")
    def _batch_has_whole_parts(self) -> Self:
        if self.batch % self.together:
            raise ValueError(f"batch must be a multiple of together, {self.together}, but is {self.batch}")
        return self

    @property
    def updates(self) -> int:
        """Of all phases."""
        return sum(phase.updates for phase in self.phases)

    def phase_of(self, update: int) -> tuple[Phase, int]:
        """The phase of an update, and its number in it; both numbers from 0."""
        for phase in self.phases:
            if update < phase.updates:
                return phase, update
            update -= phase.updates
        raise ValueError(f"a training of {self.updates} updates has no update {self.updates + update}")

    def steps_after(self, update: int) -> int:
        """6 h steps of each sample in all updates that are left after so many: what time they take goes by."""
        steps = 0
        for phase in self.phases:
            made = min(update, phase.updates)
            steps += (phase.updates - made) * phase.rollout
            update -= made
        return steps


def load_recipe(path: Path) -> TrainingRecipe:
    """Reads and checks a recipe.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value is not what it must be.
    """
    return parse_config(read_mapping(path), TrainingRecipe, origin=str(path))
