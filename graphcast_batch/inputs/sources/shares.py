"""Select the file of an archive from which each field is read.

A field is one variable at one time on one level. Files may split an archive by time, variable, level, or any mixture of
these. If two files hold a field and both state lead times, the field with the shorter lead time is read, so an analysis
in preference to a forecast; otherwise it is read from the first file, and the two are reported for comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.sources.volumes import Volume

_NO_LEVEL: Final = -1
_UNKNOWN: Final = -1.0
"""Lead time of fields whose lead time is not stated."""


@dataclass(frozen=True, eq=False)
class Share:
    """The fields that are read from one file.

    Attributes:
        volume: the file.
        names: variables, all of which the file holds at each of the times and on each of the levels.
        times: (time,) datetime64[ns] times, in the requested order.
        levels: levels in hPa, in the requested order; they do not apply to variables without levels.
    """

    volume: Volume
    names: list[str]
    times: NDArray[np.datetime64]
    levels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FileOverlap:
    """A field that two files hold."""

    name: str
    level: int | None
    time: np.datetime64
    first: Volume
    second: Volume


@dataclass(frozen=True, eq=False)
class _Table:
    """The files from which the fields of a variable are read.

    Attributes:
        times: (time,) datetime64[ns] times at which any file holds any level of the variable, ascending.
        rows: row of ``sources`` for each level; `_NO_LEVEL` stands for a variable without levels.
        sources: (row, time) number of the file, -1 where no file holds the field.
    """

    times: NDArray[np.datetime64]
    rows: dict[int, int]
    sources: NDArray[np.int32]


@dataclass(eq=False)
class Shares:
    """Selects the file of an archive for each field.

    Attributes:
        volumes: the files, in order of preference.
    """

    volumes: Sequence[Volume]
    _overlaps: list[FileOverlap] = field(default_factory=list)
    _tables: dict[str, _Table] = field(default_factory=dict)

    def levels(self, name: str, wanted: Sequence[int]) -> set[int]:
        """Return the levels that a variable has at all its times, and wanted levels that it has at any time."""
        table = self._table(name)
        always = {level for level, row in table.rows.items() if np.all(table.sources[row] >= 0)}
        return (always | (table.rows.keys() & set(wanted))) - {_NO_LEVEL}

    def times(self, name: str, levels: Sequence[int]) -> NDArray[np.datetime64]:
        """Return the times at which a variable is there on some levels, (time,) datetime64[ns], ascending.

        Args:
            name: name of the variable.
            levels: levels in hPa; those that the variable never has do not count. If it has none of them, all its
                levels count.
        """
        table = self._table(name)
        rows = sorted({table.rows[level] for level in levels if level in table.rows} or set(table.rows.values()))
        return table.times[np.all(table.sources[rows] >= 0, axis=0)]

    def new_overlaps(self) -> list[FileOverlap]:
        """Return fields that two files hold and that should be equal, two of a pair at most, since the last call."""
        found, self._overlaps = self._overlaps, []
        return found

    def missing_levels(self, name: str, time: np.datetime64, levels: Sequence[int]) -> list[int]:
        """Return the levels that a variable lacks at a time at which it has others."""
        table = self._table(name)
        place = int(np.searchsorted(table.times, time))
        if place == table.times.size or table.times[place] != time:
            return []
        return [level for level in levels if level in table.rows and table.sources[table.rows[level], place] < 0]

    def split(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> list[Share]:
        """Return the fields to read from each file; fields that no file holds are left out.

        Args:
            names: variables with time.
            times: (time,) datetime64[ns] times, each once.
            levels: levels in hPa, each once.
        """
        shares: dict[tuple[int, bytes, tuple[int, ...]], Share] = {}
        for name in sorted(names, key=lambda name: _NO_LEVEL in self._table(name).rows):
            for number, at, on in self._pieces(name, times, levels):
                same = [key for key in shares if key[:2] == (number, at.tobytes()) and (not on or key[2] == on)]
                key = same[0] if same else (number, at.tobytes(), on)
                shares.setdefault(key, Share(self.volumes[number], [], at, on)).names.append(name)
        return list(shares.values())

    def _pieces(
        self, name: str, times: NDArray[np.datetime64], levels: Sequence[int]
    ) -> list[tuple[int, NDArray[np.datetime64], tuple[int, ...]]]:
        """Return number of the file, times and levels of each part of a variable."""
        table = self._table(name)
        asked = [level for level in ([_NO_LEVEL] if _NO_LEVEL in table.rows else levels) if level in table.rows]
        if not times.size or not asked:
            holders = [number for number, volume in enumerate(self.volumes) if volume.times_of(name).size]
            return [(number, times[:0], ()) for number in holders[:1]]
        alike: dict[bytes, list[int]] = {}
        for level in asked:
            alike.setdefault(self._sources(table, level, times).tobytes(), []).append(level)
        pieces = []
        for on in alike.values():
            sources = self._sources(table, on[0], times)
            kept = () if on == [_NO_LEVEL] else tuple(on)
            pieces += [(int(number), times[sources == number], kept) for number in np.unique(sources[sources >= 0])]
        return pieces

    def _sources(self, table: _Table, level: int, times: NDArray[np.datetime64]) -> NDArray[np.int32]:
        places = np.minimum(np.searchsorted(table.times, times), table.times.size - 1)
        return np.where(table.times[places] == times, table.sources[table.rows[level], places], np.int32(-1))

    def _table(self, name: str) -> _Table:
        if name not in self._tables:
            self._tables[name] = self._made(name)
        return self._tables[name]

    def _made(self, name: str) -> _Table:
        holders = [(number, volume) for number, volume in enumerate(self.volumes) if volume.times_of(name).size]
        every = [volume.times_of(name) for _, volume in holders]
        times = every[0] if len(every) == 1 else np.unique(np.concatenate([np.zeros(0, "datetime64[ns]"), *every]))
        rows: dict[int, int] = {}
        known: dict[tuple[tuple[int, bytes], ...], int] = {}
        sources: list[NDArray[np.int32]] = []
        for level in sorted({level for _, volume in holders for level in volume.levels_of(name) or (_NO_LEVEL,)}):
            columns = [
                (number, volume.lead_hours(name, None if level == _NO_LEVEL else level))
                for number, volume in holders
                if level in (volume.levels_of(name) or (_NO_LEVEL,))
            ]
            key = tuple((number, b"" if leads is None else leads.tobytes()) for number, leads in columns)
            if key not in known:
                known[key] = len(sources)
                sources.append(self._row(name, level, times, columns))
            rows[level] = known[key]
        return _Table(times, rows, np.asarray(sources, np.int32).reshape(len(sources), times.size))

    def _row(
        self,
        name: str,
        level: int,
        times: NDArray[np.datetime64],
        columns: Sequence[tuple[int, NDArray[np.float64] | None]],
    ) -> NDArray[np.int32]:
        """Return the number of the file from which a variable on a level is read, at each time."""
        source, best = np.full(times.size, -1, np.int32), np.full(times.size, np.nan)
        for number, known in columns:
            held = self.volumes[number].times_of(name)
            at = np.searchsorted(times, held)
            leads = np.full(held.size, _UNKNOWN) if known is None else known
            there, taken = ~np.isnan(leads), source[at] >= 0
            later = (leads != _UNKNOWN) & (best[at] != _UNKNOWN) & (leads != best[at])
            self._note(name, level, times, number, source, at[there & taken & ~later])
            better = there & (~taken | (later & (leads < best[at])))
            source[at[better]], best[at[better]] = number, leads[better]
        return source

    def _note(
        self,
        name: str,
        level: int,
        times: NDArray[np.datetime64],
        second: int,
        source: NDArray[np.int32],
        places: NDArray[np.intp],
    ) -> None:
        """Record the first and last field that a file has in common with each earlier file."""
        for first in np.unique(source[places]):
            common = places[source[places] == first]
            self._overlaps += [
                FileOverlap(
                    name,
                    None if level == _NO_LEVEL else level,
                    times[place],
                    self.volumes[int(first)],
                    self.volumes[second],
                )
                for place in sorted({int(common[0]), int(common[-1])})
            ]
