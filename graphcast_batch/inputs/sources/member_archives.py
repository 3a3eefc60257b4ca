"""Read the members of an analysis ensemble: an archive whose files hold them along a dimension, or one each."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.case_inputs import CaseInputs, input_times
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.inputs.formats.named_files import named_files
from graphcast_batch.inputs.formats.opening import open_data
from graphcast_batch.inputs.layouts.members import MEMBER, MEMBER_NAMES, member_numbers
from graphcast_batch.inputs.layouts.regridding import Method
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.volumes import Reading
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task

_MOST_LISTED: Final = 8
"""Largest number of members in a message."""


@dataclass(frozen=True, eq=False)
class MemberArchives:
    """The first members of an analysis ensemble, each an archive of its own.

    Attributes:
        origin: paths of the archive, for messages.
        numbers: numbers of all members that the archive holds at any time, ascending.
        members: archives of the first of them, in this order.
        task: task whose input variables are those that every member holds of its own, and that the model feeds back.
    """

    origin: str
    numbers: tuple[int, ...]
    members: tuple[Archive, ...]
    task: Task

    @property
    def names(self) -> tuple[str, ...]:
        """Variables that each member holds."""
        return self.task.input_variables

    def replaced(self, frames: xr.Dataset, place: int, init_time: np.datetime64) -> CaseInputs:
        """Read a member, and return input frames of which its variables are replaced; one thread at a time.

        Args:
            frames: input frames of the initial time, as `CaseInputs` holds them; they stay as they are.
            place: place of the member in `members`.
            init_time: initial time.

        Returns:
            The frames, without forcings, and the units that the data of the member were converted from.

        Raises:
            InputError: the archive lacks a level or a time, or cannot be read.
        """
        found = self.members[place].read(self._case(init_time), self.task)
        # Not the arrays with their coordinates: these may be rounded otherwise, and xarray would find no common point.
        fields = {name: found.frames[name].variable for name in self.names}
        stated = {name: unit for name, unit in found.stated.items() if name in fields}
        return CaseInputs(frames.assign(fields), xr.Dataset(), stated)

    def only(self, place: int) -> "MemberArchives":
        """Return one member alone, at the place 0."""
        return replace(self, numbers=self.numbers[place : place + 1], members=self.members[place : place + 1])

    def findings(self, init_time: np.datetime64) -> list[Finding]:
        """Return why members cannot start a forecast, found in coordinates alone; empty if all can."""
        found: dict[str, tuple[Finding, list[int]]] = {}
        for number, member in zip(self.numbers, self.members, strict=False):
            for finding in member.findings(self._case(init_time), self.task):
                found.setdefault(finding.found, (finding, []))[1].append(number)
        return [
            replace(finding, found=f"in {_listed(numbers)} of {self.origin} {text}")
            for text, (finding, numbers) in found.items()
        ]

    def hold(self, init_time: np.datetime64) -> bool:
        """Return whether every member has every variable at the input times of an initial time, on whatever levels."""
        return bool(np.isin(input_times(init_time, self.task), self._times).all())

    @cached_property
    def _times(self) -> NDArray[np.datetime64]:
        held = [member.times_of(self.names) for member in self.members]
        return functools.reduce(np.intersect1d, held)

    def cost(self, place: int, init_time: np.datetime64) -> ReadCost | None:
        """Return the cost of reading a member for one initial time; None if the archive has none.

        Args:
            place: place of the member in `members`.
            init_time: initial time.
        """
        return self.members[place].cost(self._case(init_time), self.task)

    def __str__(self) -> str:
        return f"{_listed(self.numbers[: len(self.members)])} of {self.origin}"

    def _case(self, init_time: np.datetime64) -> Case:
        return Case(init_time, 1, self.task.step_hours)


def open_members(
    paths: Sequence[str], count: int, reading: Reading, task: Task, regrid: tuple[Method, float] | None = None
) -> MemberArchives:
    """Open the first members of an analysis ensemble; reads coordinates and metadata of all files.

    Args:
        paths: files, zarr stores, globs, folders of files, or addresses; together they are the archive.
        count: number of members.
        reading: options for reading the files.
        task: task of the model.
        regrid: method and resolution in degrees; None to keep the grid.

    Raises:
        InputNotFoundError: there are no data at a path.
        InputError: a file cannot be read, the archive holds fewer members, or a member has no variable, or other
            variables than the first.
        GridError: the points do not form a global grid, or one that cannot be regridded.
    """
    origin = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    held = _files_of_members(paths, reading)
    numbers = tuple(sorted(held))
    _check_count(numbers, count, origin)
    fed_back = tuple(name for name in task.target_variables if name in task.input_variables)
    members = []
    for number in numbers[:count]:
        archive = Archive(held[number], replace(reading, member=number), fed_back, regrid, None, task.pressure_levels)
        archive.origin = f"the member {number} of {origin}"
        members.append(archive)
    names = _names_of_all(members, fed_back)
    # Such a task is not checked: it has no forcings, which stay those of the inputs.
    reduced = task.model_copy(update={"input_variables": names, "forcing_variables": ()})
    return MemberArchives(origin, numbers, tuple(members), reduced)


def _files_of_members(paths: Sequence[str], reading: Reading) -> dict[int, list[str]]:
    """Return the files that hold each member, by its number."""
    found: dict[int, list[str]] = {}
    for file in [file for path in paths for file in named_files(path).found]:
        with open_data(file, reading.access, "first") as opened:
            for number in member_numbers(opened, reading.names, file):
                found.setdefault(number, []).append(file)
    return found


def _check_count(numbers: Sequence[int], count: int, origin: str) -> None:
    if not numbers:
        raise InputError(
            f"{origin} must have a dimension of members ({', '.join(MEMBER_NAMES)}), but has none; map its own name "
            f"with inputs.names {{NAME: {MEMBER}}}, or give the archive of an ensemble"
        )
    if count > len(numbers):
        raise InputError(
            f"{origin} must hold {count} members, but holds {len(numbers)}: {_listed(numbers)}; set members: "
            f"{len(numbers)} or fewer, or add the others"
        )


def _names_of_all(members: Sequence[Archive], fed_back: Sequence[str]) -> tuple[str, ...]:
    """Return the variables that members hold, which must be the same for all of them."""
    names, *others = [tuple(name for name in fed_back if name in member.dims) for member in members]
    if not names:
        raise InputError(
            f"{members[0].origin} must hold a variable that the model feeds back ({', '.join(fed_back)}), but holds "
            f"{', '.join(sorted(members[0].dims)) or 'none'}; add one, or map its own name in inputs.names"
        )
    for member, found in zip(members[1:], others, strict=True):
        if differing := sorted(set(names) ^ set(found)):
            raise InputError(
                f"{member.origin} must hold the same variables as {members[0].origin}, but {', '.join(differing)} "
                f"{'is' if len(differing) == 1 else 'are'} in one of them only; add what is missing, or leave it out "
                "of all"
            )
    return names


def _listed(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) == 1:
        return f"the member {first}"
    if len(numbers) > 2 and last - first == len(numbers) - 1:
        return f"the members {first} to {last}"
    rest = f" and {len(numbers) - _MOST_LISTED} more" if len(numbers) > _MOST_LISTED else ""
    return f"the members {', '.join(map(str, numbers[:_MOST_LISTED]))}{rest}"
