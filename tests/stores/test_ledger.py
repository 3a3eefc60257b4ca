import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import publish
from graphcast_batch.files.leases import Owner, owner_in
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord, CaseState
from graphcast_batch.stores.zarr.ledger import FileLedger
from tests.forks import PROCESSES


def case_at(index, steps=4):
    return Case(np.datetime64("2020-01-01T00", "h") + np.timedelta64(6 * index, "h"), steps, 6)


def record_of(case, **changes):
    fields = {
        "key": case.key,
        "init_time": f"{case.key}:00:00Z",
        "steps": case.steps,
        "bytes": 12,
        "files": {"2m_temperature/c.0.0.0.0": (12, "0badcafe")},
        "seconds": {"compute": 1.5},
        "host": "node1",
        "device": "cpu",
        "worker": "worker-0",
        "attempts": 1,
        "finished_at": "2026-01-01T00:00:00+00:00",
        "details": {"note": ["a", 1, None]},
    }
    return CaseRecord(**(fields | changes))


@pytest.fixture
def ledger(tmp_path):
    return FileLedger(tmp_path)


def test_a_record_is_read_back_as_it_was_entered(ledger):
    record = record_of(case_at(0))
    assert ledger.enter(record) == record
    assert ledger.record(record.key) == record
    assert ledger.record(case_at(1).key) is None


def test_the_first_record_stands(ledger):
    first = ledger.enter(record_of(case_at(0), worker="first"))
    assert ledger.enter(record_of(case_at(0), worker="second")) == first
    assert ledger.record(case_at(0).key).worker == "first"


def test_a_longer_record_takes_the_place_of_a_shorter_one(ledger):
    short, long = case_at(0, steps=4), case_at(0, steps=9)
    ledger.enter(record_of(short))
    assert ledger.states([short]) == {short.key: CaseState.COMPLETE}
    assert ledger.states([long]) == {long.key: CaseState.MISSING}
    assert ledger.record(long.key, long.steps) is None
    ledger.enter(record_of(long))
    assert ledger.states([short]) == ledger.states([long]) == {long.key: CaseState.COMPLETE}
    assert [path.parent.name for path in ledger.folder.rglob("*.json")] == ["steps-9"]


def test_a_shorter_record_never_replaces_a_longer_one(ledger):
    ledger.enter(record_of(case_at(0, steps=9)))
    assert ledger.enter(record_of(case_at(0, steps=4))).steps == 9
    assert ledger.record(case_at(0).key).steps == 9


@pytest.mark.parametrize("content", [b"", b'{"key": "2020-01-01T00"', b"{}", b"[]"])
def test_a_damaged_record_is_named(ledger, content):
    ledger.enter(record_of(case_at(0)))
    path = ledger.folder / "steps-4" / "2020-01-01T00.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"steps-4/2020-01-01T00\.json must be a case record .*damaged; delete it"):
        ledger.record("2020-01-01T00")


def test_a_failure_is_kept_until_it_is_freed(ledger):
    cases = [case_at(index) for index in range(3)]
    try:
        raise ValueError("no data")
    except ValueError as error:
        for case in cases:
            ledger.fail(CaseFailure.of(case, error, attempts=2))
    failure = ledger.failure(cases[0].key)
    assert (failure.error, failure.message, failure.attempts) == ("ValueError", "no data", 2)
    assert 'raise ValueError("no data")' in failure.traceback
    assert set(ledger.states(cases).values()) == {CaseState.FAILED}
    assert ledger.free_failed([cases[1].key, "2050-01-01T00"]) == [cases[1].key]
    assert ledger.states(cases)[cases[1].key] == CaseState.MISSING
    assert ledger.free_failed() == [cases[0].key, cases[2].key]
    assert ledger.failure(cases[0].key) is None


def test_a_failure_ends_when_the_case_becomes_whole(ledger):
    case = case_at(0)
    ledger.fail(CaseFailure.of(case, ValueError(), attempts=1))
    ledger.enter(record_of(case))
    assert ledger.failure(case.key) is None
    assert ledger.states([case]) == {case.key: CaseState.COMPLETE}


def test_states_tell_apart_whole_running_failed_and_missing(ledger):
    complete, running, failed, missing = cases = [case_at(index) for index in range(4)]
    ledger.enter(record_of(complete))
    ledger.lease(running, 60)
    ledger.fail(CaseFailure.of(failed, ValueError(), attempts=1))
    assert ledger.states(cases) == {
        complete.key: CaseState.COMPLETE,
        running.key: CaseState.RUNNING,
        failed.key: CaseState.FAILED,
        missing.key: CaseState.MISSING,
    }


@pytest.mark.parametrize("key", ["../x", "", "2020-01-01T00/../x", "2020-01-01T00\n", "/etc/passwd", "NaT", "a.claim"])
def test_only_keys_of_cases_reach_the_file_system(ledger, key):
    for read in (ledger.record, ledger.failure):
        if read == ledger.record:
            (ledger.folder / "steps-4").mkdir(exist_ok=True)
        with pytest.raises(StoreError, match="must look like 2020-01-01T06"):
            read(key)
    with pytest.raises(StoreError, match="must look like"):
        ledger.enter(record_of(case_at(0), key=key))
    with pytest.raises(StoreError, match="must look like"):
        ledger.fail(CaseFailure.of(case_at(0), ValueError(), attempts=1).model_copy(update={"key": key}))


def test_a_claim_is_exclusive_until_released(ledger):
    lease = ledger.lease(case_at(0), 60)
    assert lease.held()
    assert lease.renew()
    assert ledger.lease(case_at(0), 60) is None
    assert owner_in(lease.path).pid == os.getpid()
    lease.release()
    assert not lease.held()
    assert owner_in(lease.path) is None
    assert ledger.lease(case_at(0), 60) is not None


def test_a_whole_case_cannot_be_claimed_but_its_longer_version_can(ledger):
    ledger.enter(record_of(case_at(0, steps=4)))
    assert ledger.lease(case_at(0, steps=3), 60) is None
    assert ledger.lease(case_at(0, steps=4), 60) is None
    assert ledger.lease(case_at(0, steps=5), 60) is not None


def test_a_claim_without_a_heartbeat_is_taken_over(ledger):
    late = ledger.lease(case_at(0), 0.2)
    assert ledger.states([case_at(0)]) == {case_at(0).key: CaseState.RUNNING}
    past = time.time() - 1
    os.utime(late.path, (past, past))
    assert ledger.states([case_at(0)]) == {case_at(0).key: CaseState.MISSING}
    taker = ledger.lease(case_at(0), 60)
    assert taker.held()
    assert not late.held()
    assert not late.renew()
    late.release()
    assert taker.held()
    assert [path.name for path in ledger.folder.iterdir()] == [taker.path.name]


def claim_and_wait(folder, ready):
    FileLedger(folder).lease(case_at(0), 1e6)
    ready.set()
    time.sleep(600)


def test_the_claim_of_a_process_that_was_killed_here_is_taken_over_at_once(ledger):
    context = multiprocessing.get_context("spawn")  # whose processes are children of this one
    ready = context.Event()
    child = context.Process(target=claim_and_wait, args=(ledger.folder, ready))
    child.start()
    assert ready.wait(60)
    assert ledger.lease(case_at(0), 60) is None
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but its number not yet given back
    assert owner_in(ledger.folder / f"{case_at(0).key}.claim").gone
    assert ledger.states([case_at(0)]) == {case_at(0).key: CaseState.MISSING}
    assert ledger.lease(case_at(0), 60).held()
    child.join()


def claim_all(folder, start, name):
    ledger = FileLedger(folder)
    start.wait(60)
    won = [case_at(index).key for index in range(200) if ledger.lease(case_at(index), 3600)]
    Path(folder, f"won-{name}").write_text("\n".join(won))
    start.wait(60)  # an owner that has ended would be taken over


@pytest.mark.parametrize("stale", [False, True])
def test_two_processes_claim_each_of_200_cases_once(ledger, stale):
    if stale:
        dead = Owner.here(3600).model_copy(update={"started": "1"})
        for index in range(200):
            publish(ledger.folder / f"{case_at(index).key}.claim", dead.model_dump_json().encode())
    start = PROCESSES.Barrier(2)
    children = [PROCESSES.Process(target=claim_all, args=(ledger.folder, start, name)) for name in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    won = [key for name in "ab" for key in (ledger.folder / f"won-{name}").read_text().split()]
    assert sorted(won) == [case_at(index).key for index in range(200)]


def test_without_hard_links_files_are_still_exclusive(ledger, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    record = record_of(case_at(0))
    assert ledger.enter(record) == record
    assert ledger.enter(record_of(case_at(0), worker="second")) == record
    assert ledger.lease(case_at(1), 60).held()
    assert ledger.lease(case_at(1), 60) is None
    assert not list(ledger.folder.rglob("*.tmp"))


def test_what_dead_writers_left_is_swept_after_a_day(ledger):
    old, fresh = ledger.folder / ".old.tmp", ledger.folder / ".fresh.tmp"
    old.touch()
    fresh.touch()
    past = time.time() - 90000
    os.utime(old, (past, past))
    lapsed, fresh_claim = ledger.lease(case_at(0), 60), ledger.lease(case_at(1), 60)
    os.utime(lapsed.path, (past, past))
    assert ledger.sweep() == [lapsed.path, old]
    assert fresh.exists()
    assert fresh_claim.held()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"gone.*run again"):
        FileLedger(tmp_path / "gone").states([])


def test_a_sweep_frees_the_claims_of_the_dead_and_keeps_those_of_the_living(tmp_path):
    ledger = FileLedger(tmp_path / "ledger")
    (tmp_path / "ledger").mkdir()
    dead, alive = (Case(np.datetime64(time), 1, 6) for time in ("2020-01-01T00", "2020-01-01T06"))
    claiming = (
        "import sys, numpy as np; from pathlib import Path;"
        "from graphcast_batch.stores.zarr.ledger import FileLedger; from graphcast_batch.plan import Case;"
        "assert FileLedger(Path(sys.argv[1])).lease(Case(np.datetime64('2020-01-01T00'), 1, 6), 3600)"
    )
    subprocess.run([sys.executable, "-c", claiming, str(ledger.folder)], check=True)
    assert ledger.lease(alive, 3600)

    swept = ledger.sweep()

    assert [path.name for path in swept] == [f"{dead.key}.claim"]
    assert ledger.states([dead, alive]) == {dead.key: CaseState.MISSING, alive.key: CaseState.RUNNING}


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b"[" * 9999])
def test_a_damaged_failure_is_named_in_one_line_and_its_case_counts_as_failed_until_it_is_freed(ledger, content):
    path = ledger.folder / "2020-01-01T00.failed.json"
    path.write_bytes(content)
    failure = ledger.failure("2020-01-01T00")
    assert failure.key == "2020-01-01T00"
    assert re.fullmatch(rf"why it failed .*{path} .* is damaged \(.+\); free the Case with .*T00", failure.message)
    assert ledger.states([case_at(0)]) == {"2020-01-01T00": CaseState.FAILED}
    assert ledger.free_failed(["2020-01-01T00"]) == ["2020-01-01T00"]
    assert ledger.failure("2020-01-01T00") is None
