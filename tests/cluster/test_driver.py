"""The driver on a real Ray: failures are attributed, retried and recorded, and the run goes on."""

import errno
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import ray
import xarray as xr

from graphcast_batch.cluster import driver, held_leases, store_refusals, worker, worker_pool, worker_watch
from graphcast_batch.cluster.dispatch_loop import DispatchLoop
from graphcast_batch.cluster.dispatch_rules import Dispatch
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.outcome import CompletedCases
from graphcast_batch.cluster.walltime import Walltime
from graphcast_batch.cluster.worker import Worker
from graphcast_batch.cluster.worker_start import WorkerHandle
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ClusterError, ConfigError, InputError, StoreError
from graphcast_batch.files.leases import FileLease
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.pipeline.worker_context import CompletedCase
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.stores.zarr.ledger import FileLedger
from graphcast_batch.timing import balance
from tests.conftest import SMALL, TWO_WORKERS

ON_TWO = SMALL | TWO_WORKERS
KEYS = [f"2020-01-01T{hour:02d}" for hour in (0, 6, 12, 18)]


class Troubled(SyntheticArchive):
    """A planet on which reading some Cases goes wrong: an exception, a killed process, or a fault that passes."""

    def trouble(self, folder, key, kind):
        self._folder, self._key, self._kind = folder, key, kind
        return self

    def read(self, case, task):
        if case.key == self._key:
            with (self._folder / "tries").open("a") as tries:
                tries.write(f"{os.getpid()}\n")
            count = len((self._folder / "tries").read_text().splitlines())
            if self._kind == "input":
                raise InputError("the weather is missing")
            if self._kind == "always":
                raise OSError("stale file handle")
            if self._kind == "once" and count == 1:
                raise OSError("stale file handle")
            if self._kind == "lease lost once" and count == 1:
                lease = self._folder / "run" / "ledger" / f"{case.key}.claim"
                lease.unlink()
                FileLease.take(lease, 5)
            if self._kind == "slow":
                time.sleep(6)
            if self._kind == "hanging once" and count == 1:
                time.sleep(3600)
            if self._kind == "deadly" or (self._kind == "deadly once" and count == 1):
                os._exit(9)
        return super().read(case, task)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Watch:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def started(self, workers, device, total, complete):
        self.told.append(("started", workers, total, complete))

    def finished(self, record):
        self.told.append(("finished", record.key, record.attempts))

    def combined(self, record):
        self.told.append(("combined", record.key, record.attempts))

    def under_way(self, worker, stages):
        self.told.append(("under_way", worker, stages))

    def retried(self, case, error):
        self.told.append(("retried", case.key, str(error)))

    def failed(self, failure):
        self.told.append(("failed", failure.key, failure.attempts))

    def note(self, event, text):
        self.told.append((event, text))

    def of(self, kind):
        return [rest for first, *rest in self.told if first == kind]


def troubled(tmp_path, key, kind, **changes):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")} | changes, RunConfig, origin="here")
    assembled = assemble(config)
    assembled.source.__class__ = Troubled
    assembled.source.trouble(tmp_path, key, kind)
    return assembled


def run_with(tmp_path, key, kind, retries=1, **changes):
    watch = Watch()
    return driver.run(troubled(tmp_path, key, kind, retries=retries, **changes), watch, Drain()), watch


def tries(tmp_path):
    return (tmp_path / "tries").read_text().split()


def test_an_error_of_the_input_costs_no_second_try_and_the_others_go_on(cluster, tmp_path):
    outcome, _ = run_with(tmp_path, KEYS[1], "input", retries=3)

    assert (len(outcome.complete), len(outcome.failed), outcome.left) == (3, 1, 0)
    assert len(tries(tmp_path)) == 1
    failure = outcome.failed[0]
    assert (failure.key, failure.error, failure.message, failure.attempts) == (
        KEYS[1],
        "InputError",
        "the weather is missing",
        1,
    )
    assert re.search(r"on the worker:.*in read.*the weather is missing", failure.traceback, re.DOTALL)
    assert np.isnan(xr.open_zarr(tmp_path / "run")["2m_temperature"].isel(time=1).values).all()


def test_a_fault_that_passes_costs_a_retry_and_no_case(cluster, tmp_path):
    outcome, watch = run_with(tmp_path, KEYS[2], "once")

    assert (len(outcome.complete), outcome.failed) == (4, ())
    assert watch.of("retried") == [[KEYS[2], "stale file handle"]]
    assert [KEYS[2], 2] in watch.of("finished")


def test_a_case_with_a_lasting_fault_has_failed_after_its_retries(cluster, tmp_path):
    outcome, _ = run_with(tmp_path, KEYS[0], "always", retries=2)

    assert len(tries(tmp_path)) == 3
    assert [(failure.key, failure.error, failure.attempts) for failure in outcome.failed] == [(KEYS[0], "OSError", 3)]
    assert len(outcome.complete) == 3


def test_a_worker_that_dies_is_replaced_and_its_cases_are_made_by_another(cluster, tmp_path):
    outcome, watch = run_with(tmp_path, KEYS[1], "deadly once", retries=2)

    assert (len(outcome.complete), outcome.failed) == (4, ())
    assert len(set(tries(tmp_path))) == 2
    assert sorted(key for key, _ in watch.of("finished")) == KEYS


def test_a_case_that_kills_every_worker_fails_and_the_others_are_completed(cluster, tmp_path):
    outcome, _ = run_with(tmp_path, KEYS[3], "deadly", retries=1)

    assert [failure.key for failure in outcome.failed] == [KEYS[3]]
    assert len(outcome.complete) == 3
    assert "the worker died while it made" in outcome.failed[0].message


def test_cases_that_a_living_driver_has_leased_are_waited_for_and_made_when_it_releases_them(cluster, tmp_path):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")
    assembled = assemble(config)
    store = lay_out(assembled, "float32", run_serially)
    lease = store.ledger.lease(assembled.plan.cases[0], 60)
    releasing = threading.Timer(15, lease.release)
    releasing.start()

    outcome = driver.run(assembled, Watch(), Drain())

    assert not releasing.is_alive()
    assert (len(outcome.complete), outcome.left) == (4, 0)


def test_two_drivers_share_a_run_and_make_no_case_twice(cluster, tmp_path):
    config = parse_config(
        ON_TWO | {"store": str(tmp_path / "run"), "times": SMALL["times"] | {"last": "2020-01-03T18"}},
        RunConfig,
        origin="here",
    )
    assembled = assemble(config)
    lay_out(assembled, "float32", run_serially)
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda _: driver.run(assembled, Watch(), Drain()), range(2)))

    assert [len(outcome.complete) for outcome in outcomes] == [12, 12]
    made = [record.key for outcome in outcomes for record in outcome.made]
    assert sorted(made) == [case.key for case in assembled.plan.cases]


def test_a_case_that_takes_longer_than_its_lease_stays_its_drivers(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(held_leases, "_LEASE_SECONDS", 3.0)
    monkeypatch.setattr(held_leases, "_RENEW_SECONDS", 0.5)
    assembled = troubled(tmp_path, KEYS[1], "slow")
    lay_out(assembled, "float32", run_serially)
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda _: driver.run(assembled, Watch(), Drain()), range(2)))

    assert [len(outcome.complete) for outcome in outcomes] == [4, 4]
    assert len(tries(tmp_path)) == 1


def test_a_case_that_another_has_taken_over_is_left_to_it_and_costs_no_attempt(cluster, tmp_path):
    outcome, watch = run_with(tmp_path, KEYS[1], "lease lost once", retries=0)

    assert (len(outcome.complete), outcome.failed) == (4, ())
    assert watch.of("retried") == []
    assert sorted(watch.of("finished")) == [[key, 1] for key in KEYS]
    assert len(tries(tmp_path)) == 2


def test_a_read_that_hangs_costs_a_worker_and_an_attempt_of_this_case_alone(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_watch, "_LONGEST_PAUSE_SECONDS", 0.5)

    outcome, watch = run_with(tmp_path, KEYS[1], "hanging once", time_limits={"read": 4.0})

    assert (len(outcome.complete), outcome.failed) == (4, ())
    (told,) = watch.of("retried")
    assert told[0] == KEYS[1]
    assert re.search(r"must not be in the stage read for longer than time_limits\.read", told[1])
    assert any((stage.key, stage.name) == (KEYS[1], "read") for _, stages in watch.of("under_way") for stage in stages)
    assert sorted(watch.of("finished")) == [[key, 1 + (key == KEYS[1])] for key in KEYS]


def test_a_lease_that_the_store_refuses_puts_its_case_off_and_the_run_goes_on(cluster, tmp_path, monkeypatch):
    lease, leased = FileLedger.lease, []

    def failing_once(ledger, case, lease_seconds):
        leased.append(case.key)
        if len(leased) == 1:
            raise StoreError("the network is down")
        return lease(ledger, case, lease_seconds)

    monkeypatch.setattr(FileLedger, "lease", failing_once)
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run"), "retries": 1}, RunConfig, origin="here")
    watch = Watch()
    outcome = driver.run(assemble(config), watch, Drain())

    assert (len(outcome.complete), outcome.failed) == (4, ())
    assert watch.of("retried") == [[KEYS[0], "the network is down"]]
    assert watch.of("store refused") == [["the network is down"]]
    assert sorted(watch.of("finished")) == [[key, 1 + (key == KEYS[0])] for key in KEYS]


def test_a_renewal_that_fails_costs_nothing_while_the_lease_lasts(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(held_leases, "_RENEW_SECONDS", 0.5)
    renew, renewed = FileLease.renew, []

    def failing_once(lease):
        renewed.append(lease.path.stem)
        if len(renewed) == 1:
            raise StoreError("the network is down")
        return renew(lease)

    monkeypatch.setattr(FileLease, "renew", failing_once)
    outcome, watch = run_with(tmp_path, KEYS[1], "slow")

    assert (len(outcome.complete), outcome.failed) == (4, ())
    assert watch.of("store refused") == [["the network is down"]]
    assert renewed.count(KEYS[1]) > 2


def test_a_handle_that_is_stale_while_failed_cases_are_freed_or_counted_does_not_end_the_run(
    cluster, tmp_path, monkeypatch
):
    def stale_once(name):
        call, called = getattr(FileLedger, name), []

        def stale(*arguments):
            called.append(name)
            if len(called) == 1:
                raise StoreError(f"{name} failed") from OSError(errno.ESTALE, "Stale file handle")
            return call(*arguments)

        monkeypatch.setattr(FileLedger, name, stale)
        return called

    def broken_once(dispatch):
        return retired.append(1) or next(iter(dispatch._workers)) if not retired else None

    retired = []
    called = [stale_once(name) for name in ("free_failed", "states")]
    monkeypatch.setattr(Dispatch, "broken", broken_once)
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")
    watch = Watch()
    outcome = driver.run(assemble(config), watch, Drain())
    assert (len(outcome.complete), outcome.failed) == (4, ())
    assert all(called)
    assert watch.of("store refused") == [["free_failed failed"]]


def test_a_store_that_refuses_everything_ends_the_run(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(store_refusals, "PATIENCE_SECONDS", 2.0)

    class Removing(Watch):
        def started(self, *told):
            (tmp_path / "run" / "ledger").rename(tmp_path / "ledger")

    config = parse_config(ON_TWO | {"store": str(tmp_path / "run"), "retries": 9}, RunConfig, origin="here")
    with pytest.raises(StoreError, match=r"the lease .* failed: .*put back what was removed"):
        driver.run(assemble(config), Removing(), Drain())


def test_what_was_made_is_kept_with_its_spans_only_where_it_is_asked_for(cluster, tmp_path):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")
    outcome = driver.run(assemble(config), Watch(), Drain(), traced=True)

    assert sorted(made.record.key for made in outcome.trace) == KEYS
    assert all({span.stage for span in made.spans} >= {"read", "check", "write"} for made in outcome.trace)
    assert outcome.balance == balance(
        {
            worker: [span for made in outcome.trace if made.record.worker == worker for span in made.spans]
            for worker in dict.fromkeys(made.record.worker for made in outcome.trace)
        }
    )
    assert driver.run(assemble(config.model_copy(update={"store": tmp_path / "other"})), Watch(), Drain()).trace == ()


def test_calls_over_the_cluster_give_results_in_order_and_errors_in_their_place(cluster):
    def half(number):
        time.sleep(0.01 * (3 - number))
        if number == 1:
            raise ValueError("odd")
        return number // 2

    results = list(driver.each(half, [(number,) for number in (0, 1, 2)], Drain()))

    assert results[0] == 0
    assert results[2] == 1
    assert isinstance(results[1], ValueError)


def test_a_worker_that_rays_memory_monitor_ended_is_replaced_and_the_cause_is_reported(cluster, tmp_path, monkeypatch):
    get, ended = ray.get, []

    def end_one(references, **options):
        result = get(references, **options)
        if isinstance(result, CompletedCase) and not ended:
            ended.append(result)
            raise ray.exceptions.OutOfMemoryError("it was 22.53GB / 23.42GB (0.962), which exceeds the threshold")
        return result

    monkeypatch.setattr(ray, "get", end_one)
    outcome, watch = run_with(tmp_path, "none", "none")

    assert len(ended) == 1
    assert (len(outcome.complete), outcome.failed) == (4, ())
    (text,) = watch.of("worker lost")[0]
    assert "Ray's memory monitor ended the worker, because 22.53GB of 23.42GB were used on its node" in text
    assert "workers.count" in text


class FailingStarter:
    """A starter whose workers die at their start, as JAX cannot start on their node."""

    places = 2
    in_flight = 4

    def fault(self, worker):
        return f"JAX cannot start on {worker.node}"


def test_a_node_without_jax_ends_no_run_that_others_work_on(tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    monkeypatch.setattr(worker_pool, "is_gone", lambda node: False)
    run, watch = troubled(tmp_path, "none", "none"), Watch()
    store = lay_out(run, "float32", run_serially)
    parts = FailingStarter(), store, run.plan.cases, run.config, watch, Drain(), CompletedCases()
    worker = WorkerHandle(None, "worker 2", "node b")

    pool = DispatchLoop(*parts)._pool
    pool.ready["worker 1"] = WorkerHandle(None, "worker 1", "node a")
    pool._failed_to_start(worker, ray.exceptions.ActorDiedError())
    assert len(watch.of("worker lost")) == 1

    with pytest.raises(ClusterError, match="a worker died before its first Case: JAX cannot start on node b"):
        DispatchLoop(*parts)._pool._failed_to_start(worker, ray.exceptions.ActorDiedError())


@pytest.mark.parametrize("words", [["check"], ["stats", "--to", "statistics"]])
def test_a_job_with_more_nodes_than_ray_is_told_of_it_by_whatever_command(words, command, small_config):
    two = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "1"}

    told = command(*words, small_config(), also=two)

    assert told.returncode == 0, told.stderr
    assert "Ray has 1 of the 2 nodes of this job, and the others stay idle" in told.stderr


def test_more_workers_than_gpus_and_gpus_that_are_not_there_are_refused(cluster, monkeypatch, tmp_path):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")
    workers = config.workers.model_copy(update={"device": "gpu", "count": 2})
    assembled = assemble(config.model_copy(update={"workers": workers}))
    with pytest.raises(ClusterError, match=r"workers\.device is gpu, but Ray sees no GPU"):
        driver.run(assembled, Watch(), Drain())

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    with pytest.raises(ClusterError, match=r"workers\.count must be at most the number of GPUs, 1, but is 2"):
        driver.run(assembled, Watch(), Drain())


def arguments(run, *, accelerated, **changes):
    uses = [replace(use, **changes) for use in memory_uses(run, accelerated=accelerated)]
    return run.config, run.source, run.members, uses, 1, None


def test_a_gpu_that_jax_does_not_see_is_reported_before_any_case(tmp_path):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")

    with pytest.raises(ClusterError, match=r"Ray gave a worker on .* a GPU, but JAX sees only the CPU there"):
        Worker().prepare(arguments(assemble(config), accelerated=True))


def test_a_gpu_that_is_too_small_for_a_case_is_reported_before_any(monkeypatch, tmp_path):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")
    monkeypatch.setattr(worker, "backend", lambda: "gpu")
    monkeypatch.setattr(worker, "device_bytes", lambda: 8 * 10**9)

    with pytest.raises(ConfigError, match=r"needs at least 9 GB in bfloat16, but the GPU .* has 8 GB; take a coarser"):
        Worker().prepare(arguments(assemble(config), accelerated=True, device_bytes=9 * 10**9))


def test_a_new_worker_removes_what_the_dead_of_its_host_left_half_written(tmp_path):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")
    assembled = assemble(config)
    store = lay_out(assembled, "float32", run_serially)
    dying = (
        "import os, sys, numpy; from graphcast_batch.stores.zarr.store import ZarrStore;"
        "from graphcast_batch.plan import Case;"
        "ZarrStore.open(sys.argv[1]).attempt(Case(numpy.datetime64('2020-01-01T00', 'h'), 3, 6)).__enter__();"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", dying, store.path], check=True)
    assert len(list((store.path / ".staging").iterdir())) == 1

    Worker().prepare(arguments(assembled, accelerated=False))

    assert list((store.path / ".staging").iterdir()) == []


def test_a_run_that_is_asked_to_stop_before_it_began_hands_nothing_out(cluster, tmp_path):
    config = parse_config(ON_TWO | {"store": str(tmp_path / "run")}, RunConfig, origin="here")
    drain = Drain()
    drain._ask(15, None)

    outcome = driver.run(assemble(config), Watch(), drain)

    assert (outcome.complete, outcome.left) == ((), 4)
    assert list(driver.each(lambda text: text, [("abc",)] * 9, drain)) == []
    with pytest.raises(KeyboardInterrupt):
        drain._ask(15, None)


def test_a_case_that_would_not_be_complete_in_time_is_left_for_the_next_job(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(Walltime, "fits", lambda _, case, now: case.key < KEYS[2])
    outcome, watch = run_with(tmp_path, KEYS[1], "none")

    assert ([case.key for case in outcome.complete], outcome.left) == (KEYS[:2], 2)
    assert re.search("no further Case is handed out: a Case takes up to", watch.of("walltime")[0][0])


def test_cases_in_progress_at_the_end_of_a_job_are_dropped_without_a_trace(cluster, tmp_path, monkeypatch):
    watch = Watch()
    monkeypatch.setattr(Walltime, "over", lambda _, now: len(watch.of("finished")) >= 2)
    run = troubled(tmp_path, KEYS[1], "hanging once")
    outcome = driver.run(run, watch, Drain())

    # Behind the one that hangs, another may wait on the same worker.
    assert outcome.failed == ()
    assert 1 <= outcome.left == 4 - len(outcome.complete) <= 2
    assert KEYS[1] not in {case.key for case in outcome.complete}
    assert re.fullmatch("the job ends; Cases in progress that are dropped: [12]", watch.of("walltime")[0][0])
    assert not list(tmp_path.glob("run/ledger/*.claim"))
    assert np.isnan(xr.open_zarr(tmp_path / "run")["2m_temperature"].isel(time=1).values).all()
    monkeypatch.undo()
    assert len(driver.run(run, Watch(), Drain()).complete) == 4
    assert not list(tmp_path.glob("run/.staging/*"))


def test_a_job_that_ends_before_its_first_case_is_complete_is_an_error(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("graphcast_batch.cluster.walltime.RESERVE_SECONDS", 2.0)
    monkeypatch.setattr("graphcast_batch.cluster.walltime._LAST_SECONDS", 1.0)
    monkeypatch.setattr("graphcast_batch.cluster.drain.RESERVE_SECONDS", 2.0)
    assembled = troubled(tmp_path, KEYS[0], "hanging once", times=SMALL["times"] | {"last": KEYS[0]})

    with pytest.raises(
        ClusterError, match=r"must last for at least one Case, but in \d+ s of its \d+ s none .* more time"
    ):
        driver.run(assembled, Watch(), Drain(end=time.time() + 10))

    assert not list(tmp_path.glob("run/ledger/*.claim"))


@pytest.mark.slow  # also tests/slurm shows it
def test_a_run_in_a_job_of_slurm_ends_in_time_with_work_left(command, small_config, tmp_path):
    config = small_config(times=SMALL["times"] | {"last": "2021-01-01T00"})
    end = int(time.time()) + 78
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_START_TIME": f"{end - 3600}", "SLURM_JOB_END_TIME": f"{end}"}

    ended = command("run", config, env=os.environ | job)

    assert ended.returncode == 75, ended.stderr
    assert time.time() < end
    assert re.search(r"\d+ of 1465 Cases complete, .* 0 failed", ended.stdout)
    assert not list(tmp_path.glob("run/ledger/*.claim"))
    assert command("verify", tmp_path / "run").returncode == 0
