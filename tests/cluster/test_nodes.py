"""Several nodes, all on this machine: workers, nodes and drivers are killed, and the run goes on without blame."""

import os
import re
import signal
import time

import pytest

from graphcast_batch.stores.store_kinds import open_store, store_exists
from tests.chaos.storm import add_node, begin, nodes, wait, workers, write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with nodes(tmp_path_factory.mktemp("programs")) as there:
        yield there


class Running:
    """A run of so many Cases in a process of its own."""

    CASES = 60

    def __init__(self, cluster, folder, **trouble):
        self._cluster, self._folder = cluster, folder
        self.store = folder / "run"
        self.config, self.file, self.trouble = write_run(
            folder, "a", self.store, cases=self.CASES, read_limit=30.0, **trouble
        )
        self.again()

    def again(self):
        self.process = begin(self._cluster, self.config, self.file, self._folder / "told")

    @property
    def told(self):
        return (self._folder / "told").read_text()

    def records(self):
        ledger = open_store(self.store).ledger
        return [ledger.record(path.stem) for path in self.store.glob("ledger/steps-*/*.json")]

    def made_by(self):
        """Process numbers of workers that have made a Case."""
        return {int(record.worker.split(":")[1]) for record in self.records()} if store_exists(self.store) else set()

    def until(self, count):
        """Waits until each of so many workers has made a Case."""
        deadline = time.monotonic() + 180
        while len(self.made_by()) < count:
            assert self.process.poll() is None, self.told
            assert time.monotonic() < deadline, self.told
            time.sleep(0.05)

    def ends(self):
        """Waits until it has ended well; the attempts that each Case took."""
        assert self.process.wait(240) == 0, self.told
        records = self.records()
        assert len(records) == self.CASES
        assert not list(self.store.glob("ledger/*.claim"))
        return [record.attempts for record in records]


@pytest.fixture
def running(cluster, tmp_path):
    """Begins a run, and ends it with the test."""
    begun = []

    def begin_one(**trouble):
        begun.append(Running(cluster, tmp_path, **trouble))
        return begun[-1]

    yield begin_one
    for run in begun:
        run.process.kill()
        run.process.wait()


def test_several_workers_killed_at_once_cost_no_attempt_of_cases_that_were_not_alone(cluster, running):
    run = running()
    run.until(3)

    for pid in workers(cluster)[:2]:
        os.kill(pid, signal.SIGKILL)

    assert max(run.ends()) <= 2
    assert len(re.findall("worker lost", run.told)) == 2
    assert not list((run.store / ".staging").iterdir())


def test_a_node_that_is_lost_costs_no_attempt_and_the_one_in_its_place_is_used(cluster, running):
    run = running(read_seconds=1.0, count=None)
    run.until(4)
    assert [len(workers(cluster, node)) for node in cluster.worker_nodes] == [2, 2]  # none where there are no cores
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    new = add_node(cluster)
    wait(60, lambda: workers(cluster, new))
    pids = workers(cluster, new)

    assert set(run.ends()) == {1}, run.told
    assert "node lost" in run.told
    assert "failed and will be tried again" not in run.told
    assert run.made_by() & set(pids)


def test_a_killed_driver_starts_again_at_once_and_makes_the_rest(cluster, running):
    run = running()
    run.until(3)
    run.process.kill()
    run.process.wait()
    run.again()

    run.ends()
    assert len(run.trouble.tries) <= run.CASES + 6


def test_a_worker_that_is_stopped_for_good_is_given_up_and_its_cases_are_made(cluster, running):
    run = running()
    run.until(3)
    stopped = workers(cluster)[0]

    os.kill(stopped, signal.SIGSTOP)

    run.ends()
    assert re.search(r"worker \d has not answered for longer than any stage may take", run.told)
    wait(30, lambda: stopped not in workers(cluster))  # Ray gives it 5 s to end by itself
    assert stopped not in workers(cluster)


def test_a_driver_that_was_stopped_for_longer_than_its_lease_charges_no_case_that_another_took_over(cluster, running):
    run = running(read_seconds=1.0)
    run.until(3)
    run.process.send_signal(signal.SIGSTOP)
    first = run.process
    run.again()
    run.until(4)
    first.send_signal(signal.SIGCONT)

    attempts = run.ends()
    assert first.wait(120) in (0, 75)
    assert set(attempts) == {1}
    assert "failed and will be tried again" not in run.told
