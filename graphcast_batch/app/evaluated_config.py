"""Read the config of an evaluation: that of a run or store, with the values that a caller gives."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.config.loading import load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.setup.kept_config import kept_config

Inputs = ArchiveInputs | DatasetInputs | SyntheticInputs


def evaluated_config(
    place: AnyPath,
    truth: AnyPath | Mapping[str, Any] | None = None,
    climatology: AnyPath | None = None,
    members: Sequence[AnyPath] = (),
    lagged: Sequence[int] = (),
    climatology_years: tuple[int, int] | None = None,
) -> RunConfig:
    """Return the config of a run or store, with other values of the section ``scores`` where they are given.

    Raises:
        ConfigError: a config cannot be read, or a value is not what it must be.
        StoreError: the folder is not a store.
    """
    config = kept_config(Path(place))
    given: dict[str, object] = {} if climatology is None else {"climatology": Path(climatology).absolute()}
    if truth is not None:
        given["truth"] = truth_inputs(truth)
    if members:
        given["members"] = tuple(Path(member).absolute() for member in members)
    if lagged:
        given["lagged"] = parse_config({"lagged": tuple(lagged)}, ScoresConfig, origin="given").lagged
    if climatology_years:
        years = dict(zip(("first", "last"), climatology_years, strict=True))
        given["climatology_years"] = parse_config(
            {"climatology_years": years}, ScoresConfig, origin="given"
        ).climatology_years
    return config.model_copy(update={"scores": config.scores.model_copy(update=given)})


def truth_inputs(truth: AnyPath | Mapping[str, Any]) -> Inputs:
    """Return the inputs that a caller names: those of a config, a section ``inputs``, or an archive.

    Raises:
        ConfigError: a key or value is not what it must be.
    """
    if isinstance(truth, Mapping):
        found = parse_config({"truth": truth}, ScoresConfig, origin="given").truth
        assert found is not None
        return found
    place = os.fspath(truth)
    if place.endswith((".yaml", ".yml")):
        return load_config(Path(place)).inputs
    return parse_config({"kind": "archive", "path": place}, ArchiveInputs, origin="of --truth")
