"""Stores of the wave planet with a configuration that can be read, and what their runs would have left beside them."""

import numpy as np

from graphcast_batch.config.loading import dump_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.stores.case_records import CaseFailure
from graphcast_batch.stores.journal import Journal
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend
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
