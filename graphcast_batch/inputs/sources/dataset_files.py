"""Read Cases, their inputs and their truth from GraphCast dataset files.

Format of the files that DeepMind published with GraphCast: dimensions batch (1), time (since the first frame), lat,
lon, level, with the absolute times in the coordinate datetime (batch, time).
"""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import ConfigError, GridError, InputError, InputNotFoundError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.case_inputs import (
    CaseInputs,
    findings,
    input_times,
    read_held,
    read_inputs,
    read_truth,
)
from graphcast_batch.inputs.findings import Finding, Stated
from graphcast_batch.inputs.formats.chunks import ReadCost, read_cost, stored
from graphcast_batch.inputs.formats.opening import open_data
from graphcast_batch.inputs.layouts.dialects import translation
from graphcast_batch.inputs.layouts.gridded import Contents, describe, positions, read_fields, same_points
from graphcast_batch.inputs.layouts.time_coordinates import check_dates
from graphcast_batch.inputs.provenance import Provenance, common, provenance
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task

_NAME: Final = re.compile(
    r"source-(?P<source>.+)_date-(?P<date>\d{4}-\d\d-\d\d)_res-(?P<resolution>\d+(\.\d+)?)"
    r"_levels-(?P<levels>\d+)_steps-(?P<steps>\d+)\.nc"
)
_FRAMES_BEFORE_STEPS: Final = 2
"""The published files count as steps what follows two input frames."""


@dataclass(frozen=True)
class DatasetName:
    """What the name of a dataset file says of its content.

    Attributes:
        source: where the data come from, such as ``era5``.
        date: day of the first frame.
        resolution: degrees.
        levels: number of pressure levels.
        steps: number of frames after the first two.
    """

    source: str
    date: date
    resolution: float
    levels: int
    steps: int


def parse_dataset_name(name: str) -> DatasetName | None:
    """Reads a name like ``source-era5_date-2022-01-01_res-1.0_levels-13_steps-04.nc``; None for any other name."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    with suppress(ValueError):  # a date that is in no calendar
        return DatasetName(
            source=match["source"],
            date=date.fromisoformat(match["date"]),
            resolution=float(match["resolution"]),
            levels=int(match["levels"]),
            steps=int(match["steps"]),
        )
    return None


class DatasetFiles:
    """The dataset files that a pattern matches; the first that can be read and fits the weights decides the grid.

    Raises:
        InputNotFoundError: nothing matches.
    """

    def __init__(
        self,
        pattern: str,
        resolution: float = 0.0,
        per_file: Literal["first", "all"] = "first",
        names: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> None:
        """Finds the files.

        Args:
            pattern: a glob.
            resolution: that the weights were trained for, degrees; 0 for any.
            per_file: whether a file's first frames make a Case, or each time of it that has the frames before.
            names: theirs to ours, where they are others than GraphCast's.
            units: by our names or ``level``, where the files are silent or wrong.
        """
        self.origin = pattern
        self._resolution = resolution
        self._per_file = per_file
        self._names, self._units = names or {}, units or {}
        self.paths = _matches(pattern)
        self._files: dict[Path, _DatasetFile] = {}

    @property
    def grid(self) -> Grid:
        """The points of every file."""
        return self._first.grid

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of every variable of the first file, in our names, without batch."""
        return self._first.dims

    @property
    def levels(self) -> tuple[int, ...]:
        """Pressure levels of the first file, hPa, ascending."""
        return self._first.levels

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        """(time,) datetime64[ns] times of all frames of the files that can be read on the common grid, ascending."""
        return np.unique(np.concatenate([file.times for file in self._alike]))

    def cases(self, steps: int, task: Task) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
        """The Cases of the files, ascending, and the files that cannot be run, each with the reason.

        Args:
            steps: number of 6 h steps of every Case.
            task: says how many frames go in, and which variables and levels must be there.

        Raises:
            InputError: no file is left.
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
        """Reads what a Case of one of these files starts from.

        Raises:
            InputError: the file lacks something, contradicts its name, has another grid or cannot be read.
        """
        file = self._file(Path(case.source))
        stated = {name: Stated(unit) for name, unit in file.units.items()}
        return replace(read_inputs(file, case, task), stated=stated)

    def findings(self, case: Case, task: Task) -> list[Finding]:
        """Why its file cannot start a Case, told from coordinates alone; empty when it can."""
        return findings(self._file(Path(case.source)), case, task)

    def held(self, case: Case, task: Task) -> xr.Dataset:
        """What its file has of the input variables of a Case that it cannot start.

        Raises:
            InputError: the file cannot be read.
        """
        return read_held(self._file(Path(case.source)), case, task)

    def times_of(self, names: Sequence[str]) -> NDArray[np.datetime64]:
        """(time,) datetime64[ns] times of all frames: a file holds every variable at each of its times."""
        return self.times

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """What really came, as far as the Case's file holds it; see `read_truth`."""
        return read_truth(self._file(Path(case.source)), case, names, levels)

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Fields at times that may lie in several files; of a time in two files, the first file's."""
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
        """What reading the inputs of one Case takes, told from the chunks of its file."""
        return self._file(Path(case.source)).cost(case, task)

    @property
    def spoken(self) -> str:
        """What the files are, for people."""
        return f"{len(self.paths)} GraphCast dataset files"

    @property
    def changes(self) -> Mapping[str, str]:
        """What is done to the data on their way, for people: by what is changed."""
        units, data, moved = self._first.units, str(self.provenance), max(file.moved_seconds for file in self._alike)
        found = {"data": data} if data else {}
        if units:
            found["converted"] = ", ".join(f"{name} from {unit}" for name, unit in units.items())
        if moved:
            found["rounded"] = f"times by up to {moved:.2g} s, to whole minutes"
        return found

    @property
    def provenance(self) -> Provenance:
        """Whose data they are, as far as the first file or the names of the others say."""
        return common([self._first.provenance, *(provenance({}, (), path.name) for path in self.paths)])

    @cached_property
    def _first(self) -> "_DatasetFile":
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
    def _alike(self) -> list["_DatasetFile"]:
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

    def _file(self, path: Path) -> "_DatasetFile":
        file, first = self._opened(path), self._first
        if not same_points(file.grid, first.grid):
            raise InputError(
                f"all dataset files of a run must have one grid, but {first.origin} has {first.grid} and {file.origin} "
                f"has {file.grid}; run them apart"
            )
        return file

    def _opened(self, path: Path) -> "_DatasetFile":
        if path not in self._files:
            file = _DatasetFile(path, self._names, self._units)
            if not file.grid.fits(self._resolution):
                raise InputError(
                    f"{path} must be on a grid of {self._resolution:g}°, which the weights were trained for, but is on "
                    f"{file.grid}; give weights for this resolution, or leave the file out"
                )
            self._files[path] = file
        return self._files[path]


class _DatasetFile:
    """One file as a timeline."""

    def __init__(self, path: Path, names: Mapping[str, str], units: Mapping[str, str]) -> None:
        self.origin = str(path)
        self._path = path
        with open_data(self.origin) as dataset:
            absolute = _on_absolute_times(dataset, path)
            self._translation = translation(absolute, self.origin, "graphcast", names, units)
            self._contents = describe(self._translation.apply(absolute), self.origin, self._translation.conversions)
            self.provenance = provenance(dataset.attrs, (), path.name)
            named = self._translation.rename(absolute)
            self._stored = {str(name): stored(array.variable) for name, array in named.data_vars.items()}
        _check_name(path, self._contents)

    @property
    def grid(self) -> Grid:
        return self._contents.grid

    @property
    def times(self) -> NDArray[np.datetime64]:
        return self._contents.times

    @property
    def levels(self) -> tuple[int, ...]:
        return self._contents.levels

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return self._contents.dims

    def times_of(self, names: Sequence[str]) -> NDArray[np.datetime64]:
        return self.times

    @property
    def units(self) -> Mapping[str, str]:
        return self._translation.units

    @property
    def moved_seconds(self) -> float:
        return self._contents.moved_seconds

    def cost(self, case: Case, task: Task) -> ReadCost:
        names = {*task.input_variables, *task.forcing_variables} & self._stored.keys()
        times = input_times(case.init_time, task)
        where = positions(self._contents, times, task.pressure_levels)
        return read_cost({name: self._stored[name] for name in sorted(names)}, where)

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        with open_data(self.origin) as dataset:
            absolute = self._translation.apply(_on_absolute_times(dataset, self._path))
            return read_fields(absolute, self._contents, names, times, levels)


def _matches(pattern: str) -> tuple[Path, ...]:
    # Taken as it stands first: a name may hold brackets.
    found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise InputNotFoundError(
            f"the pattern {pattern} must match GraphCast dataset files, but matches nothing "
            f"(working directory: {os.getcwd()}); correct inputs.path"
        )
    return tuple(Path(path) for path in found)


def _on_absolute_times(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    """The dataset without batch, with datetime as its time."""
    if dataset.sizes.get("batch", 1) != 1:
        raise InputError(
            f"the dimension batch of {path} must have size 1, but has {dataset.sizes['batch']}; "
            "write each forecast's frames into a file of its own"
        )
    if "datetime" not in dataset.variables or "time" not in dataset.dims:
        raise InputError(
            f"{path} must have the dimension time and the coordinate datetime (batch, time), but has the dimensions "
            f"{', '.join(map(str, dataset.dims)) or 'none'} and the coordinates "
            f"{', '.join(map(str, dataset.coords)) or 'none'}; if its times are absolute, use inputs.kind: archive"
        )
    single = dataset.isel(batch=0) if "batch" in dataset.dims else dataset
    times = single["datetime"]
    if times.dims != ("time",):
        raise InputError(
            f"the coordinate datetime of {path} must hold a date for each batch and time, but has the dimensions "
            f"{', '.join(map(str, dataset['datetime'].dims)) or 'none'}; give it those"
        )
    check_dates(times.variable, "datetime", str(path))
    absolute = single.drop_vars(["batch", "datetime"], errors="ignore")
    return absolute.assign_coords(time=times.values.astype("datetime64[ns]"))


def _init_time(file: _DatasetFile, task: Task) -> np.datetime64:
    """Time of the last of the input frames, datetime64[h]."""
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


def _init_times(file: _DatasetFile, task: Task) -> list[np.datetime64]:
    """Every time, datetime64[h], that is a whole hour and has the frames before it that go in."""
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


def _check_name(path: Path, contents: Contents) -> None:
    name = parse_dataset_name(path.name)
    if name is None or not contents.times.size:
        return
    first = contents.times[0].astype("datetime64[D]").astype(date)
    steps = contents.times.size - _FRAMES_BEFORE_STEPS
    parts = (
        ("date", name.date, first, name.date != first),
        ("res", name.resolution, contents.grid.resolution, abs(name.resolution - contents.grid.resolution) > 1e-3),
        ("levels", name.levels, len(contents.levels), name.levels != len(contents.levels)),
        ("steps", name.steps, steps, name.steps != steps),
    )
    wrong = [f"{part} is {said} in the name and {found} in the file" for part, said, found, differ in parts if differ]
    if wrong:
        raise InputError(f"the name of {path} contradicts its content: {'; '.join(wrong)}; rename or replace the file")
