"""Means of statistics of one Case after another become a zarr group beside the forecasts, ``scores/NAME``.

``xarray.open_zarr(store / "scores" / "forecast")`` gives each variable in float64 over statistic, initial time, lead
time, level and region, and beside it, where that is wanted, its power by zonal wavenumber; NaN where nothing was
scored. A Case is one file of each, and counts as scored only once its record is there, which is written last: scores
are taken up where they stopped and extended by new Cases, by any number of drivers.
"""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from graphcast_batch.credentials import bare
from graphcast_batch.errors import EvaluationError, StoreError, StoreMismatchError
from graphcast_batch.evaluation.score_layout import IDENTITY, RECORDS, ScoreLayout, create
from graphcast_batch.files.durable import Entry, Sealed, explained, folder_clock, now, seal, sync_folder, sync_tree
from graphcast_batch.files.leases import Lease, expired
from graphcast_batch.files.staging import STAGING, Staging, alone
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store

SCORES: Final = "scores"
FORECAST: Final = "forecast"
"""What the scores of the forecasts themselves are called, beside those of baselines."""
_ROOT: Final = "zarr.json"
_RECORD_FILE: Final = "record.json"
"""In a private folder."""
_FILE: Final = r"^[^./][^/]*/c(\.[0-9]+)+$"
"""A chunk of a variable: whoever follows a record stays in its group."""
_LEASE_SECONDS: Final = 120.0
"""Of a claim on scoring a Case on another host; on this one the dead are known at once."""
_BEAT_SECONDS: Final = 10.0


class ScoreRecord(Entry):
    """A scored Case: written last.

    Attributes:
        key: of the Case.
        fields: how many pairs of variable and lead time have scores; more may get them once more truth is there.
        forecast: what tells this forecast from another of the same Case; empty where none is stored.
        files: size in bytes and CRC-32 (hexadecimal) of each file, by its path in the group.
        seconds: time spent, by stage.
        host: where it was scored.
        finished_at: UTC, ISO 8601.
    """

    key: str
    fields: int
    forecast: str
    files: dict[Annotated[str, Field(pattern=_FILE)], tuple[int, str]]
    seconds: dict[str, float]
    host: str
    finished_at: str


@dataclass(frozen=True)
class ScoreStore:
    """The scores of one store's forecasts, or of a baseline for them."""

    folder: Path

    @classmethod
    def at(cls, store: Path, name: str) -> Self:
        """Those of a name, whether they are there or not."""
        return cls(store / SCORES / name)

    @classmethod
    def all_of(cls, store: Path) -> list[Self]:
        """Those that a store has, by name."""
        with explained(f"looking for scores in {store}"):
            return [cls(path.parent) for path in sorted((store / SCORES).glob(f"[!.]*/{_ROOT}"))]

    @classmethod
    def lay_out(cls, store: Path, name: str, scored: ScoreLayout) -> Self:
        """Makes room for the scores of all initial and lead times of a store; takes up what is there.

        Args:
            store: its path.
            name: of the scores.
            scored: what they are by.

        Raises:
            StoreMismatchError: there are scores of that name that cannot be compared with these.
            StoreError: they cannot be written.
        """
        scores = cls.at(store, name)
        with explained(f"laying out {scores.folder}"), open_store(store).extension_lock() as lock:
            opened = open_store(store)  # since the lock was taken, as another driver may have made it longer
            if scores.exists:
                scores._refuse_other(scored, opened)
                if scores._lengths == (opened.init_times.size, len(opened.kept.lead_hours)):
                    return scores
            with alone(store / STAGING, f"{SCORES}.{name}", lock) as staging:
                draft = staging.folder / name
                create(draft, opened, scored)
                sync_tree(draft)
                scores.folder.parent.mkdir(exist_ok=True)
                scores._take_over(draft)
        return scores

    @property
    def name(self) -> str:
        """What they are called."""
        return self.folder.name

    @property
    def exists(self) -> bool:
        """Whether there are any, or room for them."""
        return (self.folder / _ROOT).exists()

    @property
    def identity(self) -> dict[str, JsonValue]:
        """What makes scores comparable; see `ScoreLayout.known`.

        Raises:
            StoreError: there are none.
        """
        return {key: bare(part) for key, part in json.loads(self._attributes[IDENTITY]).items()}

    def records(self) -> dict[str, ScoreRecord]:
        """What was scored, by the key of the Case.

        Raises:
            StoreError: a record is damaged, or cannot be read.
        """
        with explained(f"the records of {self.folder}"):
            paths = sorted((self.folder / RECORDS).glob("*.json"))
            found = (ScoreRecord.read(path) for path in paths)
            return {record.key: record for record in found if record}

    def keys(self) -> list[str]:
        """Keys of the Cases that have a record, readable or not."""
        with explained(f"the records of {self.folder}"):
            return sorted(path.stem for path in (self.folder / RECORDS).glob("[!.]*.json"))

    def record_path(self, key: str) -> Path:
        """Where the record of a Case is."""
        return self.folder / RECORDS / f"{key}.json"

    def lease(self, case: Case) -> Lease | None:
        """Claims the scoring of a Case for this process; None if a live one has it.

        Raises:
            StoreError: it cannot be written.
        """
        return self.hold(case.key)

    def hold(self, key: str) -> Lease | None:
        """The same, by the key of the Case."""
        return Lease.take(self._lease_path(key), _LEASE_SECONDS)

    def is_held(self, key: str) -> bool:
        """Whether a live process has claimed the scoring of a Case."""
        path = self._lease_path(key)
        return path.exists() and not expired(path, _LEASE_SECONDS, folder_clock(path.parent))

    def forget(self, key: str, files: Sequence[str], lease: Lease | None = None) -> None:
        """Removes damaged files of a Case, then its record, for who has claimed it.

        Broken off, it leaves a record of files that are missing.

        Args:
            key: of the Case.
            files: by their path in the group.
            lease: on the Case; without one, the caller knows that nobody else works on it.

        Raises:
            StoreError: they cannot be removed.
        """
        with explained(f"{key}: forgetting its scores in {self.folder}"), self._alone(key, lease) as staging:
            for path in (*(self.folder / file for file in files), self.record_path(key)):
                staging.take_away(path)
                sync_folder(path.parent)

    @contextmanager
    def keeping(self, lease: Lease) -> Iterator[None]:
        """Within, a claim is kept alive, however long a Case takes; then it is given back."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(_BEAT_SECONDS):
                with suppress(StoreError):  # on a disk that refuses it now, it may be written later
                    lease.renew()

        beating = threading.Thread(target=renew, name="heartbeat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            lease.release()

    def write(
        self,
        index: int,
        case: Case,
        means: Mapping[str, NDArray[np.float64]],
        fields: int,
        forecast: str,
        seconds: Mapping[str, float],
        lease: Lease | None = None,
    ) -> ScoreRecord:
        """Writes the scores of a Case in a private folder, moves them into their place, and declares it scored.

        Args:
            index: of the Case on the time axis.
            case: which.
            means: by variable, (statistic, lead time, [level], region), and by its spectrum, (part, lead time, [level],
                band, wavenumber); of the first lead times, if not of all.
            fields: how many pairs of variable and lead time have scores.
            forecast: what tells this forecast from another of the same Case.
            seconds: time spent, by stage.
            lease: on the Case; without one, the caller knows that nobody else works on it.

        Raises:
            StoreError: they do not fit, the claim was lost, or they cannot be written.
        """
        what = f"{case.key}: writing its scores to {self.folder}"
        with explained(what), self._alone(case.key, lease) as staging:
            files = {
                name: sealed for each in means.items() for name, sealed in self._draft(staging, index, case, *each)
            }
            for file in files:
                staging.replace(file, self.folder / file)
            for name in means:
                sync_folder(self.folder / name)
            for file, sealed in files.items():
                if not sealed.is_at(self.folder / file):
                    raise StoreError(
                        f"{case.key}: {file} in {self.folder} must be this process's until the Case counts as scored, "
                        "but another one has put its own there; evaluate again"
                    )
            record = ScoreRecord(
                key=case.key,
                fields=fields,
                forecast=forecast,
                files={file: (sealed.size, sealed.checksum) for file, sealed in files.items()},
                seconds=dict(seconds),
                host=socket.gethostname(),
                finished_at=now(),
            )
            staging.write(_RECORD_FILE, record.model_dump_json(indent=1).encode())
            staging.replace(_RECORD_FILE, self.record_path(case.key))
            sync_folder(self.folder / RECORDS)
        return record

    def _draft(
        self, staging: Staging, index: int, case: Case, name: str, values: NDArray[np.float64]
    ) -> Iterator[tuple[str, Sealed]]:
        """Writes the scores of one variable into a private folder: files by their path in the group."""
        draft = staging.folder / name
        draft.mkdir()
        shutil.copyfile(self.folder / name / _ROOT, draft / _ROOT)
        array = zarr.open_array(draft, mode="r+").with_config({"write_empty_chunks": True})
        expected = (array.shape[0], *array.shape[2:])
        if (values.shape[0], *values.shape[2:]) != (expected[0], *expected[2:]) or len(values[0]) > expected[1]:
            raise StoreError(f"{case.key}: scores of {name} must be {expected}, but are {values.shape}")
        array[:, index, : values.shape[1]] = values
        for chunk in sorted(draft.glob(f"c.0.{index}.*")):
            yield f"{name}/{chunk.name}", seal(chunk)

    def _alone(self, key: str, lease: Lease | None) -> AbstractContextManager[Staging]:
        """A private folder for the scores of a Case, among those of the store."""
        return alone(self.folder.parent.parent / STAGING, f"{SCORES}.{self.name}.{key}", lease)

    def dataset(self) -> xr.Dataset:
        """All scores, read when their values are asked for: float64 (statistic, time, lead time, [level], region).

        Raises:
            StoreError: there are none.
        """
        with explained(f"opening {self.folder}"):
            self._attributes  # noqa: B018 - refuses what is none of ours
            opened: xr.Dataset = xr.open_zarr(self.folder, chunks=None, consolidated=True)
            return opened

    def _lease_path(self, key: str) -> Path:
        return self.folder / RECORDS / f"{key}.claim"

    @property
    def _attributes(self) -> dict[str, Any]:
        try:
            found = dict(json.loads((self.folder / _ROOT).read_bytes())["attributes"])
            found[IDENTITY]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"there are no scores at {self.folder}; run graphcast-batch evaluate first") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.folder} must hold scores that this program wrote, but cannot be read as such ({error!r}); "
                "remove the folder and evaluate again"
            ) from error
        return found

    @property
    def _lengths(self) -> tuple[int, int]:
        arrays = json.loads((self.folder / _ROOT).read_bytes())["consolidated_metadata"]["metadata"]
        return arrays["time"]["shape"][0], arrays["prediction_timedelta"]["shape"][0]

    def _refuse_other(self, scored: ScoreLayout, store: Store) -> None:
        ours, theirs = self.identity, scored.known
        differences = [
            f"  {key}: there {ours.get(key, '(absent)')}, now {theirs.get(key, '(absent)')}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        if differences:
            remedy = "run anew into another store" if store.only_scores else "remove that folder to score anew"
            raise StoreMismatchError(
                f"{self.folder} holds scores of another kind:\n" + "\n".join(differences) + "\n"
                f"{remedy}, or mend the section scores to agree with it"
            )

    def _take_over(self, draft: Path) -> None:
        """Puts a draft into its place: whole, or file by file into the shorter one that is there, its root last."""
        if not self.exists:
            draft.rename(self.folder)
        else:
            moved = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
            for path in sorted(moved, key=lambda path: path == Path(_ROOT)):
                os.replace(draft / path, self.folder / path)
                sync_folder((self.folder / path).parent)
        sync_folder(self.folder.parent)


def places(held: xr.Dataset | xr.DataArray, dim: str, wanted: Sequence[object], folder: Path) -> list[int]:
    """Where some labels stand along a dimension of scores.

    Args:
        held: scores.
        dim: which dimension.
        wanted: its labels.
        folder: of the scores, for messages.

    Raises:
        EvaluationError: a label is not among them.
    """
    known = held[dim].values.tolist()
    absent = [str(one) for one in wanted if one not in known]
    if absent:
        raise EvaluationError(
            f"{folder} must have the {dim} {', '.join(absent)}, but has {', '.join(map(str, known))}; name some of "
            "those"
        )
    return [known.index(one) for one in wanted]
