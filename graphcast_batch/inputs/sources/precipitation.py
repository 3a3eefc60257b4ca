"""Compute the precipitation over 6 h from the precipitation sums that the files of an archive hold.

The sum over the 6 h before a time is one stored sum, or the total of several sums of one length that follow each other,
or the difference of two sums of one forecast that begin together and end 6 h apart. The sums of all files are searched
together, so that the result does not depend on how the archive is split into files.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.inputs.layouts.dialects import ACCUMULATED, SUM_HOURS, SUMMED
from graphcast_batch.inputs.layouts.windows import HOUR, Times, Windows
from graphcast_batch.inputs.sources.volumes import Volume
from graphcast_batch.inputs.sources.window_sums import Rows, Table, Way, ways_of

_ROUNDING: Final = 1e-5
"""Largest decrease of a sum with time that is taken for rounding, in m; fields may be packed in GRIB or netCDF."""
_PACKING: Final = 1e-3
"""Largest decrease that is taken for rounding, as a fraction of the largest value, in addition to `_ROUNDING`."""

_Part = tuple[Way, NDArray[np.intp], Rows]
"""A way to compute the sum, the indices of the times at which it is used, and (time, term) rows of the table."""


class Precipitation:
    """The precipitation of an archive over the 6 h before each time.

    Attributes:
        is_made: whether it is computed from sums, for some times at least, and not only read.
    """

    def __init__(self, volumes: Sequence[Volume], origin: str) -> None:
        """Collect the windows of the precipitation fields; no field is read.

        Args:
            volumes: files of the archive.
            origin: paths of the archive, for messages.
        """
        self._origin = origin
        self._sources = [(volume, windows) for volume in volumes for windows in volume.windows]
        if any(windows.name == SUMMED for _, windows in self._sources) and self._doubtful:
            self._sources = [(volume, windows) for volume, windows in self._sources if windows.name == SUMMED]
        self.is_made = any(windows.name == ACCUMULATED for _, windows in self._sources)

    @property
    def is_known(self) -> bool:
        """Whether data or configuration state the accumulation of all fields."""
        return not self._doubtful

    @property
    def times(self) -> Times:
        """Times at which the sum can be computed, (time,) datetime64[ns], ascending.

        Raises:
            InputError: neither data nor configuration state the accumulation.
        """
        return self._made[0].view("datetime64[ns]")

    @property
    def made(self) -> str:
        """Ways in which the sum is computed, as text.

        Raises:
            InputError: neither data nor configuration state the accumulation.
        """
        times, ways, places = self._made
        parts = []
        for number in np.unique(ways):
            here = ways == number
            sources = np.unique(self._table.source[self._ways[number].rows[places[here]]])
            basis = ", ".join(dict.fromkeys(self._sources[source][1].basis for source in sources))
            count = f" at {np.count_nonzero(here)} of {times.size} times" if np.any(~here) else ""
            parts.append(f"{self._ways[number].title} ({basis}){count}")
        return "; ".join(parts) or "at no time"

    @property
    def remedy(self) -> str:
        """What a user can do if the sum cannot be computed at a time, as text."""
        found = [windows for _, windows in self._sources if windows.name == ACCUMULATED]
        kinds = {windows.kind for windows in found}
        rest = "add those times, correct inputs.precipitation, or start from other times"
        if kinds == {"hourly"} and np.isnat(np.concatenate([windows.init for windows in found])).all():
            before = ", ".join(map(str, range(1, SUM_HOURS)))
            return f"it is computed from {ACCUMULATED} (hourly) at each time and {before} h before: {rest}"
        every = np.concatenate([windows.end - windows.start for windows in found])
        lengths = np.unique(every[~np.isnat(every)]) / HOUR
        held = f"sums over {', '.join(f'{hours:g}' for hours in lengths)} h" if lengths.size else "sums since a start"
        return (
            f"it is computed from a sum over those {SUM_HOURS} h, sums of one length that cover them, or two sums of "
            f"one forecast since its start that end {SUM_HOURS} h apart, and {ACCUMULATED} is held as {held}: {rest}"
        )

    def read(self, times: Times) -> NDArray[np.float32]:
        """Compute the sums at some of `times`: (time, latitude, longitude) in m.

        Raises:
            InputError: the data cannot be read, contradict each other, or contradict the stated accumulation.
        """
        parts = self._parts(times)
        rows, fields = self._read(parts)
        total = np.empty((len(times), *fields.shape[1:]), np.float32)
        for way, at, used in parts:
            terms = [fields[np.searchsorted(rows, term)] for term in used.T]
            self._check_direction(way, used, terms)
            here, later = self._later(way, used)
            self._check_rising(later, used[here, 0], fields[np.searchsorted(rows, later)], terms[0][here])
            made = sum(sign * term.astype(np.float64) for sign, term in zip(way.signs, terms, strict=True))
            falls_by_rounding = (made < 0) & ((way.signs[-1] < 0) | (made > -_ROUNDING))
            total[at] = np.where(falls_by_rounding, 0, made)
        return total

    def costs(self, times: Times) -> list[ReadCost]:
        """Return the costs of reading the sums, computed from the chunks of the files; nothing is read."""
        held = times[np.isin(np.asarray(times, "datetime64[ns]").view(np.int64), self._made[0])]
        rows = np.unique(np.concatenate([used.ravel() for _, _, used in self._parts(held)] or [np.zeros(0, np.intp)]))
        return [volume.sums_cost(windows, fields) for volume, windows, fields, _ in self._shares(rows)]

    @cached_property
    def _doubtful(self) -> str:
        """A file whose accumulation is stated neither by data nor configuration; empty if there is none.

        Fields at step 0 of a forecast do not count, if other fields show that there are forecasts: they hold no sum.
        """
        is_forecast = any((windows.end > windows.start).any() for _, windows in self._sources)
        for volume, windows in self._sources:
            doubtful = np.isnat(windows.start) & (windows.kind != "since_start")
            if np.any(doubtful & (windows.end != windows.init) if is_forecast else doubtful):
                return volume.origin
        return ""

    @cached_property
    def _table(self) -> Table:
        if self._doubtful:
            raise InputError(
                f"{ACCUMULATED} of {self._doubtful} must have a known accumulation to compute {SUMMED} from it, but "
                "the data do not state one; set inputs.precipitation: hourly, or since_start"
            )
        return Table.of([windows for _, windows in self._sources])

    @cached_property
    def _ways(self) -> list[Way]:
        return list(ways_of(self._table))

    @cached_property
    def _made(self) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.intp]]:
        """Times at which the sum can be computed, ns, ascending; the way of each; and its index in the rows of the way.

        Of several ways at a time, that of the shortest lead time is used, as for all other variables.
        """
        firsts = [way.rows[:, 0] for way in self._ways]
        ways = np.concatenate([np.full(rows.size, number, np.intp) for number, rows in enumerate(firsts)])
        places = np.concatenate([np.arange(rows.size) for rows in firsts])
        ends, leads = (column[np.concatenate(firsts)] for column in (self._table.end, self._table.lead))
        order = np.lexsort((ways, leads, ends))
        times, first = np.unique(ends[order], return_index=True)
        return times, ways[order][first], places[order][first]

    def _parts(self, times: Times) -> list[_Part]:
        known, ways, places = self._made
        at = np.searchsorted(known, np.asarray(times, "datetime64[ns]").view(np.int64))
        numbers = ((number, np.flatnonzero(ways[at] == number)) for number in np.unique(ways[at]))
        return [(self._ways[number], here, self._ways[number].rows[places[at[here]]]) for number, here in numbers]

    def _read(self, parts: Sequence[_Part]) -> tuple[Rows, NDArray[np.float32]]:
        """Read the rows that are summed and those that they are compared with; return the rows and their fields."""
        used = np.unique(np.concatenate([rows.ravel() for _, _, rows in parts] or [np.zeros(0, np.intp)]))
        twins = self._table.twins(used)
        rows = np.unique(np.concatenate([used, twins, *(self._later(way, rows)[1] for way, _, rows in parts)]))
        grid = self._sources[0][0].contents.grid
        fields = np.empty((rows.size, *grid.shape), np.float32)
        for volume, windows, numbers, places in self._shares(rows):
            fields[places] = volume.sums(windows, numbers)
        for twin in twins:
            self._check_same(twin, *(fields[np.searchsorted(rows, row)] for row in (self._table.first[twin], twin)))
        return rows, fields

    def _shares(self, rows: Rows) -> Iterator[tuple[Volume, Windows, NDArray[np.intp], NDArray[np.intp]]]:
        """Yield, for each variable of a file, the numbers of its fields among some rows, and the indices of these."""
        for source in np.unique(self._table.source[rows]):
            places = np.flatnonzero(self._table.source[rows] == source)
            yield *self._sources[source], self._table.field[rows[places]], places

    def _later(self, way: Way, rows: Rows) -> tuple[NDArray[np.intp], Rows]:
        """Return which sums since a start have a longer sum of the same start to compare with, and the row of that."""
        stated = np.asarray([windows.kind == "since_start" for _, windows in self._sources])
        later = self._table.following[rows[:, 0]]
        here = np.flatnonzero((later >= 0) & stated[self._table.source[rows[:, 0]]] & (len(way.signs) == 1))
        return here, later[here]

    def _check_direction(self, way: Way, rows: Rows, terms: Sequence[NDArray[np.float32]]) -> None:
        """Check that sums since a start never fall with time, and that sums over single windows do not only rise."""
        if way.signs[-1] < 0:
            self._check_rising(rows[:, 0], rows[:, 1], terms[0], terms[1])
        elif len(terms) > 1:
            self._check_falling(rows[:, 0], terms)

    def _check_rising(self, rows: Rows, earlier: Rows, after: NDArray[np.float32], before: NDArray[np.float32]) -> None:
        for number in np.flatnonzero(_falls(after, before)):
            back = (self._table.end[rows[number]] - self._table.end[earlier[number]]) / HOUR.astype(np.int64)
            raise InputError(
                f"{ACCUMULATED} of {self._file(rows[number])} must not fall with time, as it is summed since a "
                f"start, but at {self._time(rows[number])} it is {np.nanmax(before[number] - after[number]):.3g} m "
                f"less than {back:g} h before; another forecast starts between: keep their initial and lead times "
                "apart, or set inputs.precipitation: hourly"
            )

    def _check_falling(self, rows: Rows, terms: Sequence[NDArray[np.float32]]) -> None:
        """Check that sums over single windows fall somewhere: rain ends somewhere on the globe within hours."""
        falls = np.any([_falls(after, before) for after, before in pairwise(terms)], axis=0)
        rises = np.any([_falls(before, after) for after, before in pairwise(terms)], axis=0)
        for number in np.flatnonzero(rises & ~falls):
            raise InputError(
                f"{ACCUMULATED} of {self._file(rows[number])} must fall somewhere from one time to the next, as each "
                f"value is said to be the sum over its own window, but in the {SUM_HOURS} h before "
                f"{self._time(rows[number])} it rises everywhere, as if it were summed since a start; set "
                "inputs.precipitation: since_start"
            )

    def _check_same(self, row: int, one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        if _falls(one[np.newaxis], other[np.newaxis])[0] or _falls(other[np.newaxis], one[np.newaxis])[0]:
            first, second = self._file(self._table.first[row]), self._file(row)
            raise InputError(
                f"{ACCUMULATED} over one window must be one field, but for the window that ends at {self._time(row)} "
                f"there are two that differ by up to {np.nanmax(np.abs(one - other)):.3g} m, in {first} and in "
                f"{second}; leave one of them out"
            )

    def _file(self, row: int) -> str:
        volume, _ = self._sources[int(self._table.source[row])]
        return volume.origin

    def _time(self, row: int) -> str:
        return str(np.datetime64(int(self._table.end[row]), "ns").astype("datetime64[m]"))


def _falls(after: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return at which times (time, latitude, longitude) values are anywhere less than before, by more than rounding."""
    slack = _ROUNDING + _PACKING * np.nan_to_num(before).max(axis=(1, 2), keepdims=True)
    return np.asarray((after < before - slack).any(axis=(1, 2)))
