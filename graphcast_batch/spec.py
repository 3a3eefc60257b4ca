"""Describe what a model is: its variables, its levels, its step length and the sizes of its network."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from graphcast_batch.text import brief
from graphcast_batch.variables import LEVELS_13, LEVELS_37, VARIABLES

_STEP_HOURS: Final = 6
"""Length of a step of GraphCast (Lam et al. 2023)."""


_NAME: Final = re.compile(r"[^\s./\\][^\0-\x1f/\\]{0,99}")

_MOST_FRAMES: Final = 40
"""Largest number of input frames; the published models take 2."""


def check_name(name: str) -> str:
    """Refuse a name of a variable that cannot also name a file.

    Raises:
        ValueError: the name is too long, begins with a dot, or has a slash or a control character.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a variable names files too, so its name must have up to 100 characters, no slash and no dot in front, "
            f"but is {brief(name)}"
        )
    return name


Names = Annotated[tuple[Annotated[str, AfterValidator(check_name)], ...], Strict(False)]
"""Names of variables."""

Levels = Annotated[tuple[Annotated[int, Field(gt=0, lt=2**31)], ...], Strict(False)]
"""Pressure levels in hPa."""


class FrozenModel(BaseModel):
    """A section of a config: it cannot be changed, and keys that are not its own are refused."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # which may hold secrets; `parse_config` shows what may be shown
    )


class Task(FrozenModel):
    """What a model takes and predicts: the ``task_config`` of a checkpoint, field by field."""

    input_variables: Names
    """Names of the input variables: variables of the state, forcings, and fields that never change."""
    target_variables: Names
    """Names of the variables that are predicted."""
    forcing_variables: Names
    """Names of the variables that are known ahead, such as solar radiation, time of day and time of year."""
    pressure_levels: Levels
    """Pressure levels in hPa of all variables on levels, in ascending order."""
    input_duration: str = "12h"
    """Number of input frames times the step length, in hours, such as ``12h`` for two frames 6 hours apart."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.target_variables:
            raise ValueError("target_variables must name at least one variable")
        for field in ("input_variables", "target_variables", "forcing_variables", "pressure_levels"):
            names = getattr(self, field)
            twice = sorted(str(name) for name, count in Counter(names).items() if count > 1)
            if twice:
                raise ValueError(f"{field} must name each once, but repeats {', '.join(twice)}")
        both = sorted(set(self.target_variables) & set(self.forcing_variables))
        if both:
            raise ValueError(f"a variable is a target or a forcing, but {', '.join(both)} is both")
        if list(self.pressure_levels) != sorted(self.pressure_levels):
            raise ValueError(f"pressure_levels must ascend, but are {list(self.pressure_levels)}")
        if self.input_frames < 1:
            raise ValueError(f"input_duration must be a multiple of {self.step_hours}h, but is {self.input_duration}")
        if self.input_frames > _MOST_FRAMES:
            raise ValueError(
                f"input_duration must be at most {self.step_hours * _MOST_FRAMES}h, but is {self.input_duration}"
            )
        return self

    @property
    def step_hours(self) -> int:
        """Length of a step in hours: the time between two frames of the inputs or of the forecast."""
        return _STEP_HOURS

    @property
    def step(self) -> np.timedelta64:
        """`step_hours` as a timedelta64[h]."""
        return np.timedelta64(self.step_hours, "h")

    @property
    def input_frames(self) -> int:
        """Number of input frames, the last of them at the initial time."""
        hours = self.input_duration.removesuffix("h")
        if not hours.isdecimal() or int(hours) % self.step_hours:
            return 0
        return int(hours) // self.step_hours


class Architecture(FrozenModel):
    """The sizes of a network: the ``model_config`` of a checkpoint, field by field.

    The published sizes are 6, 512, 16 and 1 (Lam et al. 2023). Sizes far above them are refused before anything of
    that size is made.
    """

    mesh_size: Annotated[int, Field(ge=0, le=8)]
    """Number of refinements of the icosahedral mesh."""
    latent_size: Annotated[int, Field(gt=0, le=8192)]
    """Number of values that the network keeps for each node and edge."""
    gnn_msg_steps: Annotated[int, Field(gt=0, le=256)]
    """Number of message-passing steps on the mesh."""
    hidden_layers: Annotated[int, Field(ge=0, le=64)] = 1
    """Number of hidden layers of each perceptron."""
    radius_query_fraction_edge_length: Annotated[float, Field(gt=0, le=4)] = 0.6
    """Largest distance between a grid point and a mesh node that it sends to, in lengths of the longest mesh edge."""
    resolution: Annotated[float, Field(ge=0)] = 0.0
    """Grid spacing in degrees that the weights were trained for; 0 for any."""
    mesh2grid_edge_normalization_factor: Annotated[float, Field(gt=0)] | None = None
    """Length by which the lengths of edges from mesh to grid are divided; by default that of the longest edge."""


def _published(*, levels: tuple[int, ...], precipitation_in: bool) -> Task:
    kinds = {kind: tuple(v.name for v in VARIABLES.values() if v.kind == kind) for kind in ("surface", "level")}
    forcings = tuple(v.name for v in VARIABLES.values() if v.kind == "forcing")
    static = tuple(v.name for v in VARIABLES.values() if v.kind == "static")
    targets = kinds["surface"] + kinds["level"]
    inputs = targets if precipitation_in else tuple(name for name in targets if name != "total_precipitation_6hr")
    return Task(
        input_variables=inputs + forcings + static,
        target_variables=targets,
        forcing_variables=forcings,
        pressure_levels=levels,
    )


TASKS: Final[Mapping[str, Task]] = {
    "GraphCast": _published(levels=LEVELS_37, precipitation_in=True),
    "GraphCast_operational": _published(levels=LEVELS_13, precipitation_in=False),
    "GraphCast_small": _published(levels=LEVELS_13, precipitation_in=True),
}
"""The tasks of the three published checkpoints (Lam et al. 2023)."""
