"""A call of one run that reaches the store after another run has made the Case; minutes, so only with ``-m long``."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from graphcast_batch.integrity.verify import verify
from graphcast_batch.stores.store_kinds import open_store
from tests.chaos.storm import LEASE_SECONDS, STEPS, TINY, begin, nodes, wait, write_run

KEY = "2020-01-01T00"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with nodes(tmp_path_factory.mktemp("programs")) as there:
        yield there


@pytest.mark.long
def test_what_a_worker_publishes_after_another_run_took_its_case_over_leaves_the_longer_forecast_whole(
    cluster, tmp_path
):
    store, told = tmp_path / "run", tmp_path / "told"
    first = write_run(tmp_path, "first", store, wrong={KEY: "late"}, cases=1, count=1)
    second = write_run(
        tmp_path, "second", store, cases=1, count=1, steps=2 * STEPS, model=TINY["model"] | {"batch_size": 2}
    )
    folder = Path(first[2].folder)
    paused = begin(cluster, *first[:2], told)
    try:
        wait(240, lambda: (folder / "hung").exists())
        paused.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_SECONDS + 1)
        other = begin(cluster, *second[:2], told)
        assert other.wait(240) == 0, told.read_text()
        before = open_store(store).ledger.record(KEY)
        (folder / "land").touch()
        time.sleep(3)
    finally:
        paused.send_signal(signal.SIGCONT)
        code = paused.wait(240)

    assert code == 0, told.read_text()
    assert verify(store, deep=True).flaws == (), told.read_text()
    assert open_store(store).ledger.record(KEY) == before
    assert (before.steps, before.details["batch_size"]) == (2 * STEPS, 2)
    assert not list((store / ".staging").iterdir())
    for name, values in open_store(store).forecasts().items():
        assert np.isfinite(values.isel(time=0)).all(), name
