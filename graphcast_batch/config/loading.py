"""Load the config of a run from a YAML file, and write it as YAML."""

from pathlib import Path

from pydantic import BaseModel

from graphcast_batch.config.documents import as_yaml, read_mapping
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig


def load_config(path: Path) -> RunConfig:
    """Reads and checks a run's configuration.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value is not what it must be; every finding is
            named by its dotted path.
    """
    return parse_config(read_mapping(path), RunConfig, origin=str(path))


def dump_config(config: BaseModel) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one."""
    return as_yaml(config.model_dump(mode="json", exclude_none=True))
