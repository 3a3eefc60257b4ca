"""Check the config of a run: all of its sections, and what they demand of each other."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, Strict, model_validator

from graphcast_batch.config.ensemble_section import EnsembleConfig
from graphcast_batch.config.field_types import File, refuse_address
from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.config.model_section import CheckpointWeights, ModelConfig, RandomWeights
from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.config.times_section import MOST_HOURS, TimesConfig
from graphcast_batch.spec import FrozenModel


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
    """Worker processes that compute the forecasts."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Device that a worker computes on; ``auto`` is GPUs where there are any, else CPUs."""
    count: Annotated[int, Field(gt=0)] | None = None
    """Number of workers; by default one for each GPU, or on CPUs one for each ``threads`` cores."""
    threads: Annotated[int, Field(gt=0)] = 2
    """Number of cores that a worker on a CPU computes with."""


class TimeLimitsConfig(FrozenModel):
    """Time limits of the stages of a Case, in seconds: a worker whose Case makes no progress for longer is replaced."""

    read: Annotated[float, Field(gt=0)] = 1800
    """Longest time in seconds until the initial state of a Case has been read."""
    compute: Annotated[float, Field(gt=0)] = 900
    """Longest time in seconds that one time step may take; a call of the program that computes several steps or Cases
    may take as many times as long, and the first one of a worker an hour more, as the program may have to be
    compiled."""
    write: Annotated[float, Field(gt=0)] = 1800
    """Longest time in seconds until the next block has been written."""


def _needs_weights(schema: dict[str, Any]) -> None:
    """Add to the JSON schema that weights stand in one section, ``model`` or ``ensemble``."""
    places = {"model": "weights", "ensemble": "checkpoints"}
    schema["oneOf"] = [
        {"required": [section], "properties": {section: {"required": [key]}}} for section, key in places.items()
    ]


class RunConfig(FrozenModel):
    """Everything that a run is made of."""

    model_config = ConfigDict(json_schema_extra=_needs_weights)

    store: Annotated[File, BeforeValidator(refuse_address, json_schema_input_type=str)]
    """Folder of the zarr store that the run writes, relative to the working directory."""
    inputs: Annotated[SyntheticInputs | DatasetInputs | ArchiveInputs, Field(discriminator="kind")]
    """Data from which the initial states of the forecasts are read."""
    times: TimesConfig | None = None
    """Initial times of the forecasts; required except with dataset files, which fix them."""
    steps: Annotated[int, Field(gt=0, le=MOST_HOURS)]
    """Number of time steps of each forecast; the steps of GraphCast are 6 h long, so that 40 are 10 days."""
    model: ModelConfig = ModelConfig()
    """The model that makes the forecasts, and its weights."""
    ensemble: EnsembleConfig | None = None
    """Members of an ensemble that are made of each initial time; by default one forecast of each."""
    workers: WorkersConfig = WorkersConfig()
    """Number of worker processes, and the devices that they compute on."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a Case that failed is tried again before it is recorded as failed."""
    limits: FrameLimits = "auto"
    """Range that each predicted variable must stay in, or its Case fails: ``auto`` is what weather can be, with a wide
    margin; ``off`` is any finite value; a mapping of variables to [low, high] sets these, and leaves the others as with
    ``auto``."""
    time_limits: TimeLimitsConfig = TimeLimitsConfig()
    """Time limits of the stages of a Case."""
    cache: Annotated[Literal["off"] | File, BeforeValidator(_read_cache)] | None = None
    """Folder in which graphs and compiled programs are kept for later workers; ``off`` keeps none. By default the
    user's cache folder, ``$XDG_CACHE_HOME/graphcast-batch`` or ``~/.cache/graphcast-batch``."""
    outputs: OutputsConfig = OutputsConfig()
    """What the store keeps of each forecast."""
    figures: FiguresConfig | None = None
    """Figures that are drawn of each Case; by default none."""
    scores: ScoresConfig = ScoresConfig()
    """What the forecasts are scored against."""

    @model_validator(mode="after")
    def _times_fit_inputs(self) -> Self:
        if self.inputs.kind == "datasets" and self.times is not None:
            raise ValueError("times must be left out with inputs.kind: datasets, whose files fix them")
        if self.inputs.kind != "datasets" and self.times is None:
            raise ValueError(f"times is required with inputs.kind: {self.inputs.kind}")
        if self.inputs.kind == "datasets" and self.start_hours != (0,):
            raise ValueError(
                "ensemble.lagged, and ensemble.perturbations of the kind bred, need inputs that hold earlier initial "
                "times too, but inputs.kind is datasets; give an archive"
            )
        return self

    @property
    def start_hours(self) -> tuple[int, ...]:
        """How long before an initial time forecasts start that are made for it, in hours; 0 comes first."""
        return self.ensemble.start_hours if self.ensemble else (0,)

    @model_validator(mode="after")
    def _has_weights_once(self) -> Self:
        listed = self.ensemble is not None and bool(self.ensemble.checkpoints)
        if listed and self.model.weights is not None:
            raise ValueError("model.weights must be left out with ensemble.checkpoints, which are the weights")
        if not listed and self.model.weights is None:
            raise ValueError("model.weights is required, or ensemble.checkpoints")
        return self

    @model_validator(mode="after")
    def _members_fit_outputs(self) -> Self:
        if self.outputs.ensemble and (self.ensemble is None or self.ensemble.size < 2):
            members = "no ensemble" if self.ensemble is None else "a single member"
            raise ValueError(
                f"outputs.ensemble needs two members of each initial time at least, but there is {members}; add "
                "ensemble, or leave outputs.ensemble out"
            )
        if self.ensemble is not None and not self.outputs.forecasts:
            raise ValueError(
                "outputs: none must be left out with an ensemble, whose members are scored together once all are "
                "stored; choose fewer variables, levels or lead times in outputs"
            )
        return self

    @model_validator(mode="after")
    def _members_can_be_drawn(self) -> Self:
        if self.figures and self.figures.of_ensembles:
            several = self.ensemble is not None and self.ensemble.size > 1
            if not several or self.outputs.members != "all":
                found = "members are not kept" if several else "there are none"
                raise ValueError(
                    "figures.ensemble and figures.spaghetti draw two members of an ensemble at least, but "
                    f"{found}; leave them out, or keep all members"
                )
        return self

    @model_validator(mode="after")
    def _members_may_be_dropped(self) -> Self:
        kept = self.outputs.members
        if kept == "all":
            return self
        if not self.combines_members:
            raise ValueError(
                f"outputs.members: {kept} needs something that is kept of all members: set outputs.ensemble or "
                "scores.online, for two members at least"
            )
        if kept == "none" and self.figures:
            raise ValueError("figures must be left out with outputs.members: none, which keeps no forecasts to draw")
        size = self.ensemble.size if self.ensemble else 0
        absent = [number for number in kept if number >= size] if kept != "none" else []
        if absent:
            raise ValueError(f"outputs.members must be below {size}, the number of members, but names {absent[0]}")
        return self

    @property
    def combines_members(self) -> bool:
        """Whether something is computed of all members of an initial time together: statistics or online scores."""
        several = self.ensemble is not None and self.ensemble.size > 1
        return several and bool(self.outputs.ensemble or self.scores.online)

    @property
    def weights(self) -> RandomWeights | CheckpointWeights:
        """The weights of the network: those of the section ``model``, or the first checkpoint of the ensemble."""
        if self.model.weights is not None:
            return self.model.weights
        assert self.ensemble is not None
        return CheckpointWeights(kind="checkpoint", path=self.ensemble.checkpoints[0])

    @model_validator(mode="after")
    def _something_remains(self) -> Self:
        if not self.outputs.forecasts and not self.scores.online:
            raise ValueError("outputs: none needs scores.online: true, or nothing of a forecast would be kept")
        if not self.outputs.forecasts and self.figures:
            raise ValueError("figures must be left out with outputs: none, which keeps no forecasts to draw")
        return self
