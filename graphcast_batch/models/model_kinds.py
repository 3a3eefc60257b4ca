"""List the models that forecasts can be made with: the one table from which everything else chooses."""

from collections.abc import Mapping
from typing import Final

from graphcast_batch.config.model_section import Implementation
from graphcast_batch.models.base import ModelKind
from graphcast_batch.models.deepmind.deepmind_kind import DeepmindKind
from graphcast_batch.models.graphcast.graphcast_kind import GraphcastKind

MODELS: Final[Mapping[Implementation, ModelKind]] = {"native": GraphcastKind(), "deepmind": DeepmindKind()}
"""The models by the name that a config gives them."""

DEFAULT_MODEL: Final[Implementation] = "native"
"""The model of a config that names none, and of a store that names none."""
