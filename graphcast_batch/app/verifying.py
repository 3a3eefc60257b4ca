"""Compare a store with its ledger, and repair it if asked."""

from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

from rich.console import Console

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.app.executing import executor, on_cluster
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.integrity import repair as repairing
from graphcast_batch.integrity import verify as comparing
from graphcast_batch.terminal import show_repair, show_verification


@dataclass(frozen=True, repr=False)
class StoreVerification:
    """How a store compares with its ledger; `verify` returns it, and a notebook shows it.

    Attributes:
        found: the differences.
        repair: what was repaired; None if nothing was.
    """

    found: comparing.Verification
    repair: repairing.Repair | None = None

    @property
    def is_sound(self) -> bool:
        """Whether all was checked and is as recorded, or is repaired."""
        if self.found.left:
            return False
        return not self.repair.busy if self.repair else not self.found.damaged

    def show(self, console: Console) -> None:
        """Print the differences and repairs."""
        show_verification(console, self.found)
        if self.repair:
            show_repair(console, self.repair)

    def __repr__(self) -> str:
        return as_text(self.show)

    def _repr_html_(self) -> str:
        return as_html(self.show)


def verify(
    store: AnyPath,
    *,
    deep: bool = False,
    repair: bool = False,
    address: str | None = None,
    progress: ProgressChoice = None,
) -> StoreVerification:
    """Compare the files of a store with what its ledger records: missing, truncated, changed and unexpected files.

    >>> gb.verify("runs/demo", deep=True).is_sound

    Args:
        store: folder of the store.
        deep: whether to read every file and compare its checksum; otherwise only names and sizes are compared.
        repair: whether to let the next run make damaged Cases again, and to remove unexpected files.
        address: of a Ray cluster, as for `run`; used only with ``deep``.
        progress: as for `run`.

    Raises:
        StoreError: there is no store, or its files cannot be read.
        GridError: its latitudes or longitudes are damaged.
    """
    path, shown = Path(store), chosen_progress(progress)
    if deep:
        with on_cluster(address, None, shown) as stopping:
            found = comparing.verify(path, deep=True, executor=executor(stopping, shown, "reading"))
    else:
        found = comparing.verify(path, deep=False, executor=starmap)
    if found.left or not (repair and found.flaws):
        return StoreVerification(found)
    return StoreVerification(found, repairing.repair(path, found.flaws))
