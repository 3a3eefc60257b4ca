"""Find the Cases that GraphCast dataset files hold, and read their inputs and truth."""

import glob
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import ConfigError, GridError, InputError, InputNotFoundError
from graphcast_batch.grid import Grid, same_points
from graphcast_batch.inputs.case_inputs import (
    CaseInputs,
    findings,
    read_held,
    read_inputs,
    read_truth,
)
from graphcast_batch.inputs.findings import Finding, Stated
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.inputs.provenance import Provenance, common, provenance
from graphcast_batch.inputs.sources.dataset_file import DatasetFile
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task


class DatasetFiles:
    """The dataset files that a pattern matches.

    All files must have the grid of the first file that can be read and fits the weights.

    Attributes:
        origin: the pattern, for messages.
        paths: paths of the files.

    Raises:
        InputNotFoundError: no file matches.
    """

    def __init__(
        self,
        pattern: str,
        resolution: float = 0.0,
        per_file: Literal["first", "all"] = "first",
        names: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> None:
        """Find the files.

        Args:
            pattern: path of a file, or a glob.
            resolution: spacing of the grid that the weights were trained for, in degrees; 0 for any.
            per_file: ``first`` for one Case of each file, from its first frames; ``all`` for a Case at each time that
                has the input frames before it.
            names: the model's names of variables, by their names in the files.
            units: units by the model's names or ``level``, which take precedence over those of the files.
        """
        self.origin = pattern
        self._resolution = resolution
        self._per_file = per_file
        self._names, self._units = names or {}, units or {}
        self.paths = _matches(pattern)
        self._files: dict[Path, DatasetFile] = {}

    @property
    def grid(self) -> Grid:
        """Grid of every file."""
        return self._first.grid

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of every variable of the first file, in the model's names, without batch."""
        return self._first.dims

    @property
    def levels(self) -> tuple[int, ...]:
        """Pressure levels of the first file, hPa, ascending."""
        return self._first.levels

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        """Times of all frames of the files that can be read and have the common grid; (time,) datetime64[ns]."""
        return np.unique(np.concatenate([file.times for file in self._alike]))

    def cases(self, steps: int, task: Task) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
        """Return the Cases of the files, ascending, and the names of files that cannot be run, each with the reason.

        Args:
            steps: number of the model's steps of every Case.
            task: task of the model, with the number of input frames, the variables and the levels.

        Raises:
            InputError: none of the files can be run.
            ConfigError: two files have the same initial time.
        """
        cases: dict[np.datetime64, Case] = {}
        skipped: list[tuple[str, str]] = []
        for path in self.paths:
            try:
                of_file = self._cases(path, steps, task)
            except (InputError, GridError) as error:
                skipped.append((path.name, str(error)))
                continue
            for case in of_file:
                _check_unique(case, cases)
                cases[case.init_time] = case
        if not cases:
            raise InputError(
                f"none of the {len(self.paths)} dataset files of {self.origin} can be run; the first: {skipped[0][1]}"
            )
        return tuple(sorted(cases.values())), tuple(skipped)

    def read(self, case: Case, task: Task) -> CaseInputs:
        """Read the input frames and forcings of a Case.

        Raises:
            InputError: the file of the Case lacks a field, contradicts its name, has another grid or cannot be read.
        """
        file = self._file(Path(case.source))
        stated = {name: Stated(unit) for name, unit in file.units.items()}
        return replace(read_inputs(file, case, task), stated=stated)

    def findings(self, case: Case, task: Task) -> list[Finding]:
        """Return the reasons why its file cannot start a Case, found in its coordinates alone; empty if it can."""
        return findings(self._file(Path(case.source)), case, task)

    def held(self, case: Case, task: Task) -> xr.Dataset:
        """Read the input fields of a Case that an incomplete file holds; see `read_held`.

        Raises:
            InputError: the file cannot be read.
        """
        return read_held(self._file(Path(case.source)), case, task)

    def times_of(self, names: Sequence[str]) -> NDArray[np.datetime64]:
        """Return the times of all frames, (time,) datetime64[ns]: a file holds every variable at each of its times."""
        return self.times

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """Read the verifying analysis of a Case as far as its file holds it; see `read_truth`."""
        return read_truth(self._file(Path(case.source)), case, names, levels)

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Read fields at times that may lie in several files; a time that two files hold is read from the first."""
        left = np.unique(np.asarray(times, "datetime64[ns]"))
        parts = []
        for file in self._alike:
            here = left[np.isin(left, file.times)]
            if here.size:
                parts.append(file.fields(names, here, levels))
                left = left[~np.isin(left, here)]
        joined = xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="override")
        return joined.sel(time=times)

    def cost(self, case: Case, task: Task) -> ReadCost:
        """Return the cost of reading the inputs of one Case, computed from the chunks of its file."""
        return self._file(Path(case.source)).cost(case, task)

    @property
    def layout(self) -> str:
        """Number and layout of the files, as text."""
        return f"{len(self.paths)} GraphCast dataset files"

    @property
    def changes(self) -> Mapping[str, str]:
        """Changes that are made to the data when they are read, as rows of label and text."""
        units, data, moved = self._first.units, str(self.provenance), max(file.moved_seconds for file in self._alike)
        found = {"data": data} if data else {}
        if units:
            found["converted"] = ", ".join(f"{name} from {unit}" for name, unit in units.items())
        if moved:
            found["rounded"] = f"times by up to {moved:.2g} s, to whole minutes"
        return found

    @property
    def provenance(self) -> Provenance:
        """Provenance of the data, from the first file and the names of the others."""
        return common([self._first.provenance, *(provenance({}, (), path.name) for path in self.paths)])

    @cached_property
    def _first(self) -> DatasetFile:
        reasons = []
        for path in self.paths:
            try:
                return self._opened(path)
            except (InputError, GridError) as error:
                reasons.append(str(error))
        raise InputError(
            f"none of the {len(self.paths)} dataset files of {self.origin} can be read; the first: {reasons[0]}"
        )

    @cached_property
    def _alike(self) -> list[DatasetFile]:
        first, files = self._first, []
        for path in self.paths:
            with suppress(InputError, GridError):
                file = self._opened(path)
                if same_points(file.grid, first.grid):
                    files.append(file)
        return files

    def _cases(self, path: Path, steps: int, task: Task) -> list[Case]:
        file = self._file(path)
        init_times = _init_times(file, task) if self._per_file == "all" else [_init_time(file, task)]
        cases = [Case(init_time, steps, task.step_hours, str(path)) for init_time in init_times]
        problems = findings(file, cases[0], task)
        if problems:
            raise InputError(f"{path}: {'; '.join(map(str, problems))}")
        return cases

    def _file(self, path: Path) -> DatasetFile:
        file, first = self._opened(path), self._first
        if not same_points(file.grid, first.grid):
            raise InputError(
                f"all dataset files of a run must have one grid, but {first.origin} has {first.grid} and {file.origin} "
                f"has {file.grid}; run them apart"
            )
        return file

    def _opened(self, path: Path) -> DatasetFile:
        if path not in self._files:
            file = DatasetFile(path, self._names, self._units)
            if not file.grid.fits(self._resolution):
                raise InputError(
                    f"{path} must be on a grid of {self._resolution:g}°, which the weights were trained for, but is on "
                    f"{file.grid}; give weights for this resolution, or leave the file out"
                )
            self._files[path] = file
        return self._files[path]


def _matches(pattern: str) -> tuple[Path, ...]:
    # A path is not taken as a glob: the name of a file may hold brackets.
    found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise InputNotFoundError(
            f"the pattern {pattern} must match GraphCast dataset files, but matches nothing "
            f"(working directory: {os.getcwd()}); correct inputs.path"
        )
    return tuple(Path(path) for path in found)


def _init_time(file: DatasetFile, task: Task) -> np.datetime64:
    """Return the time of the last input frame, datetime64[h]."""
    times = file.times
    if times.size < task.input_frames:
        raise InputError(
            f"{file.origin} must hold the {task.input_frames} frames that go into the model, but holds {times.size}; "
            "add those before, or leave the file out"
        )
    if np.any(np.diff(times) != task.step):
        raise InputError(
            f"the frames of {file.origin} must be {task.step_hours} h apart, but are at "
            f"{', '.join(str(time.astype('datetime64[m]')) for time in times)}; select frames {task.step_hours} h apart"
        )
    init_time = times[task.input_frames - 1]
    hour = init_time.astype("datetime64[h]")
    if hour != init_time:
        raise InputError(f"{file.origin} must start at a whole hour, but starts at {init_time}; correct datetime")
    return np.datetime64(hour, "h")


def _init_times(file: DatasetFile, task: Task) -> list[np.datetime64]:
    """Return every time, datetime64[h], that is a whole hour and has the other input frames before it."""
    hours = file.times.astype("datetime64[h]")
    able = hours[hours == file.times]
    for back in range(1, task.input_frames):
        able = able[np.isin(able - back * task.step, hours)]
    if not able.size:
        raise InputError(
            f"{file.origin} must hold {task.input_frames} frames {task.step_hours} h apart that go into the model, "
            f"but its frames are at {', '.join(str(time.astype('datetime64[m]')) for time in file.times)}; add those "
            "before, or leave the file out"
        )
    return list(able)


def _check_unique(case: Case, cases: Mapping[np.datetime64, Case]) -> None:
    if case.init_time in cases:
        raise ConfigError(
            f"each dataset file must have an initial time of its own, but {cases[case.init_time].source} and "
            f"{case.source} both start at {case.key}; narrow inputs.path, or leave inputs.per_file at first"
        )
