"""Describe configs and recipes as JSON schemas, for editors and other programs."""

from typing import Any, Literal

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.recipe import TrainingRecipe

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""Which pydantic writes without naming it."""


def config_schema(kind: Literal["run", "recipe"] = "run") -> dict[str, Any]:
    """Return the JSON schema of a config of a run, or of a recipe of a training.

    >>> gb.config_schema()["properties"]["steps"]["description"]

    Args:
        kind: "run" or "recipe".
    """
    model = RunConfig if kind == "run" else TrainingRecipe
    return {"$schema": _DIALECT} | model.model_json_schema()
