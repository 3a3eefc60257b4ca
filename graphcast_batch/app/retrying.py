"""Let the next run try failed Cases again."""

from collections.abc import Sequence
from pathlib import Path

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.errors import StoreError
from graphcast_batch.stores.store_kinds import open_store


def retry_failed(store: AnyPath, keys: Sequence[str] = ()) -> list[str]:
    """Forget the failures of Cases, so that the next run tries these Cases again.

    >>> gb.retry_failed("runs/demo", ["2020-01-01T00"])

    Args:
        store: folder of the store.
        keys: of the Cases, such as ``2020-01-01T00``; without any, all failed Cases.

    Returns:
        Keys of the Cases that the next run tries again.

    Raises:
        StoreError: there is no store, or one of the Cases has not failed.
    """
    freed = open_store(Path(store)).ledger.free_failed(list(keys) or None)
    unknown = sorted(set(keys) - set(freed))
    if unknown:
        raise StoreError(f"{store} has no failed Case {', '.join(unknown)}; see graphcast-batch status {store}")
    return list(freed)
