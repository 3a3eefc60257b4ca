"""Find the ways to compute the sum over the 6 h before each time from stored sums over time windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.layouts.dialects import SUM_HOURS
from graphcast_batch.inputs.layouts.windows import HOUR, SUM, Windows

UNKNOWN: Final = np.iinfo(np.int64).min
"""An unknown time: NaT as an integer."""
_SUM: Final = int(SUM.astype(np.int64))

Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Table:
    """The sums that several variables of files hold, one row each.

    Attributes:
        start: (row,) begin of the window, ns since 1970; `UNKNOWN` if it is unknown.
        end: (row,) end of the window, ns since 1970.
        lead: (row,) ns from the initial time to the end; 0 for a sum of no forecast.
        source: (row,) number of the variable that holds the sum.
        field: (row,) number of the sum in that variable.
        series: (row,) number of the series: sums of one forecast that begin together.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    lead: NDArray[np.int64]
    source: Rows
    field: Rows
    series: Rows

    @classmethod
    def of(cls, held: Sequence[Windows]) -> "Table":
        """Return a table with a row for each sum.

        Fields with an empty window, or one that begins before the forecast, are left out. So are fields with an unknown
        begin, unless they are stated to be summed since one start: then those of one forecast are a series.
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
        """Length of each window in ns, (row,); 0 if it is unknown."""
        return np.where(self.start == UNKNOWN, 0, self.end - self.start)

    @cached_property
    def first(self) -> Rows:
        """First row of the same window and forecast as each row, (row,)."""
        return self._order[self._first_of_group][self._group]

    @cached_property
    def following(self) -> Rows:
        """Row of the next longer sum with the same begin as each row, (row,); -1 if there is none."""
        firsts = self._order[self._first_of_group]
        after = np.append(firsts[1:], -1)
        ends = np.append(self.series[firsts[1:]] != self.series[firsts[:-1]], True)
        return np.where(ends, -1, after)[self._group]

    def twins(self, rows: Rows) -> Rows:
        """Return other rows of the same windows and forecasts."""
        if self._first_of_group.size == self.end.size:
            return rows[:0]
        same = np.isin(self._group, self._group[rows])
        return np.flatnonzero(same & (self.first != np.arange(self.end.size)))

    @cached_property
    def _order(self) -> Rows:
        return np.lexsort((self.end, self.series))

    @cached_property
    def _first_of_group(self) -> Rows:
        """Positions in `_order` of the first row of each window."""
        end, series = self.end[self._order], self.series[self._order]
        return np.flatnonzero(np.append(True, (np.diff(end) != 0) | (np.diff(series) != 0))[: end.size])

    @cached_property
    def _group(self) -> Rows:
        """Number of the window of each row, (row,)."""
        number = np.zeros(self.end.size, np.intp)
        number[self._first_of_group] = 1
        group = np.empty_like(number)
        group[self._order] = np.cumsum(number) - 1
        return group


@dataclass(frozen=True, eq=False)
class Way:
    """A way to compute the sum over 6 h from stored sums, and the times at which it is possible.

    Attributes:
        title: description of the way.
        signs: sign of each term.
        rows: (time, term) rows of the table; the first term ends at the time.
    """

    title: str
    signs: tuple[int, ...]
    rows: Rows


def ways_of(table: Table) -> Iterator[Way]:
    """Yield all ways that a table allows, the simplest first."""
    once = np.unique(table.first)
    yield Way(f"sums over {SUM_HOURS} h as they are", (1,), once[table.length[once] == _SUM][:, np.newaxis])
    parts = np.unique(table.length[(table.length > 0) & (table.length < _SUM)])
    for length in parts[_SUM % parts == 0][::-1]:
        count = int(_SUM // length)
        title = f"{count} sums over {length / HOUR.astype(np.int64):g} h added up"
        yield Way(title, (1,) * count, _successions(table, once[table.length[once] == length], int(length), count))
    yield Way("differences of sums since a start", (1, -1), _differences(table, once))


def _successions(table: Table, rows: Rows, length: int, count: int) -> Rows:
    """Return (time, count) rows that end at a time, one length before it and so on, each of the shortest lead time."""
    ordered = rows[np.lexsort((table.lead[rows], table.end[rows]))]
    ends, first = np.unique(table.end[ordered], return_index=True)
    wanted = ends[:, np.newaxis] - length * np.arange(count)
    places = np.minimum(np.searchsorted(ends, wanted), ends.size - 1)
    return np.asarray(ordered[first][places[(ends[places] == wanted).all(axis=1)]])


def _differences(table: Table, rows: Rows) -> Rows:
    """Return (time, 2) rows of one series, of which the second ends 6 h before the first."""
    ordered = rows[np.lexsort((table.end[rows], table.series[rows]))]
    ends = np.unique(table.end[rows])
    key = table.series[ordered] * ends.size + np.searchsorted(ends, table.end[ordered])
    before = np.searchsorted(ends, table.end[ordered] - _SUM)
    is_end = ends[np.minimum(before, max(ends.size - 1, 0))] == table.end[ordered] - _SUM
    wanted = table.series[ordered] * ends.size + before
    places = np.minimum(np.searchsorted(key, wanted), max(key.size - 1, 0))
    found = is_end & (key[places] == wanted)
    return np.stack([ordered[found], ordered[places[found]]], axis=1)
