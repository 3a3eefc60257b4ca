"""Store means of statistics, Case by Case, in a zarr group beside the forecasts, ``scores/NAME``.

``xarray.open_zarr(store / "scores" / "forecast")`` gives each variable in float64 over statistic, initial time, lead
time, level and region and, if configured, its power by zonal wavenumber; NaN where nothing was scored. Each Case is one
file in each array, and counts as scored only once its record exists, which is written last. Scoring is resumed where it
stopped and extended by new Cases, by any number of drivers.
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
from graphcast_batch.files.leases import FileLease, expired
from graphcast_batch.files.staging import STAGING, Staging, alone
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store

SCORES: Final = "scores"
FORECAST: Final = "forecast"
"""Name of the scores of the forecasts themselves, beside those of baselines."""
ADDED: Final = "+"
"""Between the name of scores and the number of a group that was added later."""
_ROOT: Final = "zarr.json"
_RECORD_FILE: Final = "record.json"
"""Name of a record in a private folder, before it is moved into place."""
_FILE: Final = r"^[^./][^/]*/c(\.[0-9]+)+$"
"""Pattern of a chunk's path. No path in a record can lead out of its group."""
_LEASE_SECONDS: Final = 120.0
"""Time after which a lease on scoring a Case expires on another host; on the same host a dead process is detected at
once."""
_BEAT_SECONDS: Final = 10.0


class ScoreRecord(Entry):
    """The record of a scored Case, written last.

    Attributes:
        key: of the Case.
        fields: number of pairs of variable and lead time that have scores; can grow when more truth is available.
        forecast: identifies the forecast among several of the same Case; empty if the store keeps no forecast.
        files: size in bytes and CRC-32 (hexadecimal) of each file, by its path in the group.
        seconds: time spent, by stage.
        host: on which the Case was scored.
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
        """Return the scores of a name, whether they exist or not."""
        return cls(store / SCORES / name)

    @classmethod
    def all_of(cls, store: Path) -> list[Self]:
        """Return all scores of a store, sorted by name."""
        with explained(f"looking for scores in {store}"):
            return [cls(path.parent) for path in sorted((store / SCORES).glob(f"[!.]*/{_ROOT}"))]

    @classmethod
    def groups(cls, store: Path, name: str) -> list[Self]:
        """Return the groups of the scores of a name: the first, then those of what was added later, in order."""
        first = cls.at(store, name)
        added = (scores for scores in cls.all_of(store) if scores.added_to == name)
        return [
            *([first] if first.exists else []),
            *sorted(added, key=lambda scores: int(scores.name.rpartition(ADDED)[2])),
        ]

    @classmethod
    def lay_out(cls, store: Path, name: str, layout: ScoreLayout) -> Self:
        """Create or extend the arrays for the scores of all initial and lead times of a store; keep existing scores.

        Args:
            store: its path.
            name: of the scores.
            layout: the dimensions of the scores.

        Raises:
            StoreMismatchError: existing scores of that name have another layout.
            StoreError: the arrays cannot be written.
        """
        scores = cls.at(store, name)
        with explained(f"laying out {scores.folder}"), open_store(store).extension_lock() as lock:
            opened = open_store(store)  # after the lock was taken, as another driver may have extended it
            if scores.exists:
                scores._refuse_other(layout, opened)
                if scores._lengths == (opened.init_times.size, len(opened.kept.lead_hours)):
                    return scores
            with alone(store / STAGING, f"{SCORES}.{name}", lock) as staging:
                draft = staging.folder / name
                create(draft, opened, layout)
                sync_tree(draft)
                scores.folder.parent.mkdir(exist_ok=True)
                scores._take_over(draft)
        return scores

    @property
    def name(self) -> str:
        """Name of the scores."""
        return self.folder.name

    @property
    def added_to(self) -> str | None:
        """Name of the scores to which this group was added later; None for the first group of a name."""
        name, mark, number = self.name.rpartition(ADDED)
        return name if mark and number.isascii() and number.isdecimal() else None

    @property
    def exists(self) -> bool:
        """Whether the scores are laid out, with or without a scored Case."""
        return (self.folder / _ROOT).exists()

    @property
    def identity(self) -> dict[str, JsonValue]:
        """Return what makes the scores comparable; see `ScoreLayout.known`.

        Raises:
            StoreError: there are no scores.
        """
        return {key: bare(part) for key, part in json.loads(self._attributes[IDENTITY]).items()}

    def records(self) -> dict[str, ScoreRecord]:
        """Read the records of all scored Cases, by the key of the Case.

        Raises:
            StoreError: a record is damaged, or cannot be read.
        """
        with explained(f"the records of {self.folder}"):
            paths = sorted((self.folder / RECORDS).glob("*.json"))
            found = (ScoreRecord.read(path) for path in paths)
            return {record.key: record for record in found if record}

    def keys(self) -> list[str]:
        """Return the keys of the Cases that have a record, readable or not."""
        with explained(f"the records of {self.folder}"):
            return sorted(path.stem for path in (self.folder / RECORDS).glob("[!.]*.json"))

    def record_path(self, key: str) -> Path:
        """Return the path of a Case's record."""
        return self.folder / RECORDS / f"{key}.json"

    def lease(self, case: Case) -> FileLease | None:
        """Take the lease on scoring a Case; None if a live process has it.

        Raises:
            StoreError: the lease cannot be written.
        """
        return self.hold(case.key)

    def hold(self, key: str) -> FileLease | None:
        """Take the lease on scoring a Case, given by its key; None if a live process has it."""
        return FileLease.take(self._lease_path(key), _LEASE_SECONDS)

    def is_held(self, key: str) -> bool:
        """Whether a live process has the lease on scoring a Case."""
        path = self._lease_path(key)
        return path.exists() and not expired(path, _LEASE_SECONDS, folder_clock(path.parent))

    def forget(self, key: str, files: Sequence[str], lease: FileLease | None = None) -> None:
        """Remove damaged files of a Case, then its record, so that the Case is scored again.

        If interrupted, it leaves a record of files that are missing.

        Args:
            key: of the Case.
            files: paths in the group.
            lease: on the Case; None if the caller knows that no other process works on it.

        Raises:
            StoreError: a file cannot be removed.
        """
        with explained(f"{key}: removing its scores from {self.folder}"), self._alone(key, lease) as staging:
            for path in (*(self.folder / file for file in files), self.record_path(key)):
                staging.take_away(path)
                sync_folder(path.parent)

    @contextmanager
    def keeping(self, lease: FileLease) -> Iterator[None]:
        """Renew a lease regularly within the context, however long a Case takes; release it at the end."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(_BEAT_SECONDS):
                with suppress(StoreError):  # a disk that fails now may accept the next renewal
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
        lease: FileLease | None = None,
    ) -> ScoreRecord:
        """Write the scores of a Case in a private folder, move them into place, and write the record last.

        Args:
            index: of the Case on the time axis.
            case: that was scored.
            means: by variable, (statistic, lead time, [level], region), and by the name of its spectrum, (part, lead
                time, [level], band, wavenumber); of all lead times or the first ones.
            fields: number of pairs of variable and lead time that have scores.
            forecast: identifies the forecast among several of the same Case.
            seconds: time spent, by stage.
            lease: on the Case; None if the caller knows that no other process works on it.

        Raises:
            StoreError: the shapes are wrong, the lease was lost, or the scores cannot be written.
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
                        f"{case.key}: {file} in {self.folder} must not change before the record is written, but "
                        "another process has replaced it; evaluate again"
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
        """Write the scores of one variable into a private folder; yield each file's path in the group and checksum."""
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

    def _alone(self, key: str, lease: FileLease | None) -> AbstractContextManager[Staging]:
        """Open a private folder for the scores of a Case, in the staging folder of the store."""
        return alone(self.folder.parent.parent / STAGING, f"{SCORES}.{self.name}.{key}", lease)

    def dataset(self) -> xr.Dataset:
        """Open all scores lazily: float64 (statistic, time, prediction_timedelta, [level], region).

        Raises:
            StoreError: there are no scores.
        """
        with explained(f"opening {self.folder}"):
            self._attributes  # noqa: B018 - refuses a group that is not one of scores
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

    def _refuse_other(self, layout: ScoreLayout, store: Store) -> None:
        """Raise if the stored scores differ from a layout in anything but length; name the differences."""
        ours, theirs = self.identity, layout.known
        differences = {
            key: (ours.get(key), theirs.get(key))
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        }
        if differences:
            raise mismatch(self.folder, differences, only_scores=store.only_scores)

    def _take_over(self, draft: Path) -> None:
        """Move a draft into place: the complete folder, or file by file over a shorter group, its root last."""
        if not self.exists:
            draft.rename(self.folder)
        else:
            moved = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
            for path in sorted(moved, key=lambda path: path == Path(_ROOT)):
                os.replace(draft / path, self.folder / path)
                sync_folder((self.folder / path).parent)
        sync_folder(self.folder.parent)


def mismatch(
    folder: Path, differences: Mapping[str, tuple[JsonValue, JsonValue]], *, only_scores: bool
) -> StoreMismatchError:
    """Return the error for scores that differ from the configured ones.

    Args:
        folder: of the scores.
        differences: stored and configured value, by what differs; None where absent.
        only_scores: whether the store keeps no forecasts.
    """
    first = folder.name.partition(ADDED)[0]
    folders = f"{first} and {first}{ADDED}* in {folder.parent}"
    remedy = "run again into another store" if only_scores else f"remove {folders} to score again"
    shown = {key: ["(absent)" if one is None else one for one in pair] for key, pair in differences.items()}
    lines = [f"  {key}: there {there}, now {now}" for key, (there, now) in shown.items()]
    return StoreMismatchError(
        f"{folder} holds scores that differ from the configured ones:\n" + "\n".join(lines) + "\n"
        f"{remedy}, or change the section scores to agree with it"
    )


def places(held: xr.Dataset | xr.DataArray, dim: str, wanted: Sequence[object], folder: Path) -> list[int]:
    """Find the positions of labels along a dimension of scores.

    Args:
        held: scores.
        dim: name of the dimension.
        wanted: labels to find.
        folder: of the scores, for messages.

    Raises:
        EvaluationError: a label does not exist.
    """
    known = held[dim].values.tolist()
    absent = [str(one) for one in wanted if one not in known]
    if absent:
        raise EvaluationError(
            f"{folder} must have the {dim} {', '.join(absent)}, but has {', '.join(map(str, known))}; choose some of "
            "those"
        )
    return [known.index(one) for one in wanted]
