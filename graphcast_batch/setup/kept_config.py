"""Find the config of a run by its file or by the store that keeps a copy of it."""

from pathlib import Path

from graphcast_batch.config.loading import load_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.stores.store_kinds import open_store


def kept_config(place: Path) -> RunConfig:
    """Return the config of a run; that of a store names the store where it is now, which may have been moved.

    Args:
        place: config file, or folder of a store.

    Raises:
        ConfigError: the config cannot be read, or a value is not what it must be.
        StoreError: the folder is not a store.
        GridError: the points of the store are not a regular grid.
    """
    if not place.is_dir():
        return load_config(place)
    return load_config(open_store(place).config_path).model_copy(update={"store": place.resolve()})
