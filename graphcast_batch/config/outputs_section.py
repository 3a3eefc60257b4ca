"""Check the section ``outputs`` of a config: what a store keeps of each forecast."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from graphcast_batch.config.field_types import Latitude, Longitude
from graphcast_batch.spec import FrozenModel, Levels, Names

KeepBits = Annotated[int, Field(ge=1, le=22)]

MEAN: Final = "mean"
STANDARD_DEVIATION: Final = "standard_deviation"
Statistic = Literal["mean", "standard_deviation"] | Annotated[float, Field(gt=0, lt=1)]
"""Mean or standard deviation of the members of an ensemble, or a quantile of them, such as 0.9."""


class RegionConfig(FrozenModel):
    """A region between two parallels and two meridians, which belong to it."""

    latitude: Annotated[tuple[Latitude, Latitude], Strict(False)]
    """Southern and northern edge in degrees."""
    longitude: Annotated[tuple[Longitude, Longitude], Strict(False)]
    """Western and eastern edge in degrees; the region may cross 0° or 180°."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        south, north = self.latitude
        if south > north:
            raise ValueError(f"latitude must be [south, north], but is {list(self.latitude)}")
        if self.longitude[0] == self.longitude[1]:
            raise ValueError(f"longitude must be [west, east], two meridians, but is {list(self.longitude)}")
        return self


def _or_word(schema: dict[str, Any]) -> None:
    """Add to the JSON schema that the word ``none`` may stand in place of the section."""
    mapping = schema.copy()
    schema.clear()
    schema["anyOf"] = [{"const": "none"}, mapping]


class OutputsConfig(FrozenModel):
    """What the store keeps of each forecast; by default all variables, levels, lead times and points, unrounded."""

    model_config = ConfigDict(json_schema_extra=_or_word)

    forecasts: bool = True
    """Whether the store keeps forecasts at all; ``outputs: none`` is short for ``forecasts: false``, and keeps only
    their scores."""
    variables: Annotated[Names, Field(min_length=1)] | None = None
    """Variables that the store keeps; by default all that are predicted."""
    levels: Annotated[Levels, Field(min_length=1)] | None = None
    """Pressure levels in hPa that the store keeps; by default all."""
    lead_hours: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Strict(False), Field(min_length=1)] | None = None
    """Lead times in hours that the store keeps; the last of them must be the last of the forecast. By default all."""
    every_hours: Annotated[int, Field(gt=0)] | None = None
    """Interval in hours between the lead times that the store keeps, in place of ``lead_hours``."""
    region: RegionConfig | None = None
    """Region of the globe that the store keeps; by default all of it."""
    time_axis: Literal["ascending", "any"] = "ascending"
    """Whether a store may be extended by later initial times alone, so that its time axis stays ascending, or by any,
    which then stand at the end of the axis: tools that need an ascending one cannot read such a store as it is."""
    keep_bits: KeepBits | dict[str, KeepBits] | None = None
    """Number of bits (of 23) of the mantissa that the store keeps, for all variables or by variable; a stored value
    differs from the computed one by at most the fraction 2**-(keep_bits + 1)."""
    compression: Literal["lz4", "zstd", "none"] = "lz4"
    """Lossless compression of the store: ``lz4`` for speed, ``zstd`` for size."""
    max_files: Annotated[int, Field(gt=0)] | None = None
    """Largest number of files of one Case; by default one file for each 8 lead times of a variable."""
    ensemble: Annotated[tuple[Statistic, ...], Strict(False)] = ()
    """Statistics of the members of each initial time that are kept beside the members: ``mean``,
    ``standard_deviation``, and numbers such as 0.1 and 0.9 for quantiles. By default none."""
    members: Literal["all", "none"] | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False)] = "all"
    """Members of an ensemble whose forecasts are kept: ``all``, ``none``, or a list of their numbers. The values of the
    others are removed once their statistics and online scores are complete."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, content: object) -> object:
        return {"forecasts": False} if content == "none" else content

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.lead_hours is not None and self.every_hours is not None:
            raise ValueError("give either lead_hours or every_hours, not both")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for key in ("ensemble", "members"):
            named = getattr(self, key)
            twice = sorted({str(each) for each in named if named.count(each) > 1}) if isinstance(named, tuple) else []
            if twice:
                raise ValueError(f"{key} must name each once, but names {', '.join(twice)} again")
        return self

    def keeps_member(self, number: int) -> bool:
        """Return whether the forecasts of a member are kept."""
        return self.members == "all" or (self.members != "none" and number in self.members)

    def bits_of(self, name: str) -> int | None:
        """How many bits of a variable's mantissa are kept; None for all."""
        return self.keep_bits.get(name) if isinstance(self.keep_bits, dict) else self.keep_bits
