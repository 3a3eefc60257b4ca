"""Check the section ``model`` of a config: the network, its weights and its precision."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from graphcast_batch.config.field_types import File
from graphcast_batch.spec import TASKS, Architecture, FrozenModel, Task

Implementation = Literal["native", "deepmind"]
"""Name of an implementation: the one of this package, or DeepMind's own package."""


_TaskName = Literal["GraphCast", "GraphCast_operational", "GraphCast_small"]


def _named_task(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in TASKS:
        raise ValueError(f"a task is one of {', '.join(TASKS)} or a mapping of its fields, but is {value!r}")
    return TASKS[value]


class RandomWeights(FrozenModel):
    """Random weights, with which everything can be tried but the quality of the forecast."""

    kind: Literal["random"]
    """The weights are random numbers, for trying things out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random number generator that draws the weights."""
    architecture: Architecture
    """Sizes of the network whose weights are drawn."""
    task: Annotated[Task, BeforeValidator(_named_task, json_schema_input_type=_TaskName | Task)]
    """Variables and levels that the network takes and predicts: the name of a published task, or a mapping of the keys
    of a task."""


class CheckpointWeights(FrozenModel):
    """Weights from a checkpoint file in DeepMind's format, which also holds the task and the sizes of the network."""

    kind: Literal["checkpoint"]
    """The weights are read from a checkpoint file."""
    path: File
    """Path of the checkpoint file (.npz)."""


class ModelConfig(FrozenModel):
    """The model that makes the forecasts: its implementation, weights, normalization and precision."""

    implementation: Implementation = "native"
    """Implementation of the network: ``native`` is the one of this package; ``deepmind`` runs DeepMind's own package,
    which must be installed, for comparison."""
    weights: Annotated[RandomWeights | CheckpointWeights, Field(discriminator="kind")] | None = None
    """Weights of the network: a checkpoint file, or random numbers; required unless ``ensemble.checkpoints`` names
    checkpoints."""
    statistics: File | None = None
    """Folder of the three files of normalization statistics; by default the statistics are computed from the inputs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point precision of the network; ``auto`` is bfloat16 on an accelerator and float32 on a CPU."""
    memory: Literal["auto", "fast", "lean"] = "auto"
    """How the network uses the memory of the device: ``fast`` keeps large constant arrays there, ``lean`` computes them
    again in every step; ``auto`` is ``fast`` where there is room."""
    steps_per_call: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Largest number of time steps that one call of the compiled program computes; ``auto`` is 1 on a CPU, and on an
    accelerator 4, or fewer where the memory of device or host has no room for their frames."""
    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = 1
    """Batch size: the number of Cases that a worker computes in one call of the compiled program; a larger batch keeps
    a large device busier with a small network. ``auto`` is 1 on a CPU, and on an accelerator the largest batch that has
    room there and still makes a Case faster."""
