"""Check the section ``times`` of a config: the initial times of a run."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, ConfigDict, Field, Strict, model_validator

from graphcast_batch.config.documents import read_lines
from graphcast_batch.config.field_types import absolute_path
from graphcast_batch.spec import FrozenModel

_FIRST_YEAR, _LAST_YEAR = 1678, 2261
"""The first and last complete year that valid times can be in, as 64-bit nanoseconds around 1970."""


MOST_HOURS: Final = 2**63 // (3600 * 10**9)
"""The longest period in hours that fits into 64-bit nanoseconds."""


_MOST_TIMES: Final = 1_000_000
"""Largest number of initial times of a run: one an hour for 114 years."""


def _read_time(value: object) -> object:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
            raise ValueError(
                f"an initial time must be in the years {_FIRST_YEAR} to {_LAST_YEAR}, but is {value.isoformat()}"
            )
        value = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        if value.minute or value.second or value.microsecond:
            raise ValueError("an initial time must be a whole hour")
    return value


def _lines(path: object) -> list[str]:
    """Read the lines of the file of initial times."""
    if not isinstance(path, str):
        raise ValueError(f"file must be a path, but is {path!r}")
    try:
        return read_lines(Path(absolute_path(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"file must be a text file with one initial time a line, but cannot be read: {error}"
        ) from error


Time = Annotated[datetime, BeforeValidator(_read_time, json_schema_input_type=str)]
"""An initial time: a whole hour in UTC, without a time zone."""


def _with_file(schema: dict[str, Any]) -> None:
    """Add to the JSON schema the key ``file``, which `TimesConfig` reads into its list."""
    schema["properties"]["file"] = {
        "type": "string",
        "description": "Text file with one initial time (UTC) a line, in place of ``list``.",
    }


class TimesConfig(FrozenModel):
    """Initial times of the run: a list, a file, or first, last and every_hours; hours and exclude leave some out."""

    model_config = ConfigDict(json_schema_extra=_with_file)

    list: Annotated[tuple[Time, ...] | None, Strict(False)] = None
    """Initial times in UTC, each a whole hour such as 2020-01-01T00."""
    first: Time | None = None
    """First initial time in UTC, a whole hour such as 2020-01-01T00."""
    last: Time | None = None
    """Last initial time in UTC; it is included if a whole number of intervals leads to it."""
    every_hours: Annotated[int, Field(gt=0, le=MOST_HOURS)] | None = None
    """Interval between initial times, in hours."""
    hours: Annotated[tuple[Annotated[int, Field(ge=0, le=23)], ...], Strict(False)] = ()
    """Hours of the day (UTC) at which forecasts start; by default all hours that the other keys give."""
    exclude: Annotated[tuple[Time, ...], Strict(False)] = ()
    """Initial times that are left out."""

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, content: object) -> object:
        """Put the lines of ``file`` into the list, so that the copy of the config in the store needs no other file."""
        if not isinstance(content, dict) or "file" not in content:
            return content
        if "list" in content:
            raise ValueError("give either list or file, not both")
        return {key: value for key, value in content.items() if key != "file"} | {"list": _lines(content["file"])}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        span = (self.first, self.last, self.every_hours)
        if self.list is not None and any(part is not None for part in span):
            raise ValueError("give either list, or first, last and every_hours, not both")
        if self.list is None and any(part is None for part in span):
            raise ValueError("give list, file, or all of first, last and every_hours")
        if self.list is not None and not self.list:
            raise ValueError("list must hold at least one time")
        if self.list is not None and len(set(self.list)) < len(self.list):
            raise ValueError("list must hold each time once")
        if self.first and self.last and self.last < self.first:
            raise ValueError(f"last ({self.last:%Y-%m-%dT%H}) must not be before first ({self.first:%Y-%m-%dT%H})")
        if self.first and self.last and self.every_hours:
            count = (self.last - self.first) // timedelta(hours=self.every_hours) + 1
            if count > _MOST_TIMES:
                raise ValueError(
                    f"there must be at most {_MOST_TIMES} initial times, but from {self.first:%Y-%m-%dT%H} to "
                    f"{self.last:%Y-%m-%dT%H} every {self.every_hours} h makes {count}; bring last nearer to first, or "
                    "raise every_hours"
                )
        return self
