"""Check the section ``model`` of a config: the network, its weights and its precision."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from graphcast_batch.config.field_types import File
from graphcast_batch.spec import TASKS, Architecture, FrozenModel, Task

Implementation = Literal["native", "deepmind"]
"""Of the network: ours, or DeepMind's own package."""


_TaskName = Literal["GraphCast", "GraphCast_operational", "GraphCast_small"]


def _named_task(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in TASKS:
        raise ValueError(f"a task is one of {', '.join(TASKS)} or a mapping of its fields, but is {value!r}")
    return TASKS[value]


class RandomWeights(FrozenModel):
    """Weights drawn at random, for trying out everything but the forecast."""

    kind: Literal["random"]
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights."""
    architecture: Architecture
    """Sizes of the network."""
    task: Annotated[Task, BeforeValidator(_named_task, json_schema_input_type=_TaskName | Task)]
    """Which variables go in and out: the name of a published task, or a mapping."""


class CheckpointWeights(FrozenModel):
    """Weights from a file in DeepMind's format; its task and architecture come with it."""

    kind: Literal["checkpoint"]
    path: File
    """Of an .npz file."""


class ModelConfig(FrozenModel):
    """Which network, in which precision, with which normalisation."""

    implementation: Implementation = "native"
    """``deepmind`` runs DeepMind's own package, if it is installed, for comparison with ours."""
    weights: Annotated[RandomWeights | CheckpointWeights, Field(discriminator="kind")]
    """A checkpoint, or numbers drawn at random."""
    statistics: File | None = None
    """Folder of the three normalisation files; without it they are computed from the inputs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on an accelerator, float32 on CPU."""
    memory: Literal["auto", "fast", "lean"] = "auto"
    """Whether what never changes is kept on the device or, where it is large, computed again in every step; ``auto``:
    kept if there is room."""
    steps_per_call: Annotated[int, Field(gt=0)] = 4
    """At most so many steps in one call of the compiled program."""
    cases_per_call: Annotated[int, Field(gt=0)] = 1
    """So many Cases of a worker are computed together; a small network keeps a large device busier so."""

    @model_validator(mode="after")
    def _only_ours_computes_together(self) -> Self:
        if self.implementation == "deepmind" and self.cases_per_call > 1:
            raise ValueError(f"cases_per_call must be 1 with implementation: deepmind, but is {self.cases_per_call}")
        return self
