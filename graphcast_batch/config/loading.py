"""Load the config of a run from a YAML file, and write it as YAML."""

from pathlib import Path

from pydantic import BaseModel

from graphcast_batch.config.documents import as_yaml, read_mapping
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig


def load_config(path: Path) -> RunConfig:
    """Read and check the config of a run.

    Raises:
        ConfigError: the file is missing or is not YAML, or keys or values are not valid; the message names each by its
            dotted path.
    """
    return parse_config(read_mapping(path), RunConfig, origin=str(path))


def dump_config(config: BaseModel) -> str:
    """Return a config as YAML, from which `load_config` restores an equal one."""
    return as_yaml(config.model_dump(mode="json", exclude_none=True))
