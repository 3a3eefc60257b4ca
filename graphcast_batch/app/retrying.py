"""Let the next run try failed Cases again."""

from collections.abc import Sequence
from pathlib import Path

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.errors import StoreError
from graphcast_batch.plan import case_key, parse_key
from graphcast_batch.setup.ensemble_store import ensembles_of
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store


def retry_failed(store: AnyPath, keys: Sequence[str] = ()) -> list[str]:
    """Forget the failures of Cases, so that the next run tries these Cases again.

    >>> gb.retry_failed("runs/demo", ["2020-01-01T00"])

    Args:
        store: folder of the store.
        keys: of the Cases, such as ``2020-01-01T00``, which in an ensemble stands for all members of the initial time;
            without any, all failed Cases.

    Returns:
        Keys of the Cases that the next run tries again.

    Raises:
        StoreError: there is no store, or one of the Cases has not failed.
    """
    opened = open_store(Path(store))
    wanted = {key: _keys_of(key, opened) for key in keys}
    chosen = [each for found in wanted.values() for each in found] or None
    together = ensembles_of(opened)
    freed = {*opened.ledger.free_failed(chosen), *(together.ledger.free_failed(chosen) if together else ())}
    unknown = sorted(key for key, found in wanted.items() if not freed & set(found))
    if unknown:
        raise StoreError(f"{store} has no failed Case {', '.join(unknown)}; see graphcast-batch status {store}")
    return sorted(freed)


def _keys_of(key: str, store: Store) -> list[str]:
    """Return the keys that a key stands for: in an ensemble, an initial time stands for all of its members."""
    try:
        init_time, number = parse_key(key)
    except ValueError:
        return [key]
    return [case_key(init_time, member.number) for member in store.members if number is None] + [key]
