"""Lay out or resume the store of a run, and record what its forecasts were made by."""

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Final, Literal

from pydantic import JsonValue

from graphcast_batch.config.inputs_section import DatasetInputs
from graphcast_batch.config.loading import dump_config
from graphcast_batch.credentials import bare
from graphcast_batch.inputs.statistics import (
    Executor,
    Statistics,
    read_statistics,
    run_serially,
    write_statistics,
)
from graphcast_batch.models.base import Precision
from graphcast_batch.models.model_kinds import DEFAULT_MODEL, MODELS
from graphcast_batch.models.normalization import normalization
from graphcast_batch.perturbations.base import perturbation
from graphcast_batch.setup.ensemble_store import check_ensembles
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.setup.run_statistics import STATISTICS_FOLDER, statistics_of
from graphcast_batch.stores.base import NONE, OUTPUTS, Store
from graphcast_batch.stores.store_kinds import check_place, create_or_extend, open_store, store_exists
from graphcast_batch.stores.time_axis import check_appended

_SETTLED: Final = ("precision", "statistics")
"""What of the identity of a store may be known only once a run begins."""
_VERSIONS: Final = ("graphcast-batch", "jax", "dm-haiku", "numpy", "xarray", "zarr")


def lay_out(run: RunSetup, precision: Precision, executor: Executor) -> Store:
    """Lay out the store of a run, or resume the one that is there; the store keeps the normalization statistics.

    Args:
        run: the run.
        precision: precision of the network.
        executor: runs parts of the computation of statistics in parallel, if they must be computed.

    Raises:
        StoreMismatchError: the store at the path belongs to another run.
        StoreError: the store cannot be written.
        StatisticsError: the statistics cannot be computed from the inputs.
    """
    statistics = settled_statistics(run, executor)
    store = create_or_extend(
        run.config.store,
        run.plan,
        identity=store_identity(run, statistics, precision),
        provenance=_provenance(run, precision),
        config_text=dump_config(run.config),
    )
    if not (store.path / STATISTICS_FOLDER).exists():
        write_statistics(statistics, store.path / STATISTICS_FOLDER)
    return store


def lay_out_like(run: RunSetup, other: Store) -> Store:
    """Lay out the store of a run, or open the one that is there, for forecasts that another store holds already.

    Args:
        run: the run, whose forecasts must be those of the other store, and kept in the same way.
        other: the other store; statistics and precision are those of its forecasts where the config does not say them.

    Raises:
        StoreMismatchError: the other store, or the one at the path, belongs to another run.
        StoreError: the store cannot be written, or the other one has lost its statistics.
    """
    known = store_identity(run, run.statistics, run.config.model.precision)
    identity = {key: value for key, value in other.identity.items() if key in _SETTLED} | dict(known)
    other.refuse_other(run.plan, identity)
    made_by = {**other.attributes, "config": run.config.model_dump(mode="json", exclude_none=True)}
    text = dump_config(run.config)
    store = create_or_extend(run.config.store, run.plan, identity=identity, provenance=made_by, config_text=text)
    if not (store.path / STATISTICS_FOLDER).exists():
        write_statistics(read_statistics(other.path / STATISTICS_FOLDER), store.path / STATISTICS_FOLDER)
    return store


def existing_store(run: RunSetup) -> Store | None:
    """Open the store of a run if it exists, and check that the run may resume it; None if there is none.

    Raises:
        StoreMismatchError: the store belongs to another run, as far as is known before statistics and precision are,
            or an initial time of the run is new and not later than all that the store has.
        StoreError: no store can be made at the path.
    """
    check_place(run.config.store)
    if not store_exists(run.config.store):
        return None
    store = open_store(run.config.store)
    known = store_identity(run, run.statistics, run.config.model.precision)
    unknown = {key: value for key, value in store.identity.items() if key in _SETTLED}
    store.refuse_other(run.plan, {**unknown, **known})
    if not store.only_scores:
        check_appended(store.path, store.init_times, run.plan)
    if run.ensembles:
        check_ensembles(store, run.ensembles, run.plan.members, run.config)
    return store


def store_identity(
    run: RunSetup, statistics: Statistics | None, precision: Literal["auto", "float32", "bfloat16"]
) -> Mapping[str, JsonValue]:
    """Return everything that decides the numbers of a forecast from a given state, as far as it is known."""
    inputs = run.config.inputs
    ensemble = run.config.ensemble
    known: dict[str, JsonValue] = {
        # More dataset files may join a store, under whatever pattern; another archive may not.
        "inputs": _files_of_any_name(inputs)
        if isinstance(inputs, DatasetInputs)
        else bare(inputs.model_dump(mode="json")),
    }
    if not (ensemble and ensemble.checkpoints):  # else the store says of each member which weights it has
        known["weights"] = run.checkpoint.sha256
    if ensemble and ensemble.perturbations:
        known["perturbations"] = bare(ensemble.perturbations.model_dump(mode="json", exclude={"members", "seed"}))
    if run.config.model.implementation != DEFAULT_MODEL:
        known["implementation"] = run.config.model.implementation
    if not run.config.outputs.forecasts:
        known[OUTPUTS] = NONE
    if precision != "auto":
        known["precision"] = precision
    if statistics:
        constants = normalization(run.channels, statistics.by_kind)
        known["statistics"] = hashlib.sha256(b"".join(part.tobytes() for part in constants)).hexdigest()
    return known


def _files_of_any_name(inputs: DatasetInputs) -> JsonValue:
    """Return how names and units of dataset files are translated; only their kind where nothing is translated."""
    read = inputs.model_dump(mode="json", include={"names", "units"}, exclude_defaults=True)
    return {"kind": inputs.kind, **read} if read else inputs.kind


def _provenance(run: RunSetup, precision: str) -> Mapping[str, JsonValue]:
    checkpoint, ensemble = run.checkpoint, run.config.ensemble
    return {
        "title": "GraphCast forecasts",
        **({} if ensemble and ensemble.checkpoints else {"source": checkpoint.description}),
        **({} if ensemble and ensemble.checkpoints else {"weights_sha256": checkpoint.sha256}),
        "weights_license": checkpoint.license,
        "architecture": checkpoint.architecture.model_dump(mode="json", exclude_none=True),
        "task": checkpoint.task.model_dump(mode="json"),
        "precision": precision,
        "implementation": run.config.model.implementation,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _VERSIONS},
            **MODELS[run.config.model.implementation].packages(),
        },
        "config": run.config.model_dump(mode="json", exclude_none=True),
    }


def settled_statistics(run: RunSetup, executor: Executor = run_serially) -> Statistics:
    """Return the normalization statistics of a run, given or computed, complete for all of its variables.

    Args:
        run: the run.
        executor: runs parts of the computation in parallel, if the statistics must be computed.

    Raises:
        StatisticsError: the statistics cannot be computed from the inputs, or lack a variable.
        InputError: the inputs cannot be read.
    """
    statistics = run.statistics or statistics_of(run.config, None, executor)
    normalization(run.channels, statistics.by_kind)
    ensemble = run.config.ensemble
    if ensemble and ensemble.perturbations:
        chosen, task = ensemble.perturbations, run.checkpoint.task
        perturbation(chosen, statistics, task, run.source.grid, run.members)  # for its checks
    return statistics
