"""Compare a store with its ledger, and repair it if asked."""

from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path

from rich.console import Console

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.app.executing import executor, on_cluster
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.integrity import repair as repairing
from graphcast_batch.integrity import verify as comparing
from graphcast_batch.stores.base import OF_ENSEMBLES
from graphcast_batch.stores.store_kinds import store_exists
from graphcast_batch.terminal import show_repair, show_verification


@dataclass(frozen=True, repr=False)
class StoreVerification:
    """How a store compares with its ledger; `verify` returns it, and a notebook shows it.

    Attributes:
        found: the differences.
        repair: what was repaired; None if nothing was.
        ensembles: the same for what is computed of all members together; None if there is none.
    """

    found: comparing.Verification
    repair: repairing.Repair | None = None
    ensembles: "StoreVerification | None" = None

    @property
    def is_sound(self) -> bool:
        """Whether all was checked and is as recorded, or is repaired."""
        if self.found.left or (self.ensembles and not self.ensembles.is_sound):
            return False
        return not (self.repair.busy or self.repair.lost) if self.repair else not self.found.damaged

    def show(self, console: Console) -> None:
        """Print the differences and repairs."""
        show_verification(console, self.found)
        if self.repair:
            show_repair(console, self.repair)
        if self.ensembles:
            console.print("ensembles:")
            self.ensembles.show(console)

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
        repair: whether to let the next run make damaged Cases again, and the next evaluation damaged scores, and to
            remove unexpected files. Scores that nothing can make again are left as they are.
        address: of a Ray cluster, as for `run`; used only with ``deep``.
        progress: as for `run`.

    Raises:
        StoreError: there is no store, or its files cannot be read.
        GridError: its latitudes or longitudes are damaged.
    """
    path, shown = Path(store), chosen_progress(progress)
    paths = [path, *filter(store_exists, [path / OF_ENSEMBLES])]
    if deep:
        with on_cluster(address, None, shown) as stopping:
            run = executor(stopping, shown, "reading")
            found = [comparing.verify(each, deep=True, executor=run) for each in paths]
    else:
        found = [comparing.verify(each, deep=False, executor=starmap) for each in paths]
    first, *others = (
        StoreVerification(
            result, None if result.left or not (repair and result.flaws) else repairing.repair(each, result.flaws)
        )
        for each, result in zip(paths, found, strict=True)
    )
    return replace(first, ensembles=others[0] if others else None)
