"""Check the config of a run: all of its sections, and what they demand of each other."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, Strict, model_validator

from graphcast_batch.config.field_types import File, refuse_address
from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.config.model_section import ModelConfig
from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.config.times_section import MOST_HOURS, TimesConfig
from graphcast_batch.spec import STEP_HOURS, FrozenModel


def _read_limits(value: object) -> object:
    if value is False:  # as YAML 1.1 reads the word off, and so whoever loads a config with another library
        return "off"
    if isinstance(value, Mapping):
        for name, pair in value.items():
            if not (isinstance(name, str) and _is_range(pair)):
                raise ValueError(
                    f"a variable has its [low, high], two numbers of which the first is less, but {name} has {pair!r}"
                )
    elif value not in ("auto", "off"):
        raise ValueError(f"give auto, off, or a mapping of variables to [low, high], not {value!r}")
    return value


def _read_cache(value: object) -> object:
    if value is False:  # as YAML 1.1 reads the word off, and so whoever loads a config with another library
        return "off"
    if not isinstance(value, str | Path) or "://" in str(value):
        raise ValueError(f"give a folder or off, not {value!r}")
    return value


def _is_range(pair: object) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or {type(side) for side in pair} - {int, float}:
        return False
    low, high = pair
    return bool(-math.inf < low < high < math.inf)


FrameLimits = Annotated[
    Literal["auto", "off"] | dict[str, Annotated[tuple[float, float], Strict(False)]], BeforeValidator(_read_limits)
]


class WorkersConfig(FrozenModel):
    """How many processes, on what."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What they compute on; ``auto``: GPUs if there are any."""
    count: Annotated[int, Field(gt=0)] | None = None
    """Without it: one for each GPU, or on CPU one for each ``threads`` cores."""
    threads: Annotated[int, Field(gt=0)] = 2
    """Cores that a CPU worker computes with."""


class TimeLimitsConfig(FrozenModel):
    """Seconds that a Case may stay in one stage without getting on; after that its worker is given up."""

    read: Annotated[float, Field(gt=0)] = 1800
    """Until the state that it starts from is there."""
    compute: Annotated[float, Field(gt=0)] = 3600
    """Until the next frames are there; the first come after the program was compiled."""
    write: Annotated[float, Field(gt=0)] = 1800
    """Until the next block is written."""


class RunConfig(FrozenModel):
    """All that a run is made of."""

    store: Annotated[File, BeforeValidator(refuse_address, json_schema_input_type=str)]
    """Folder of the zarr store to make, relative to the working directory."""
    inputs: Annotated[SyntheticInputs | DatasetInputs | ArchiveInputs, Field(discriminator="kind")]
    """Where the states come from that forecasts start from."""
    times: TimesConfig | None = None
    """Initial times; left out for dataset files, which fix them."""
    steps: Annotated[int, Field(gt=0, le=MOST_HOURS // STEP_HOURS)]
    """Of 6 h, of each forecast; 40 are 10 days."""
    model: ModelConfig
    """The network and its weights."""
    workers: WorkersConfig = WorkersConfig()
    """Processes that compute."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a failed Case is tried again before it is set aside."""
    limits: FrameLimits = "auto"
    """What a frame may hold; one beyond ends its Case. ``auto``: what could be weather, with a wide margin; ``off``:
    all that is finite; a mapping of variables to lowest and highest value: these so, the others as with auto."""
    time_limits: TimeLimitsConfig = TimeLimitsConfig()
    """After how long a Case that hangs is given up."""
    cache: Annotated[Literal["off"] | File, BeforeValidator(_read_cache)] | None = None
    """Where graphs and compiled programs are kept for later workers; ``off``: nowhere; without it the user's own cache
    folder, ``$XDG_CACHE_HOME/graphcast-batch`` or ``~/.cache/graphcast-batch``."""
    outputs: OutputsConfig = OutputsConfig()
    """What is kept of each forecast."""
    figures: FiguresConfig | None = None
    """What is drawn of it."""
    scores: ScoresConfig = ScoresConfig()
    """What it is held against."""

    @model_validator(mode="after")
    def _times_fit_inputs(self) -> Self:
        if self.inputs.kind == "datasets" and self.times is not None:
            raise ValueError("times must be left out with inputs.kind: datasets, whose files fix them")
        if self.inputs.kind != "datasets" and self.times is None:
            raise ValueError(f"times is required with inputs.kind: {self.inputs.kind}")
        return self

    @model_validator(mode="after")
    def _something_remains(self) -> Self:
        if not self.outputs.forecasts and not self.scores.online:
            raise ValueError("outputs: none needs scores.during: true, or nothing would remain of a forecast")
        if not self.outputs.forecasts and self.figures:
            raise ValueError("figures must be left out with outputs: none, which keeps no forecasts to draw")
        return self
