"""Stores of the wave planet with a configuration that can be read, and what their runs would have left beside them."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from graphcast_batch.config.loading import dump_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.members import NO_SEED, UNPERTURBED, Member
from graphcast_batch.pipeline.ensemble_cases import EnsembleCases
from graphcast_batch.setup.ensemble_store import drop_members, ensemble_plan, lay_out_ensembles
from graphcast_batch.stores.case_records import CaseFailure
from graphcast_batch.stores.journal import Journal
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend
from graphcast_batch.timing import Stopwatch
from tests.conftest import SMALL
from tests.evaluation.made import LEVELS, VARIABLES, cases, fill, truth
from tests.evaluation.test_stored import times, written


def better(name, hours, values):
    return values + 2


def worse(name, hours, values):
    return values + 4


def config_of(path, steps=4, **changes):
    content = SMALL | {"store": str(path), "steps": steps, "inputs": {"kind": "archive", "path": "nowhere.zarr"}}
    return parse_config(content | changes, RunConfig, origin="of a test")


def run(path, change=better, *, count=4, complete=None, archive=None, provenance=None, identity=None, **changes):
    """A store of so many Cases, of which the first are whole."""
    planned = cases(count)
    if archive is not None:
        changes["inputs"] = {"kind": "archive", "path": str(archive)}
    config = config_of(path, **changes)
    layout = Layout(truth().grid, LEVELS, VARIABLES, planned[0].steps, 6, config.outputs)
    store = create_or_extend(
        path,
        Plan(tuple(planned), layout),
        identity=identity or {},
        provenance=provenance or {},
        config_text=dump_config(config),
    )
    for case in planned[:complete]:
        fill(store, case, change, truth())
    return store


STATISTICS = ("mean", "standard_deviation", 0.25)
OFFSETS = (0.0, 2.0, 7.0)
"""Of the members from the truth: their mean is 3, their standard deviation the root of 13, their 0.25 quantile 1."""


def ensemble(path, *, count=2, combined=2, kept="all", archive="nowhere.zarr"):
    """A store of three members of each initial time, all complete; of the first initial times they are combined."""
    content = {
        "inputs": {"kind": "archive", "path": str(archive)},
        "ensemble": {"perturbations": {"kind": "gaussian", "members": 2, "amplitude": 0.1}, "control": True},
        "outputs": {"ensemble": list(STATISTICS), "members": kept},
    }
    config = config_of(path, **content)
    members = (Member(0, "m", "0" * 64, UNPERTURBED, NO_SEED),)
    members += tuple(Member(number, "m", "0" * 64, f"gaussian {number - 1}", 7) for number in (1, 2))
    planned = tuple(replace(case, member=member.number) for case in cases(count) for member in members)
    layout = Layout(truth().grid, LEVELS, VARIABLES, planned[0].steps, 6, config.outputs)
    plan = Plan(planned, layout, members=members)
    store = create_or_extend(path, plan, identity={}, provenance={}, config_text=dump_config(config))
    for case in planned:
        fill(store, case, lambda name, hours, values, case=case: values + OFFSETS[case.member], truth())
    of_ensembles = lay_out_ensembles(store, ensemble_plan(plan, config), members, config)
    combine = EnsembleCases(store, of_ensembles, STATISTICS, None, "w", lambda some: drop_members(store, some, config))
    for case in cases(count)[:combined]:
        combine.complete(case, None, 1, Stopwatch(), lambda stage: None, nullcontext())
    return store


def weather(path, count=12):
    """What came true on the wave planet, as an archive."""
    written(path, times(count))
    return path


def journal(store):
    """Tells of every whole Case as a run does; each took 3 s."""
    kept = Journal(store.path, print)
    for key, steps in store.ledger.complete_steps().items():
        record = store.ledger.record(key, steps)
        kept.finished(record.model_copy(update={"seconds": {"read": 1.0, "compute": 2.0}, "worker": "host:7"}))


def fail(store, case, text):
    store.ledger.fail(CaseFailure.of(case, ValueError(text), attempts=2))


def hole(name, hours, values):
    """Nothing is known between 90° and 180° east."""
    values = values.copy()
    values[..., 9:18] = np.nan
    return values
