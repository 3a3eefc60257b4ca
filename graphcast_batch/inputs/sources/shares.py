"""Decide which file of an archive gives which field, however the fields are spread over files.

A field is one variable at one time on one level. Files may split an archive by time, variable, level, or any mixture of
these. Where two hold the same field, that of the forecast that started last is taken if both say when theirs started,
as an analysis before a forecast; else the first file's, and they are reported so that they can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.sources.volumes import Volume

_NO_LEVEL: Final = -1
_UNKNOWN: Final = -1.0
"""Lead time of fields that do not say it."""


@dataclass(frozen=True, eq=False)
class Share:
    """What is read from one file.

    Attributes:
        volume: the file.
        names: variables, all of which it holds at each time and on each level.
        times: (time,) datetime64[ns], in the order asked for.
        levels: hPa, in the order asked for; those without level ignore them.
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
    """Where each field of a variable lies.

    Attributes:
        times: (time,) datetime64[ns], ascending, at which any file holds any of its levels.
        rows: by level, `_NO_LEVEL` for a variable without: which row of sources is its.
        sources: (row, time) number of the file, -1 where none holds the field.
    """

    times: NDArray[np.datetime64]
    rows: dict[int, int]
    sources: NDArray[np.int32]


@dataclass(eq=False)
class Shares:
    """The files of an archive as holders of fields.

    Attributes:
        volumes: the files, the first of which is preferred.
    """

    volumes: Sequence[Volume]
    _overlaps: list[FileOverlap] = field(default_factory=list)
    _tables: dict[str, _Table] = field(default_factory=dict)

    def levels(self, name: str, wanted: Sequence[int]) -> set[int]:
        """Levels of a variable: those held at each of its times, and of those that are wanted also any other."""
        table = self._table(name)
        always = {level for level, row in table.rows.items() if np.all(table.sources[row] >= 0)}
        return (always | (table.rows.keys() & set(wanted))) - {_NO_LEVEL}

    def times(self, name: str, levels: Sequence[int]) -> NDArray[np.datetime64]:
        """(time,) datetime64[ns], ascending, at which a variable is held on those of the levels that it has."""
        table = self._table(name)
        rows = sorted({table.rows[level] for level in levels if level in table.rows} or set(table.rows.values()))
        return table.times[np.all(table.sources[rows] >= 0, axis=0)]

    def new_overlaps(self) -> list[FileOverlap]:
        """Fields that two files hold and that should be the same, a few of each pair, found since the last call."""
        found, self._overlaps = self._overlaps, []
        return found

    def missing_levels(self, name: str, time: np.datetime64, levels: Sequence[int]) -> list[int]:
        """Which levels a variable lacks at a time at which others are held."""
        table = self._table(name)
        place = int(np.searchsorted(table.times, time))
        if place == table.times.size or table.times[place] != time:
            return []
        return [level for level in levels if level in table.rows and table.sources[table.rows[level], place] < 0]

    def split(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> list[Share]:
        """What is to be read from which file; fields that no file holds are left out.

        Args:
            names: variables with time.
            times: (time,) datetime64[ns], each once.
            levels: hPa, each once.
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
        """Number of the file, times and levels of each part of a variable."""
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
        """Which file gives a variable on a level at each time."""
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
        """Keeps the first and last field that a file has in common with each one before."""
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
