"""Check the section ``outputs`` of a config: what a store keeps of each forecast."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from graphcast_batch.config.field_types import Latitude, Longitude
from graphcast_batch.spec import STEP_HOURS, FrozenModel, Levels, Names

KeepBits = Annotated[int, Field(ge=1, le=22)]


class RegionConfig(FrozenModel):
    """A part of the globe; its edges belong to it."""

    latitude: Annotated[tuple[Latitude, Latitude], Strict(False)]
    """South and north, degrees."""
    longitude: Annotated[tuple[Longitude, Longitude], Strict(False)]
    """West and east, degrees; with west behind east across 0° or 180°."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        south, north = self.latitude
        if south > north:
            raise ValueError(f"latitude must be [south, north], but is {list(self.latitude)}")
        if self.longitude[0] == self.longitude[1]:
            raise ValueError(f"longitude must be [west, east], two meridians, but is {list(self.longitude)}")
        return self


def _or_word(schema: dict[str, Any]) -> None:
    """Adds the word that `OutputsConfig` may be."""
    mapping = schema.copy()
    schema.clear()
    schema["anyOf"] = [{"const": "none"}, mapping]


class OutputsConfig(FrozenModel):
    """What a store keeps of each forecast, and how; without a key all of it, and every bit."""

    model_config = ConfigDict(json_schema_extra=_or_word)

    forecasts: bool = True
    """Whether it keeps them at all; ``outputs: none`` is short for ``forecasts: false``, and leaves nothing but the
    scores of what it would have kept."""
    variables: Annotated[Names, Field(min_length=1)] | None = None
    """To keep; without it all."""
    levels: Annotated[Levels, Field(min_length=1)] | None = None
    """To keep, hPa; without it all."""
    lead_hours: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Strict(False), Field(min_length=1)] | None = None
    """Lead times to keep; the last of them is the last of the forecast."""
    every_hours: Annotated[int, Field(gt=0, multiple_of=STEP_HOURS)] | None = None
    """Or every so many hours."""
    region: RegionConfig | None = None
    """Part of the globe to keep; without it all."""
    keep_bits: KeepBits | dict[str, KeepBits] | None = None
    """Bits of the mantissa to keep, of 23, of all variables or by variable: what is kept of a value is within
    2**-(keep_bits + 1) of it."""
    compression: Literal["lz4", "zstd", "none"] = "lz4"
    """Always without loss: lz4 for speed, zstd for size."""
    max_files: Annotated[int, Field(gt=0)] | None = None
    """At most so many files a Case; without it one for each 8 lead times of a variable."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, content: object) -> object:
        return {"forecasts": False} if content == "none" else content

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.lead_hours is not None and self.every_hours is not None:
            raise ValueError("give either lead_hours or every_hours, not both")
        return self

    def bits_of(self, name: str) -> int | None:
        """How many bits of a variable's mantissa are kept; None for all."""
        return self.keep_bits.get(name) if isinstance(self.keep_bits, dict) else self.keep_bits
