"""Read the inputs and truth of any Case from files and stores of any known layout."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError, LayoutError
from graphcast_batch.grid import Grid, same_points
from graphcast_batch.inputs.case_inputs import CaseInputs, findings, input_times, read_held, read_inputs, read_truth
from graphcast_batch.inputs.findings import Finding, Stated
from graphcast_batch.inputs.formats.chunks import ReadCost, total_cost
from graphcast_batch.inputs.formats.named_files import named_files, passed_over
from graphcast_batch.inputs.layouts.dialects import ACCUMULATED, DIALECTS, SUMMED
from graphcast_batch.inputs.layouts.regridding import Method, Regridder
from graphcast_batch.inputs.layouts.units import LEVEL
from graphcast_batch.inputs.provenance import Provenance, common
from graphcast_batch.inputs.sources.joining import check_overlaps, check_single, join_fields
from graphcast_batch.inputs.sources.precipitation import Precipitation
from graphcast_batch.inputs.sources.shares import Share, Shares
from graphcast_batch.inputs.sources.static_fields import check_same, fixed_fields
from graphcast_batch.inputs.sources.volumes import Reading, Volume
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.variables import DIMS_OF_KIND, VARIABLES

_LOG: Final = logging.getLogger(__name__)
_HOURS: Final = {"toa_incident_solar_radiation": frozenset([1.0])}
"""Lengths of the time windows, in hours, of summed variables that the model reads, except precipitation."""


class Archive:
    """Fields at absolute times, on one grid, from one or many files and stores.

    A variable without time is read from ``statics``, or else must be equal in every file that holds it. Coordinates
    and metadata of the files are read once; a file is open only while it is read.

    Attributes:
        origin: the paths, for messages.
        grid: grid of the fields, after regridding.
        levels: pressure levels that every file with levels holds, hPa, ascending.
        dims: dimensions of every variable, in the model's names, with precipitation over 6 h if it can be computed.
        time_chunk: largest number of times in a chunk.

    Raises:
        InputNotFoundError: there are no data at a path.
        InputError: a file cannot be read, or two files contradict each other.
        GridError: the points do not form a global grid, or one that cannot be regridded.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str],
        reading: Reading | None = None,
        needed: Iterable[str] = (),
        regrid: tuple[Method, float] | None = None,
        statics: str | None = None,
        levels: Sequence[int] = (),
    ) -> None:
        """Read coordinates and metadata of all files.

        Args:
            paths: files, zarr stores, globs, folders of files, or addresses.
            reading: options for reading the files.
            needed: variables that `times` must have; empty for all variables of the archive.
            regrid: method and resolution in degrees; None to keep the grid.
            statics: an additional file, of which only fields without time are read, in preference to other files.
            levels: levels in hPa that `times` must have, as far as the archive holds them at any time; the archive's
                other levels are those that it holds at every time.
        """
        given = [str(paths)] if isinstance(paths, str | Path) else list(paths)
        self.origin = given[0] if len(given) == 1 else f"{given[0]} and {len(given) - 1} more"
        reading = reading or Reading()
        self.volumes = tuple(volume for path in given for volume in _volumes(path, reading))
        self.statics = Volume(statics, reading) if statics else None
        self._given: Mapping[str, tuple[str, ...]] = fixed_fields(self.statics) if self.statics else {}
        self._needed = frozenset(needed)
        self._shares = Shares(self.volumes)
        self._check_alike()
        check_single(self.volumes, self._needed)
        check_same(self.volumes, VARIABLES.keys() - self._given)
        self._precipitation = Precipitation(self.volumes, self.origin)
        self._regridder = self._regridding(regrid)
        self.grid: Grid = self._regridder.grid if self._regridder else self._stored_grid
        self.dims: Mapping[str, tuple[str, ...]] = self._dims()
        self.levels: tuple[int, ...] = self._levels(levels)
        chunks = (part.time_chunk for volume in self.volumes for part in volume.stored.values())
        self.time_chunk = max(chunks, default=1)
        self._check_timed()
        self._check_alike_fields()
        for volume in self._all:
            for warning in volume.warnings:
                _LOG.warning("%s", warning)

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        """Times at which the archive holds all needed variables and levels, (time,) datetime64[ns], ascending."""
        wanted = self._needed or VARIABLES.keys()
        return self.times_of([name for name in self._moving if name in wanted] or self._moving)

    def times_of(self, names: Sequence[str]) -> NDArray[np.datetime64]:
        """Return the times at which the archive holds all of some variables, (time,) datetime64[ns], ascending."""
        held = [self._times_of(name) for name in names]
        times = held[0]
        for others in held[1:]:
            times = times[np.isin(times, others)]
        return times

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Read variables, times and levels that the archive holds.

        Raises:
            InputError: a file cannot be read, or precipitation is not accumulated as data or configuration state.
        """
        made = any(map(self._is_summed, names))
        found = self._stored([name for name in names if not (made and name == SUMMED)], times, levels)
        if made:
            found = found.assign({SUMMED: (DIMS_OF_KIND["surface"], self._precipitation.read(times))})
        return self._regridder.regrid(found) if self._regridder else found

    def read(self, case: Case, task: Task) -> CaseInputs:
        """Read the input frames and forcings of a Case.

        Raises:
            InputError: the archive lacks a variable, level or time, or cannot be read.
        """
        return replace(read_inputs(self, case, task), stated=self.stated)

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """Read the verifying analysis of a Case as far as the archive holds it; see `read_truth`."""
        return read_truth(self, case, names, levels)

    def findings(self, case: Case, task: Task) -> list[Finding]:
        """Return the reasons why the archive cannot start a Case, found in coordinates alone; empty if it can."""
        found = [self._with_levels(one) for one in findings(self, case, task)]
        if SUMMED not in self.dims or not self._precipitation.is_made:
            return found
        return [replace(one, remedy=self._precipitation.remedy) if one.variable == SUMMED else one for one in found]

    def held(self, case: Case, task: Task) -> xr.Dataset:
        """Read the input fields of a Case that the incomplete archive holds; see `read_held`.

        Raises:
            InputError: the archive cannot be read.
        """
        return read_held(self, case, task)

    def cost(self, case: Case, task: Task) -> ReadCost | None:
        """Return the cost of reading the inputs of one Case, computed from the chunks; None if the archive has none."""
        times = input_times(case.init_time, task)
        names = {*task.input_variables, *task.forcing_variables} & self.dims.keys()
        summed = any(map(self._is_summed, names))
        parts = self._costs(sorted(names - {SUMMED} if summed else names), times, task.pressure_levels)
        if summed:
            parts += self._precipitation.costs(times)
        return total_cost(parts) if parts else None

    @property
    def layout(self) -> str:
        """Layouts of the files, as text."""
        titles = [DIALECTS[volume.translation.dialect].title for volume in self._all]
        counts = {title: titles.count(title) for title in titles}
        return ", ".join(title if count == 1 else f"{count} x {title}" for title, count in counts.items())

    @property
    def changes(self) -> Mapping[str, str]:
        """Changes that are made to the data when they are read, as rows of label and text."""
        units = self._units
        found = {"data": str(self.provenance)} if str(self.provenance) else {}
        recognized = {old: new for volume in self._all for old, new in volume.translation.recognized.items()}
        if recognized:
            found["by standard name"] = ", ".join(f"{new} is {old}" for old, new in recognized.items())
        if units:
            found["converted"] = ", ".join(f"{name} from {unit}" for name, unit in units.items())
        if self._precipitation.is_made and self._precipitation.is_known:
            found["summed up"] = f"{SUMMED} of {ACCUMULATED}: {self._precipitation.made}"
        odd = sorted({level for volume in self._all for level in volume.contents.odd_levels})
        if odd:
            found["left out"] = f"levels of no whole hPa: {', '.join(f'{level:g}' for level in odd)}"
        moved = max(volume.contents.moved_seconds for volume in self._all)
        if moved:
            found["rounded"] = f"times by up to {moved:.2g} s, to whole minutes"
        if self._regridder:
            found["regridded"] = f"from {self._stored_grid} by {self._regridder.method}"
        return found

    @property
    def stated(self) -> Mapping[str, Stated]:
        """Units that the data were converted from, and names of variables in ``inputs.units``, by variable."""
        units = self._units
        found = {name: Stated(unit) for name, unit in units.items()}
        if any(ACCUMULATED in volume.translation.names.values() for volume in self.volumes):
            found[SUMMED] = Stated(units.get(ACCUMULATED, ""), ACCUMULATED)
        return found

    @property
    def provenance(self) -> Provenance:
        """Provenance of the data, from the files that have times."""
        return common([volume.provenance for volume in self.volumes if volume.contents.times.size])

    @property
    def _all(self) -> tuple[Volume, ...]:
        return (self.statics, *self.volumes) if self.statics else self.volumes

    @property
    def _units(self) -> dict[str, str]:
        """Units of variables that are converted, by variable, from the files that the variable is read from."""
        return {
            name: unit
            for volume in self._all
            for name, unit in volume.translation.units.items()
            if (name in self._given) == (volume is self.statics)
        }

    def _with_levels(self, finding: Finding) -> Finding:
        """Add to a finding the levels that a variable lacks at a time at which it has others."""
        moving = [name for name in finding.variable.split(", ") if "time" in self.dims.get(name, ())]
        if finding.time is None or not moving:
            return finding
        absent = {name: self._shares.missing_levels(name, finding.time, self.levels) for name in moving}
        lacking = [f"{name} on {levels} hPa" for name, levels in absent.items() if levels]
        return replace(finding, found=f"{finding.found}: then it lacks {', '.join(lacking)}") if lacking else finding

    def _dims(self) -> dict[str, tuple[str, ...]]:
        held = [(name, found) for volume in self.volumes for name, found in volume.contents.dims.items()]
        dims = dict(self._given)
        for name, found in sorted(
            held, key=lambda one: "time" in one[1]
        ):  # a variable without time in one file has none in any
            dims.setdefault(name, found)
        wanted = SUMMED in self._needed or not self._needed
        if self._precipitation.is_made and (wanted or self._precipitation.is_known):
            dims[SUMMED] = DIMS_OF_KIND["surface"]
        return {name: found for name, found in dims.items() if name not in self._mixed}

    @cached_property
    def _mixed(self) -> frozenset[str]:
        """Variables that GRIB messages sum or average over windows of several lengths, or a length that is not used."""
        hours: dict[str, frozenset[float]] = {}
        for volume in self._all:
            for name, found in volume.periods.items():
                hours[name] = hours.get(name, frozenset()) | found
        mixed = {
            name: found
            for name, found in hours.items()
            if name not in (ACCUMULATED, SUMMED) and found != _HOURS.get(name, frozenset([min(found)]))
        }
        for name, found in mixed.items():
            one = f"{min(_HOURS[name]):g} h" if name in _HOURS else "one length"
            _LOG.warning(
                "%s of %s must cover periods of %s, but covers %s h and is left out; select fields with grib_copy -w",
                *(name, self.origin, one, ", ".join(f"{length:g}" for length in sorted(found))),
            )
        return frozenset(mixed)

    def _regridding(self, wanted: tuple[Method, float] | None) -> Regridder | None:
        if wanted is None or self._stored_grid.fits(wanted[1]):
            return None
        return Regridder(self._stored_grid, wanted[1], wanted[0])

    @property
    def _moving(self) -> list[str]:
        return [name for name, dims in self.dims.items() if "time" in dims]

    def _check_timed(self) -> None:
        if not self._moving:
            raise InputError(
                f"{self.origin} must hold a variable that changes with time, but has only "
                f"{', '.join(sorted(self.dims)) or 'none'} without; give files of the run's times, beside which "
                "inputs.statics may name a file of constant fields"
            )
        if not any(self._times_of(name).size for name in self._moving):
            sums = f" at which {SUMMED} can be made" if self._is_summed(SUMMED) else ""
            remedy = self._precipitation.remedy if sums else "give files of the run's times"
            raise InputError(f"{self.origin} must hold at least one time, but holds none{sums}; {remedy}")

    def _levels(self, wanted: Sequence[int]) -> tuple[int, ...]:
        """Return the levels that all needed variables with levels have; if none is needed, all known variables."""
        on_levels = [name for name, dims in self.dims.items() if {"time", LEVEL} <= set(dims)]
        known = [name for name in on_levels if name in VARIABLES] or on_levels
        held = [self._shares.levels(name, wanted) for name in ([n for n in known if n in self._needed] or known)]
        return tuple(sorted(set.intersection(*held))) if held else ()

    def _check_alike(self) -> None:
        first = self.volumes[0]
        for volume in self._all:
            if not same_points(volume.contents.grid, first.contents.grid):
                raise InputError(
                    f"all files of an archive must have one grid, but {first.origin} has {first.contents.grid} and "
                    f"{volume.origin} has {volume.contents.grid}; regrid one, or run them apart"
                )

    def _check_alike_fields(self) -> None:
        """Compare fields of needed variables that two files hold; `_split` compares others when they are read."""
        for name in [name for name in self._moving if name in self._needed] or self._moving:
            if not self._is_summed(name):
                self._shares.times(name, ())
        check_overlaps(self._shares.new_overlaps())

    def _is_summed(self, name: str) -> bool:
        return name == SUMMED and self._precipitation.is_made

    def _times_of(self, name: str) -> NDArray[np.datetime64]:
        return self._precipitation.times if self._is_summed(name) else self._shares.times(name, self.levels)

    def _stored(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Read fields on the grid of the files, from as many files as are needed."""
        wanted = np.asarray(times, "datetime64[ns]")
        parts: dict[str, list[xr.DataArray]] = {name: [] for name in names}
        for share in self._split(names, wanted, levels):
            fields = share.volume.fields(share.names, share.times, share.levels)
            for name in share.names:
                parts[name].append(fields[name])
        coords = {"time": wanted, "latitude": self._stored_grid.latitude, "longitude": self._stored_grid.longitude}
        joined = {name: self._joined(name, found, wanted, levels) for name, found in parts.items()}
        return xr.Dataset({name: array.drop_vars(coords, errors="ignore") for name, array in joined.items()}, coords)

    def _joined(
        self, name: str, parts: Sequence[xr.DataArray], times: NDArray[np.datetime64], levels: Sequence[int]
    ) -> xr.DataArray:
        if "time" not in self.dims[name]:
            return parts[0]
        complete, absent = join_fields(parts, times, levels) if parts else (None, times)
        if complete is None or absent.size:
            raise InputError(
                f"{self.origin} must hold {name} at all requested times, but lacks {_minutes(absent)}; add these times"
            )
        return complete

    @property
    def _stored_grid(self) -> Grid:
        return self.volumes[0].contents.grid

    def _split(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> list[Share]:
        """Return the variables, times and levels that are read from each file."""
        shares = []
        fixed = {name for name in names if "time" not in self.dims[name]}
        for volume in self._all:
            own = [name for name in fixed if name in volume.contents.dims and "time" not in volume.contents.dims[name]]
            if own:
                on = tuple(level for level in levels if level in volume.contents.levels)
                shares.append(Share(volume, sorted(own), times[:0], on))
                fixed -= set(own)
        shares += self._shares.split([name for name in names if "time" in self.dims[name]], times, levels)
        check_overlaps(self._shares.new_overlaps())
        for share in shares:
            self._check_dims(share)
        return shares

    def _check_dims(self, share: Share) -> None:
        """Check that a variable has the same dimensions in all files: broadcasting would repeat rows silently."""
        for name in share.names:
            found, expected = share.volume.contents.dims[name], self.dims[name]
            if set(found) != set(expected):
                raise InputError(
                    f"the variable {name} of {share.volume.origin} must have the dimensions {', '.join(expected)}, as "
                    f"in another file of the archive, but has {', '.join(found) or 'none'}; give it along the same in "
                    "all files, or leave this one out"
                )

    def _costs(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> list[ReadCost]:
        parts = self._split(names, times, levels)
        return [part.volume.cost(part.names, part.times, part.levels) for part in parts]


def _volumes(path: str, reading: Reading) -> list[Volume]:
    """Return the files that a path names; warn of files of a folder or glob that are passed over."""
    found = named_files(path)
    if found.passed_over:
        _LOG.warning("%s", passed_over(found))
    volumes, unknown = [], []
    for place in found.found:
        try:
            volumes.append(Volume(place, reading))
        except LayoutError as error:
            if found.chosen:
                raise
            unknown.append(error)
    if not volumes:
        raise unknown[0]
    for reason in unknown:
        _LOG.warning("passed over: %s", reason)
    return volumes


def _minutes(times: NDArray[np.datetime64]) -> str:
    return ", ".join(map(str, times.astype("datetime64[m]")))
