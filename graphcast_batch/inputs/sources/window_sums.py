"""Find the ways in which sums over windows of time make the sum over the 6 h before each time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.layouts.dialects import SUM_HOURS
from graphcast_batch.inputs.layouts.windows import HOUR, SUM, Windows

UNKNOWN: Final = np.iinfo(np.int64).min
"""NaT as an integer."""
_SUM: Final = int(SUM.astype(np.int64))

Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Table:
    """The sums that several variables of files hold, a row each.

    Attributes:
        start: (row,) ns where the sum begins; UNKNOWN where that is not known.
        end: (row,) ns where it ends.
        lead: (row,) ns from the initial time to the end; 0 of what is no forecast.
        source: (row,) number of the variable that holds it.
        field: (row,) its number there.
        series: (row,) the same number for sums of one forecast that begin together.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    lead: NDArray[np.int64]
    source: Rows
    field: Rows
    series: Rows

    @classmethod
    def of(cls, held: Sequence[Windows]) -> "Table":
        """A row for each field but those that sum up nothing, or begin before their forecast does.

        Of unknown starts, those alone are one series that are said to be since one.
        """
        start, end, init = (
            np.concatenate([getattr(windows, bound) for windows in held]).astype("datetime64[ns]").view(np.int64)
            for bound in ("start", "end", "init")
        )
        sizes = [windows.end.size for windows in held]
        source, field = np.repeat(np.arange(len(held)), sizes), np.concatenate([np.arange(size) for size in sizes])
        since = np.asarray([windows.kind == "since_start" for windows in held])[source]
        kept = np.where(start == UNKNOWN, since, (start < end) & (start >= init))
        start, end, init, source, field = (column[kept] for column in (start, end, init, source, field))
        series = np.unique(np.stack([init, start]), axis=1, return_inverse=True)[1].ravel()
        return cls(start, end, np.where(init == UNKNOWN, 0, end - init), source, field, series)

    @cached_property
    def length(self) -> NDArray[np.int64]:
        """(row,) ns; 0 where it is not known."""
        return np.where(self.start == UNKNOWN, 0, self.end - self.start)

    @cached_property
    def first(self) -> Rows:
        """(row,) the first row of the same window and forecast."""
        return self._order[self._first_of_group][self._group]

    @cached_property
    def following(self) -> Rows:
        """(row,) the row that begins together with it and ends next; -1 where there is none."""
        firsts = self._order[self._first_of_group]
        after = np.append(firsts[1:], -1)
        ends = np.append(self.series[firsts[1:]] != self.series[firsts[:-1]], True)
        return np.where(ends, -1, after)[self._group]

    def twins(self, rows: Rows) -> Rows:
        """Other rows of the same windows and forecasts."""
        if self._first_of_group.size == self.end.size:
            return rows[:0]
        same = np.isin(self._group, self._group[rows])
        return np.flatnonzero(same & (self.first != np.arange(self.end.size)))

    @cached_property
    def _order(self) -> Rows:
        return np.lexsort((self.end, self.series))

    @cached_property
    def _first_of_group(self) -> Rows:
        """Where in the order a window begins that differs from the one before."""
        end, series = self.end[self._order], self.series[self._order]
        return np.flatnonzero(np.append(True, (np.diff(end) != 0) | (np.diff(series) != 0))[: end.size])

    @cached_property
    def _group(self) -> Rows:
        """(row,) number of its window."""
        number = np.zeros(self.end.size, np.intp)
        number[self._first_of_group] = 1
        group = np.empty_like(number)
        group[self._order] = np.cumsum(number) - 1
        return group


@dataclass(frozen=True, eq=False)
class Way:
    """Times at which the 6 h before are made of sums in one way.

    Attributes:
        title: for people.
        signs: of each term.
        rows: (time, term) of the table; the sum of the first ends at the time.
    """

    title: str
    signs: tuple[int, ...]
    rows: Rows


def ways_of(table: Table) -> Iterator[Way]:
    """All ways that a table gives, the plainest first."""
    once = np.unique(table.first)
    yield Way(f"sums over {SUM_HOURS} h as they are", (1,), once[table.length[once] == _SUM][:, np.newaxis])
    parts = np.unique(table.length[(table.length > 0) & (table.length < _SUM)])
    for length in parts[_SUM % parts == 0][::-1]:
        count = int(_SUM // length)
        title = f"{count} sums over {length / HOUR.astype(np.int64):g} h added up"
        yield Way(title, (1,) * count, _successions(table, once[table.length[once] == length], int(length), count))
    yield Way("differences of sums since a start", (1, -1), _differences(table, once))


def _successions(table: Table, rows: Rows, length: int, count: int) -> Rows:
    """(time, count) rows that end at a time, a length before it and so on, of the shortest lead time each."""
    ordered = rows[np.lexsort((table.lead[rows], table.end[rows]))]
    ends, first = np.unique(table.end[ordered], return_index=True)
    wanted = ends[:, np.newaxis] - length * np.arange(count)
    places = np.minimum(np.searchsorted(ends, wanted), ends.size - 1)
    return np.asarray(ordered[first][places[(ends[places] == wanted).all(axis=1)]])


def _differences(table: Table, rows: Rows) -> Rows:
    """(time, 2) rows of one series, the second of which ends 6 h before the first."""
    ordered = rows[np.lexsort((table.end[rows], table.series[rows]))]
    ends = np.unique(table.end[rows])
    key = table.series[ordered] * ends.size + np.searchsorted(ends, table.end[ordered])
    before = np.searchsorted(ends, table.end[ordered] - _SUM)
    is_end = ends[np.minimum(before, max(ends.size - 1, 0))] == table.end[ordered] - _SUM
    wanted = table.series[ordered] * ends.size + before
    places = np.minimum(np.searchsorted(key, wanted), max(key.size - 1, 0))
    found = is_end & (key[places] == wanted)
    return np.stack([ordered[found], ordered[places[found]]], axis=1)
