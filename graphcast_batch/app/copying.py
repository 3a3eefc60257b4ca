"""Copy the complete forecasts of one store into the store of a config, so that a run makes only the others."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.app.executing import executor, on_cluster
from graphcast_batch.app.planning import Config, plan
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.errors import StoreError
from graphcast_batch.setup.store_identity import lay_out_like
from graphcast_batch.stores.case_copy import Copying, copy_case
from graphcast_batch.stores.store_kinds import open_store


@dataclass(frozen=True, repr=False)
class CopiedForecasts:
    """What `copy_forecasts` did.

    Attributes:
        store: folder of the store that the forecasts were copied into.
        copied: keys of the Cases that were copied now.
        present: number of Cases of the config that were complete there before, or that another process is making.
        damaged: keys of Cases that were not copied, because their files are not as their records say.
        other: number of complete forecasts of the other store that the config does not ask for.
        absent: number of Cases of the config that the other store does not have.
        left: number of Cases that were not copied, because the copying was stopped.
    """

    store: Path
    copied: tuple[str, ...]
    present: int
    damaged: tuple[str, ...]
    other: int
    absent: int
    left: int

    def show(self, console: Console) -> None:
        """Print counts, and what a run still has to make."""
        text = (
            f"{len(self.copied)} forecasts copied, {self.present} were there before, {self.absent} are for a run to "
            f"make, {self.left} left; {self.other} of the other store are not in the config\nstore: {self.store}"
        )
        if self.damaged:
            text = f"damaged, and not copied: {' '.join(self.damaged)}\n{text}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __repr__(self) -> str:
        return as_text(self.show)

    def _repr_html_(self) -> str:
        return as_html(self.show)


def copy_forecasts(
    config: Config,
    store: AnyPath,
    *,
    address: str | None = None,
    progress: ProgressChoice = None,
    drain: Drain | None = None,
) -> CopiedForecasts:
    """Copy the complete forecasts of a store into the store of a config, which is laid out if it is not there.

    A store can be extended by later initial times alone; this lays out a store for a period that begins earlier, or
    has initial times between those of the other store. The other store is only read. If the copying is stopped, the
    same call goes on.

    >>> gb.copy_forecasts("longer.yaml", "runs/hindcast")
    >>> gb.run("longer.yaml")

    Args:
        config: of a run; as for `plan`. Its ``store`` is the one to copy into, and all that decides the numbers and the
            layout of a forecast must be as in the other store.
        store: folder of the other store.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.
        drain: as for `run`.

    Returns:
        What was copied. Files are compared with their checksums first; damaged forecasts are not copied.

    Raises:
        StoreMismatchError: the forecasts of the store are not those of the config; the message names the difference.
        StoreError: there is no store, or the values of its forecasts are not kept.
        GraphcastBatchError: something that the config names is missing or does not fit.
    """
    shown, source = chosen_progress(progress), open_store(Path(store))
    planned = plan(config)
    if source.only_scores or source.ledger.dropped_steps():
        raise StoreError(
            f"{source.path} must keep the values of all of its forecasts to copy them, but does not (outputs: none or "
            "outputs.members); run the config, which makes them again"
        )
    if planned.config.store.resolve() == source.path:
        raise StoreError(f"the store of the config must be another than {source.path}; change `store` in the config")
    with on_cluster(address, drain, shown) as stopping:
        target = lay_out_like(planned.assembled, source)
        complete = source.ledger.complete(planned.cases)
        present = {case.key for case in target.ledger.complete(complete)}
        wanted = [case for case in complete if case.key not in present]
        work = [(source, target, case) for case in wanted]
        results = list(executor(stopping, shown, "copying")(copy_case, work))
    for result in results:
        if isinstance(result, BaseException):
            raise result
    keys: dict[Copying, list[str]] = {"copied": [], "present": [], "damaged": []}
    for case, result in zip(wanted, results, strict=False):
        keys[result].append(case.key)
    return CopiedForecasts(
        store=target.path,
        copied=tuple(keys["copied"]),
        present=len(present) + len(keys["present"]),
        damaged=tuple(keys["damaged"]),
        other=len(source.ledger.complete_steps().keys() - {case.key for case in planned.cases}),
        absent=len(planned.cases) - len(complete),
        left=len(wanted) - len(results),
    )
