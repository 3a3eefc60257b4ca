"""Verify a store: its forecasts, the scores and the statistics that lie beside them."""

import time
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Final

import xarray as xr

from graphcast_batch.evaluation.score_verification import verify_scores
from graphcast_batch.setup.ensemble_store import is_of_ensembles
from graphcast_batch.stores.base import CaseExecutor
from graphcast_batch.stores.flaws import Flaw, FlawKind
from graphcast_batch.stores.store_kinds import kind_at

_STATISTICS: Final = tuple(f"statistics/{kind}_by_level.nc" for kind in ("mean", "stddev", "diffs_stddev"))


@dataclass(frozen=True)
class Verification:
    """Result of verifying a store.

    Attributes:
        cases: number of complete Cases that were verified.
        left: number of complete Cases that were not, because the executor stopped early.
        bytes: size of the files of the verified Cases in bytes, as recorded.
        seconds: time that the verification took.
        flaws: what was found, in the order of the keys, then what belongs to no complete Case.
    """

    cases: int
    left: int
    bytes: int
    seconds: float
    flaws: tuple[Flaw, ...]

    @property
    def damaged(self) -> bool:
        """Whether any flaw is more than a harmless rest of a dead attempt."""
        return not all(flaw.harmless for flaw in self.flaws)


def verify(path: Path, *, deep: bool, executor: CaseExecutor = starmap) -> Verification:
    """Compare a store with its records, while other processes may be writing into it.

    Args:
        path: the folder of the store.
        deep: read every file and compare its checksum; else compare names and sizes only.
        executor: runs the reading of the files of forecasts, if ``deep``.

    Raises:
        StoreError: there is no store, it cannot be opened, or its folders cannot be read.
        GridError: the latitudes or longitudes of the store are damaged.
    """
    start = time.perf_counter()
    kind = kind_at(path)
    found = kind.verify(path, deep=deep, executor=executor)
    store = kind.open(path)
    complete = (*found.cases, *found.left)
    flaws = [*found.flaws]
    # A store that has just been laid out has no statistics yet; the scores of ensembles lie beside their members.
    if not is_of_ensembles(store):
        flaws += _statistics_flaws(store.path) if complete else []
        flaws += verify_scores(store, complete, deep=deep)
    seconds = time.perf_counter() - start
    return Verification(len(found.cases), len(found.left), found.bytes, seconds, tuple(flaws))


def _statistics_flaws(path: Path) -> list[Flaw]:
    """Return the files of statistics, from which workers normalize, that cannot be read."""
    found = {}
    for file in _STATISTICS:
        try:
            with xr.open_dataset(path / file, engine="netcdf4") as statistics:
                statistics.load()
        except (OSError, RuntimeError, ValueError) as error:
            found[file] = "is not there" if isinstance(error, FileNotFoundError) else f"is not: {error}"
    remedy = "remove the folder statistics, so that the next run makes it again"
    return [Flaw(FlawKind.STATISTICS, "", file, "be readable as netCDF", what, remedy) for file, what in found.items()]
