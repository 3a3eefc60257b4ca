"""Compute what is kept of all members of an initial time together, once all of them are in the store.

The members meet in the store, wherever they were made: they are read back a few lead times of one variable at a time,
so that memory does not grow with their forecasts, and the result does not depend on who made which member.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.outputs_section import Statistic
from graphcast_batch.ensemble_statistics import statistic_name, statistics_of
from graphcast_batch.errors import GraphcastBatchError, StoreError
from graphcast_batch.pipeline.peak_memory import peak_memory_bytes
from graphcast_batch.pipeline.ports import Scorer
from graphcast_batch.pipeline.stages import StageName
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import NONE, OUTPUTS, Attempt, Lease, Store
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.stores.store_kinds import flaws_of, open_store
from graphcast_batch.timing import Stopwatch

MEMBERS_BYTES: Final = 2**27
"""The most bytes of all members that are read at once; more only where one lead time of a variable has more."""


@dataclass(frozen=True)
class EnsembleCases:
    """The statistics and scores of ensembles, by initial time.

    Attributes:
        members: store of the members.
        store: store of the statistics, whose Cases have no member.
        statistics: that are kept; none to score only.
        scorer: scores the ensembles; None to leave them unscored.
        worker: name of the worker, for the records.
        drop: removes the values of those of some members that are not kept; None to keep all.
    """

    members: Store
    store: Store
    statistics: tuple[Statistic, ...]
    scorer: Scorer | None
    worker: str
    drop: Callable[[Sequence[Case]], None] | None = None

    def complete(
        self,
        case: Case,
        lease: Lease | None,
        attempts: int,
        watch: Stopwatch,
        reached: Callable[[StageName], None],
        reading: AbstractContextManager[object],
    ) -> tuple[CaseRecord, str]:
        """Compute the statistics and scores of one initial time, and commit them.

        Args:
            case: without a member.
            lease: the lease on it.
            attempts: number of attempts at it, this one included.
            watch: takes the seconds spent.
            reached: called with the stage at each progress.
            reading: context within which inputs may be read.

        Returns:
            The record of the Case, and why it has no scores although it should have, or nothing.

        Raises:
            StoreError: a member is not complete or damaged, the store cannot be read or written, or the lease was lost.
            GraphcastBatchError: the members cannot be scored, and nothing else is kept of them.
        """
        members = [replace(case, member=member.number) for member in self.members.members]
        self._check(case, members)
        with watch.stage("read"):
            self._verify(case, members, reached)
        scored_first = self.store.only_scores or self.drop is not None  # nothing could be scored afterwards
        with self.store.attempt(case) as attempt:
            if not self.store.only_scores:
                self._write(case, attempt, watch, reached)
            if scored_first:
                self._score(case, watch, reached, reading)
            with watch.stage("commit"):
                record = attempt.commit(
                    lease=lease,
                    seconds=watch.seconds,
                    device="cpu",
                    worker=self.worker,
                    attempts=attempts,
                    details={
                        "members": len(self.members.members),
                        "peak_memory_bytes": peak_memory_bytes(),
                        **({OUTPUTS: NONE} if self.store.only_scores else {}),
                    },
                )
        try:
            if not scored_first:
                self._score(case, watch, reached, reading)
        except GraphcastBatchError as error:
            return record, str(error)
        if self.drop:
            with suppress(StoreError):  # what is left of the members, the next run removes
                self.drop(members)
        return record, ""

    def _check(self, case: Case, members: Sequence[Case]) -> None:
        """Refuse to combine members of which one is missing, or to write into a store that was replaced."""
        missing = sorted({each.key for each in members} - {each.key for each in self.members.ledger.complete(members)})
        if missing:
            raise StoreError(
                f"{case.key}: all {len(members)} members must be complete in {self.members.path}, but "
                f"{', '.join(missing[:4])} {'is' if len(missing) == 1 else 'are'} not; run again"
            )
        if open_store(self.store.path).identity != self.store.identity:
            raise StoreError(
                f"{case.key}: {self.store.path} must be the store that this run began with, but a run with other "
                "members has replaced it; run again with the config of that run"
            )

    def _verify(self, case: Case, members: Sequence[Case], reached: Callable[[StageName], None]) -> None:
        """Refuse to combine members with damaged files, which might be read as NaN or as other values."""
        for each in members:
            reached("read")
            flaws = flaws_of(self.members, each.key)
            if flaws:
                others = f", and {len(flaws) - 1} more" if len(flaws) > 1 else ""
                raise StoreError(f"{case.key} cannot be combined from its members: {flaws[0]}{others}")

    def _write(self, case: Case, attempt: Attempt, watch: Stopwatch, reached: Callable[[StageName], None]) -> None:
        for name, first, values in self._pieces(case, watch, reached):
            with watch.stage("combine"):
                found = statistics_of(values, self.statistics)
            reached("write")
            with watch.stage("write"):
                for statistic, field in found.items():
                    attempt.write_variable(statistic_name(name, statistic), first, field)

    def _pieces(
        self, case: Case, watch: Stopwatch, reached: Callable[[StageName], None]
    ) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
        """Yield each variable in pieces: its name, the first lead time, and values (member, lead time, ...)."""
        kept, members = self.members.kept, self.members.members
        opened = self.members.forecasts()
        place = self.members.place_of(replace(case, member=members[0].number))["time"]
        leads = kept.leads(case.hours)
        for name, levelled in kept.on_levels:
            size = 4 * len(members) * int(np.prod(kept.frame_shape(levelled)))
            together = max(1, MEMBERS_BYTES // size)
            for first in range(0, leads, together):
                reached("read")
                with watch.stage("read"):
                    last = min(leads, first + together)
                    values = _read(opened[name], place, slice(first, last))
                yield name, first, values

    def _score(
        self,
        case: Case,
        watch: Stopwatch,
        reached: Callable[[StageName], None],
        reading: AbstractContextManager[object],
    ) -> None:
        if self.scorer:
            with watch.stage("score"):
                self.scorer.score_ensemble(case, lambda: reached("read"), reading)


def _read(array: xr.DataArray, place: int, leads: slice) -> NDArray[np.float32]:
    return np.asarray(array.isel(time=place, prediction_timedelta=leads).values)
