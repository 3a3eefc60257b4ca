"""Check the section ``ensemble`` of a config: the members that are made of each initial time."""

import glob
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Strict, model_validator

from graphcast_batch.config.field_types import File, absolute_path
from graphcast_batch.config.perturbations_section import BredPerturbations, Perturbations
from graphcast_batch.spec import FrozenModel


def _read_checkpoints(value: object) -> object:
    """Replace globs by the files that they match, so that the copy of the config in the store names each file."""
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple) or not all(isinstance(each, str | Path) for each in patterns):
        raise ValueError(f"give a list of checkpoint files, or a glob such as params/*.npz, not {value!r}")
    return [path for pattern in patterns for path in _matched(str(pattern))]


def _matched(pattern: str) -> list[str]:
    if not glob.has_magic(pattern) or os.path.exists(absolute_path(pattern)):  # a name may have brackets
        return [pattern]
    found = sorted(glob.glob(absolute_path(pattern)))
    if not found:
        raise ValueError(f"there must be a file at {pattern}, but there is none; give the paths of the checkpoints")
    return found


def _begin_with_zero(hours: tuple[int, ...]) -> tuple[int, ...]:
    if not hours or hours[0] != 0 or min(hours) < 0 or len(set(hours)) < len(hours):
        raise ValueError(
            f"lags are hours before the initial time, each named once, of which the first is 0, but are {[*hours]}; "
            "give them like [0, 6, 12]"
        )
    return hours


class LaggedConfig(FrozenModel):
    """Forecasts from earlier initial times, as further members that are valid at the same times."""

    hours: Annotated[tuple[int, ...], Strict(False), AfterValidator(_begin_with_zero)]
    """Hours before the initial time at which members start; 0 comes first. Each is a multiple of the model's step."""


class MemberParts(NamedTuple):
    """What a member is made of.

    Attributes:
        lag: hours before the initial time at which its forecast starts.
        checkpoint: number of the checkpoint in the list, from 0; 0 without a list.
        perturbation: number of the perturbed initial state, from 0; None for the state as it is.
    """

    checkpoint: int
    perturbation: int | None
    lag: int


class EnsembleConfig(FrozenModel):
    """Members of an ensemble: forecasts of each initial time by several checkpoints, from several states and times."""

    checkpoints: Annotated[
        tuple[File, ...], Strict(False), BeforeValidator(_read_checkpoints, json_schema_input_type=str | list[str])
    ] = ()
    """Checkpoint files of one architecture and task: a list of paths or globs, or one glob; in place of
    ``model.weights``."""
    perturbations: Perturbations | None = None
    """Perturbations of the initial states; by default each member starts from the initial state as it is."""
    lagged: LaggedConfig = LaggedConfig(hours=(0,))
    """Earlier initial times from which further members start; by default none."""
    combine: Literal["product", "zip"] = "product"
    """How members are made of checkpoints and perturbed states: ``product`` is each checkpoint from each state;
    ``zip`` is the first checkpoint from the first state, the second from the second, and so on. All of them start
    with each lag."""
    control: bool = False
    """Whether member 0 is the forecast of the first checkpoint from the state as it is; the others follow it."""

    @model_validator(mode="after")
    def _has_members(self) -> Self:
        if not self.checkpoints and self.perturbations is None and len(self.lagged.hours) < 2:
            raise ValueError("an ensemble needs checkpoints, perturbations or lagged hours, but has none of them")
        if self.control and self.perturbations is None:
            raise ValueError("control: true needs perturbations, without which no member is perturbed; leave it out")
        twice = sorted(str(path) for path, count in Counter(self.checkpoints).items() if count > 1)
        if twice:
            raise ValueError(f"checkpoints must name each file once, but name {', '.join(twice)} again")
        if self.combine == "zip":
            states = 0 if self.perturbations is None else self.perturbations.members
            if not self.checkpoints or len(self.checkpoints) != states:
                raise ValueError(
                    f"combine: zip needs as many checkpoints as perturbed states, but has {len(self.checkpoints)} "
                    f"checkpoints and {states} states; set ensemble.perturbations.members, or combine: product"
                )
        return self

    @property
    def size(self) -> int:
        """Number of members of each initial time."""
        return self.control + self._with_each_lag * len(self.lagged.hours)

    @property
    def start_hours(self) -> tuple[int, ...]:
        """How long before an initial time forecasts start that are made for its members, in hours; 0 comes first."""
        if not isinstance(self.perturbations, BredPerturbations):
            return tuple(sorted(self.lagged.hours))
        cycles = [cycle * self.perturbations.cycle_hours for cycle in range(self.perturbations.cycles + 1)]
        return tuple(sorted({lag + hours for lag in self.lagged.hours for hours in cycles}))

    def parts_of(self, number: int) -> MemberParts:
        """Return what the member of a number is made of.

        The lag changes slowest, then in a product the perturbed state, so that more of them add members after those
        that there are.

        Args:
            number: number of the member, from 0; less than `size`.
        """
        if self.control and number == 0:
            return MemberParts(0, None, 0)
        lag, place = divmod(number - self.control, self._with_each_lag)
        if self.combine == "zip":
            return MemberParts(place, place, self.lagged.hours[lag])
        state, checkpoint = divmod(place, len(self.checkpoints) or 1)
        return MemberParts(checkpoint, None if self.perturbations is None else state, self.lagged.hours[lag])

    @property
    def _with_each_lag(self) -> int:
        """Number of members that start with one lag, without the control."""
        states = 1 if self.perturbations is None else self.perturbations.members
        return states if self.combine == "zip" else (len(self.checkpoints) or 1) * states
