"""List the Cases of a run: the forecasts to make, by initial time and member, and those that must be skipped."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import total_ordering
from typing import Final

import numpy as np

from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.spec import Task


@total_ordering
@dataclass(frozen=True)
class Case:
    """One forecast to make: the unit of work, retry, resume, logging and fault attribution.

    Cases are ordered by initial time, number of steps, step length, source, member and lag; a Case without a member
    comes before those with one.

    Attributes:
        init_time: initial time, UTC, a whole hour.
        steps: number of the model's steps.
        step_hours: hours that the model advances in one step.
        source: the dataset file that holds the initial state; empty where one archive holds them all.
        member: number of the ensemble member, from 0; None for a forecast that belongs to no ensemble.
        lag_steps: how many steps before its initial time the forecast starts, as members of a lagged ensemble do; the
            frames up to the initial time are not kept.

    Raises:
        ValueError: ``member`` is negative.
    """

    init_time: np.datetime64
    steps: int
    step_hours: int
    source: str = ""
    member: int | None = None
    lag_steps: int = 0

    def __post_init__(self) -> None:
        if self.member is not None and self.member < 0:
            raise ValueError(f"the member of a Case must be 0 or more, but is {self.member}; count members from 0")

    def __lt__(self, other: object) -> bool:
        return self._order < other._order if isinstance(other, Case) else NotImplemented

    @property
    def key(self) -> str:
        """Name of the Case in file names, logs and tables: ``2020-01-01T06``, or ``2020-01-01T06-m007`` of a member."""
        return case_key(self.init_time, self.member)

    @property
    def computed(self) -> "Case":
        """The forecast that is computed for this Case: with a lag one that starts earlier and is longer."""
        if not self.lag_steps:
            return self
        lag = np.timedelta64(self.lag_steps * self.step_hours, "h")
        return replace(self, init_time=self.init_time - lag, steps=self.steps + self.lag_steps, lag_steps=0)

    @property
    def hours(self) -> int:
        """Lead time of the last frame, in hours."""
        return self.steps * self.step_hours

    @property
    def lead_times(self) -> np.ndarray[tuple[int], np.dtype[np.timedelta64]]:
        """Lead times of the frames: (steps,) timedelta64[h]."""
        return np.arange(1, self.steps + 1) * np.timedelta64(self.step_hours, "h")

    @property
    def _order(self) -> tuple[np.datetime64, int, int, str, int, int]:
        member = -1 if self.member is None else self.member
        return self.init_time, self.steps, self.step_hours, self.source, member, self.lag_steps


def case_key(init_time: np.datetime64, member: int | None = None) -> str:
    """Return the `Case.key` of the Case of an initial time and a member."""
    hour = str(init_time.astype("datetime64[h]"))
    return hour if member is None else f"{hour}-m{member:03d}"


CASE_KEY: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2})(?:-m([0-9]{3,}))?")
"""A `Case.key`: the hour of the initial time, and the number of the member if there is one."""


def parse_key(key: str) -> tuple[np.datetime64, int | None]:
    """Return the initial time, datetime64[h], and the number of the member in a `Case.key`.

    Raises:
        ValueError: ``key`` is not the key of a Case.
    """
    match = CASE_KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"the key of a Case must look like 2020-01-01T06 or 2020-01-01T06-m007, but is {key!r}")
    return np.datetime64(match[1], "h"), None if match[2] is None else int(match[2])


def plan_times(times: TimesConfig) -> list[np.datetime64]:
    """Return the initial times that a configuration asks for, ascending.

    Returns:
        datetime64[h] values.

    Raises:
        ConfigError: `hours` and `exclude` leave no initial time.
    """
    excluded = frozenset(times.exclude)
    wanted: list[np.datetime64] = sorted(
        np.datetime64(time, "h")
        for time in (_regular(times) if times.list is None else times.list)
        if time not in excluded and (not times.hours or time.hour in times.hours)
    )
    if not wanted:
        raise ConfigError("times must leave at least one initial time, but hours and exclude leave none; widen them")
    return wanted


def plan_cases(
    init_times: Sequence[np.datetime64], steps: int, available: Collection[np.datetime64] | None, task: Task
) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
    """Return the Cases for which an archive has the input frames, and the keys of the others, each with the reason.

    Args:
        init_times: initial times of the Cases.
        steps: number of the model's steps of each Case.
        available: times that the archive holds; None for an archive that holds every time.
        task: task of the model, with the number of input frames (the last is at the initial time) and their interval.

    Raises:
        ConfigError: none of the Cases can be made.
    """
    held = None if available is None else {time.astype("datetime64[s]") for time in available}
    cases, skipped = [], []
    for init_time in init_times:
        case = Case(init_time, steps, task.step_hours)
        needed = [init_time - n * task.step for n in reversed(range(task.input_frames))]
        lacking = [time for time in needed if held is not None and time.astype("datetime64[s]") not in held]
        if lacking:
            skipped.append((case.key, f"the archive lacks {', '.join(str(time) for time in lacking)}"))
        else:
            cases.append(case)
    if not cases:
        raise ConfigError(
            f"none of the {len(init_times)} initial times can be run; the first: {skipped[0][0]}: {skipped[0][1]}"
        )
    return tuple(cases), tuple(skipped)


def _regular(times: TimesConfig) -> Iterator[datetime]:
    assert times.first is not None
    assert times.last is not None
    assert times.every_hours is not None
    every = timedelta(hours=times.every_hours)
    return (times.first + n * every for n in range((times.last - times.first) // every + 1))
