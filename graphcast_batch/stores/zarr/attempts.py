"""Write one Case in a private folder, and move its files into the store once all of them are there.

Of a Case without a record readers find no values, or all of them. Files that a dead attempt left are removed before the
first file of this attempt appears; only a longer forecast replaces a shorter one that is complete, file by file, so
that readers always find the shorter one.
"""

import socket
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import Sealed, explained, now, sync_folder
from graphcast_batch.files.staging import STAGING, Staging
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Lease
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.stores.layout import OutputGrid
from graphcast_batch.stores.zarr.ledger import FileLedger
from graphcast_batch.stores.zarr.shards import Encoding, Place, Shard, file_of, files_of


class Destination(Protocol):
    """The store that attempts write to: what they use of a `ZarrStore`."""

    @property
    def path(self) -> Path:
        """The folder of the store."""

    @property
    def kept(self) -> OutputGrid:
        """What the store keeps of each forecast."""

    @property
    def ledger(self) -> FileLedger:
        """The states of the Cases."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables."""

    @property
    def encodings(self) -> dict[str, Encoding]:
        """The encoding of each variable."""

    @property
    def block_steps(self) -> int:
        """How many lead times are one shard."""

    @property
    def most_steps(self) -> int:
        """Steps of the longest forecast that the store has room for."""

    def blocks_of(self, steps: int) -> int:
        """Return how many shards of each variable a forecast of so many steps has."""

    def place_of(self, case: Case) -> dict[str, int]:
        """Return the place of a Case, by dimension; raise StoreError if the store has none for it."""


class ZarrAttempt:
    """One try at writing a Case, in a private folder until all of the Case is written; see the port `Attempt`.

    As a context it leaves nothing behind unless it was committed. Any threads may write at once, as long as the lead
    times of each variable come in order.
    """

    def __init__(self, store: Destination, case: Case) -> None:
        self._store = store
        self._case = case
        self._place: Place = tuple(store.place_of(case).values())
        self._staging = Staging.beside(store.path / STAGING, case.key)
        self._leads = store.kept.leads(case.hours)
        self._encodings = store.encodings
        self._shards: dict[str, Shard] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            with self._explained():
                self._staging.make()
                for name in self._store.variables:
                    (self._staging.folder / name).mkdir()
        except StoreError:
            self._staging.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._shards.values():
            shard.close()
        self._staging.remove()

    def write(self, first: int, frames: Mapping[str, NDArray[np.float32]]) -> None:
        """Write some lead times of every variable; see `write_variable`.

        Args:
            first: the first of the lead times, counted from 0 among those that the store keeps.
            frames: by variable, float32 (k, [level], latitude, longitude) in the units of the variable, at the points
                and levels that the store keeps.

        Raises:
            StoreError: the frames do not fit, or cannot be written.
        """
        store, key = self._store, self._case.key
        if sorted(frames) != list(store.variables):
            raise StoreError(f"{key}: frames must hold {list(store.variables)}, but hold {sorted(frames)}")
        for name, values in frames.items():
            self._check(name, first, values)
        for name, values in frames.items():
            self.write_variable(name, first, values)

    def write_variable(self, name: str, first: int, values: NDArray[np.float32]) -> None:
        """Encode and write some lead times of one variable. Several threads may write different variables at once.

        Args:
            name: name of the variable.
            first: the first of the lead times, counted from 0 among those that the store keeps; within a shard they
                must come in order.
            values: float32 (k, [level], latitude, longitude) in the units of the variable, at the points and levels
                that the store keeps.

        Raises:
            StoreError: the values do not fit, do not come in order, or cannot be written.
        """
        self._check(name, first, values)
        with self._explained():
            self._staging.touch()
            last, size = first + len(values), self._store.block_steps
            for start in range(first - first % size, last, size):
                begin, end = max(first, start), min(last, start + size)
                self._shard(name, start).append(begin - start, values[begin - first : end - first])

    def commit(
        self,
        *,
        lease: Lease | None,
        seconds: Mapping[str, float],
        device: str,
        worker: str,
        attempts: int,
        details: Mapping[str, JsonValue],
    ) -> CaseRecord:
        """Move the files into the store and record the Case as complete; drop them if it was complete already.

        Args:
            lease: the lease on the Case; without one, the caller knows that nobody else works on the Case.
            seconds: time spent, by stage.
            device: what the forecast was computed on.
            worker: name of the worker that made the forecast.
            attempts: how many attempts the Case took, this one included.
            details: whatever else is to be kept in the record.

        Returns:
            The record that stands.

        Raises:
            StoreError: steps were not written, the lease was lost, or the files cannot be moved.
        """
        ledger, case = self._store.ledger, self._case
        standing = ledger.record(case.key, case.steps)
        if standing:
            return standing
        files = self._complete()
        self._check_lease(lease)
        with self._explained():
            self._staging.fence()
            # Another attempt may have recorded the Case before it lost its folder; none does from here on.
            if standing := ledger.record(case.key, case.steps):
                return standing
            self._publish(files)
        record = CaseRecord(
            key=case.key,
            init_time=f"{case.init_time.astype('datetime64[s]')}Z",
            steps=case.steps,
            bytes=sum(sealed.size for sealed in files.values()),
            files={file: (sealed.size, sealed.checksum) for file, sealed in files.items()},
            seconds=dict(seconds),
            host=socket.gethostname(),
            device=device,
            worker=worker,
            attempts=attempts,
            finished_at=now(),
            details=dict(details),
        )
        self._check_lease(lease)
        return ledger.enter(record, self._staging)

    def _complete(self) -> dict[str, Sealed]:
        """Return the files of the Case, by their path in the store."""
        files = {file: shard.sealed for file, shard in self._shards.items() if shard.sealed}
        missing = sorted(self._files(self._case.steps) - files.keys())
        if missing:
            raise StoreError(
                f"{self._case.key}: all {self._case.steps} steps must be written first, but {missing[0]} was not"
            )
        return files

    def _files(self, steps: int) -> set[str]:
        """Return the paths, in the store, of the files of a forecast of so many steps."""
        return files_of(self._place, self._store.blocks_of(steps), self._store.kept.on_levels)

    def _publish(self, files: Mapping[str, Sealed]) -> None:
        store, staging = self._store, self._staging
        complete = self._files(store.ledger.steps_of(self._case.key))
        for file in sorted(self._files(store.most_steps) - complete):
            staging.take_away(store.path / file)
        staging.drop_taken()
        # Files that a record names are replaced last: until then the shorter forecast is as it was.
        for file in sorted(files, key=lambda file: (file in complete, file)):
            (staging.replace if file in complete else staging.publish)(file, store.path / file)
        for name in store.variables:
            sync_folder(store.path / name)  # and a network file system looks again at the names in it
        for file, sealed in files.items():
            if not sealed.is_at(store.path / file):
                raise StoreError(
                    f"{self._case.key}: {file} in {store.path} must be this attempt's until the Case is recorded, but "
                    "another process has put its own there; this attempt is dropped: run again"
                )

    def _check_lease(self, lease: Lease | None) -> None:
        if lease and not lease.held():
            raise StoreError(
                f"{self._case.key}: the lease must be held until the Case is recorded in {self._store.path}, but was "
                "lost to another process or removed; this attempt is dropped: run again"
            )

    def _check(self, name: str, first: int, values: NDArray[np.float32]) -> None:
        kept, key = self._store.kept, self._case.key
        if not 0 <= first < first + len(values) <= self._leads:
            raise StoreError(
                f"{key}: {name} must have lead times 0 to {self._leads}, but was given {first} to {first + len(values)}"
            )
        expected = (len(values), *kept.frame_shape(dict(kept.on_levels)[name]))
        if values.shape != expected or values.dtype != np.float32:
            raise StoreError(f"{key}: {name} must be float32 {expected}, but is {values.dtype} {values.shape}")

    def _shard(self, name: str, start: int) -> Shard:
        """Return the shard that begins at a lead time, and begin it if it was not begun yet."""
        levelled, size = dict(self._store.kept.on_levels)[name], self._store.block_steps
        file = file_of(name, levelled, self._place, start // size)
        with self._lock:
            if file not in self._shards:
                encoding, leads = self._encodings[name], min(size, self._leads - start)
                self._shards[file] = Shard(self._staging.folder / file, encoding, leads)
            return self._shards[file]

    def _explained(self) -> AbstractContextManager[None]:
        return explained(f"{self._case.key}: writing it to {self._store.path}")
