"""Read and check a training recipe: the YAML file with all settings of a training."""

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
    """Number of model steps, of 6 h each with GraphCast, that a sample is forecast for in each update of this phase."""
    updates: Count
    """Number of updates of the weights in this phase."""
    peak: Annotated[float, Field(gt=0)]
    """Highest learning rate of this phase, which its updates reach after the warm-up."""
    last: Annotated[float | None, Field(ge=0)] = None
    """Learning rate of the last update of this phase; without it the learning rate stays at ``peak`` after the
    warm-up."""
    warm_up: Annotated[int, Field(ge=0)] = 0
    """Number of updates at the start of this phase over which the learning rate rises linearly from 0 to ``peak``; with
    the default of 0 the first update has ``peak``."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warm_up >= self.updates:
            raise ValueError(f"warm_up must be shorter than the {self.updates} updates, but is {self.warm_up}")
        if self.last is not None and self.last > self.peak:
            raise ValueError(f"last must be the peak {self.peak} at most, but is {self.last}")
        return self

    def rate(self, update: int) -> float:
        """Return the learning rate of an update, whose number is counted from 0 within the phase."""
        if update < self.warm_up:
            return self.peak * (update + 1) / self.warm_up
        last = self.peak if self.last is None else self.last
        part = (update - self.warm_up) / max(self.updates - self.warm_up - 1, 1)
        return float(last + (self.peak - last) * 0.5 * (1 + np.cos(np.pi * part)))


class TrainedModel(_Frozen):
    """The network that is trained, the weights that the training starts from, and the precision."""

    weights: Annotated[RandomWeights | CheckpointWeights, Field(discriminator="kind")]
    """Weights that the training starts from: those of a checkpoint file, or random ones of a given architecture."""
    statistics: File
    """Path of the folder with the three files of statistics by which fields are normalized."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating point precision in which the network computes; the default ``auto`` is bfloat16 on an accelerator and
    float32 on a CPU. Weights are always float32."""
    freeze: Annotated[tuple[str, ...], Strict(False)] = ()
    """Patterns of the names of network modules whose weights are not trained, such as ``mesh_gnn/*``; by default all
    weights are trained."""


class Validation(_Frozen):
    """Validation of the weights by the loss of rollouts that no update has seen, compared with that of persistence."""

    times: TimesConfig
    """Initial times of the validation samples; no field that they use may be used for training as well."""
    rollout: Count = 1
    """Number of model steps, of 6 h each with GraphCast, of the forecast of each validation sample."""
    every: Count = 1000
    """Number of updates between two validations; the weights are also validated after the last update."""


class TrainingRecipe(_Frozen):
    """All settings of a training."""

    folder: File
    """Path of the folder that receives the checkpoints, the loss curves and the record of updates, and from which a
    training is resumed."""
    inputs: Annotated[SyntheticInputs | DatasetInputs | ArchiveInputs, Field(discriminator="kind")]
    """Source of the fields that samples are made of: synthetic fields, dataset files or an archive."""
    times: TimesConfig
    """Initial times of the training samples."""
    validation: Validation
    """Samples that the weights are validated with, and how often."""
    model: TrainedModel
    """Network that is trained, with the weights that the training starts from."""
    phases: Annotated[tuple[Phase, ...], Strict(False), Field(min_length=1)]
    """Phases of the training in their order, usually with longer and longer rollouts."""
    batch: Count = 32
    """Number of samples in each update, over all workers; the default of 32 is the published value. It must be a
    multiple of the number of workers times ``samples_per_call``."""
    samples_per_call: Count = 1
    """Number of samples that a worker computes in one call; a higher number is faster on a large device and takes more
    memory. A worker with more samples in an update sums up the gradients of several calls."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay of AdamW: fraction by which an update shrinks the weight matrices, per unit of the learning rate;
    the default is the published value."""
    clip: Annotated[float, Field(gt=0)] = 32.0
    """Largest norm of a gradient: one that exceeds it is scaled down to this norm; the default is the published
    value."""
    average: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Decay of an exponential moving average of the weights: fraction of the average that each update keeps, such as
    0.999. The average is validated and written to checkpoints; without this key it is the weights themselves."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random order in which samples are used."""
    checkpoint_every: Count = 1000
    """Number of updates between two checkpoints; one is also written when the training ends or is stopped."""
    workers: WorkersConfig = WorkersConfig()
    """Worker processes that train together: their number, device and threads."""

    @model_validator(mode="after")
    def _batch_has_whole_parts(self) -> Self:
        if self.batch % self.samples_per_call:
            size = self.samples_per_call
            raise ValueError(f"batch must be a multiple of samples_per_call, {size}, but is {self.batch}")
        return self

    @property
    def updates(self) -> int:
        """Number of updates in all phases together."""
        return sum(phase.updates for phase in self.phases)

    def phase_of(self, update: int) -> tuple[Phase, int]:
        """Return the phase of an update, and the number of the update within that phase; both numbers count from 0."""
        for phase in self.phases:
            if update < phase.updates:
                return phase, update
            update -= phase.updates
        raise ValueError(f"a training of {self.updates} updates has no update {self.updates + update}")

    def steps_after(self, update: int) -> int:
        """Return the model steps of a sample in all updates that are left, to which the time left is proportional.

        Args:
            update: how many updates have been made.
        """
        steps = 0
        for phase in self.phases:
            made = min(update, phase.updates)
            steps += (phase.updates - made) * phase.rollout
            update -= made
        return steps


def load_recipe(path: Path) -> TrainingRecipe:
    """Read and check a training recipe.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value is not what it must be.
    """
    return parse_config(read_mapping(path), TrainingRecipe, origin=str(path))
