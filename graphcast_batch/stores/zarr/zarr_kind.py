"""Offer zarr stores on shared file systems as a kind of store; see the port `StoreKind` in `store_kinds`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from graphcast_batch.stores.base import CaseExecutor, Store
from graphcast_batch.stores.flaws import CasesVerification, Flaw, ForecastRepair
from graphcast_batch.stores.layout import Plan
from graphcast_batch.stores.zarr.case_repair import repair_cases
from graphcast_batch.stores.zarr.case_verification import verify_cases
from graphcast_batch.stores.zarr.complete_case import flaws_of
from graphcast_batch.stores.zarr.store import ZarrStore


class ZarrKind:
    """Stores in zarr's format, version 3, in a folder that all nodes share."""

    def exists(self, path: Path) -> bool:
        """Return whether a store was laid out at a path."""
        return ZarrStore.exists(path)

    def check_place(self, path: Path) -> None:
        """Refuse a path at which there is no store and none can be laid out."""
        ZarrStore.check_place(path)

    def create_or_extend(
        self,
        path: Path,
        plan: Plan,
        *,
        identity: Mapping[str, JsonValue],
        provenance: Mapping[str, JsonValue],
        config_text: str,
    ) -> ZarrStore:
        """Lay out the store of a plan, or open the one that is there, extended where the plan asks for more."""
        return ZarrStore.create_or_extend(path, plan, identity=identity, provenance=provenance, config_text=config_text)

    def open(self, path: Path) -> ZarrStore:
        """Open a store that was laid out before."""
        return ZarrStore.open(path)

    def verify(self, path: Path, *, deep: bool, executor: CaseExecutor) -> CasesVerification:
        """Compare the forecasts of a store with their records."""
        return verify_cases(path, deep=deep, executor=executor)

    def flaws_of(self, store: Store, key: str) -> tuple[Flaw, ...]:
        """Compare every file of one complete Case with its record."""
        assert isinstance(store, ZarrStore), "stores are verified by their own kind"
        return flaws_of(store, key)

    def repair(self, path: Path, flaws: Sequence[Flaw]) -> ForecastRepair:
        """Forget damaged Cases, and remove unexpected files."""
        return repair_cases(path, flaws)
