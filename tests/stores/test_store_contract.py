"""The promises of the port of stores, tried on every kind of store by public calls of the port only."""

import pickle
import time
from dataclasses import replace
from itertools import starmap
from pathlib import Path

import numpy as np
import pytest

from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.stores.base import NONE, OUTPUTS
from graphcast_batch.stores.case_records import CaseFailure, CaseState
from graphcast_batch.stores.store_kinds import STORES, create_or_extend, kind_at, open_store, store_exists
from tests.forks import PROCESSES
from tests.stores.made_stores import IDENTITY, case_at, commit, fill, plan_of, values_of, write_all

STEPS = 3
CASES = tuple(case_at(index, STEPS) for index in range(3))


@pytest.fixture(params=sorted(STORES))
def kind(request):
    return STORES[request.param]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.store"


@pytest.fixture
def lay_out(kind, path):
    def made(plan=None, identity=IDENTITY, provenance=None, config_text="steps: 3\n"):
        provenance = {"source": "a test"} if provenance is None else provenance
        plan = plan or plan_of(range(len(CASES)), STEPS)
        return kind.create_or_extend(path, plan, identity=identity, provenance=provenance, config_text=config_text)

    return made


@pytest.fixture
def store(lay_out):
    return lay_out()


def read(store, case):
    """The lead times of a Case by variable, as the store has them now."""
    opened, leads = store.forecasts(), store.kept.leads(case.hours)
    here = opened.isel(store.place_of(case) | {"prediction_timedelta": slice(0, leads)})
    return {name: here[name].values for name in store.kept.variables}


def is_missing(store, case):
    return all(np.isnan(values).all() for values in read(store, case).values())


def is_stored(store, case):
    expected = values_of(store, case)
    return all(np.array_equal(values, expected[name]) for name, values in read(store, case).items())


def state(store, case):
    return store.ledger.states([case])[case.key]


def test_a_store_is_known_by_its_path_and_opens_as_it_was_laid_out(kind, path, lay_out):
    kind.check_place(path)
    assert not kind.exists(path)
    assert not store_exists(path)
    with pytest.raises(StoreError, match="no store at"):
        kind.open(path)
    made = lay_out()
    assert kind.exists(path)
    assert store_exists(path)
    assert kind_at(path) is kind
    for opened in (made, kind.open(path), open_store(path), pickle.loads(pickle.dumps(made))):
        assert opened.path == path.resolve()
        assert opened.identity == IDENTITY
        assert opened.attributes["source"] == "a test"
        assert opened.config_path.read_text() == "steps: 3\n"
        assert opened.init_times.tolist() == [case.init_time.item() for case in CASES]
        assert opened.kept.lead_hours == (6, 12, 18)
        assert not opened.only_scores
        assert all(is_missing(opened, case) for case in CASES)


def test_a_new_store_is_of_the_first_kind(tmp_path):
    path = tmp_path / "new"
    assert kind_at(path) is next(iter(STORES.values()))
    create_or_extend(path, plan_of([0], 1), identity=IDENTITY, provenance={}, config_text="")
    assert next(iter(STORES.values())).exists(path)


def test_a_path_that_is_something_else_is_refused_and_left_alone(kind, path, lay_out):
    path.mkdir()
    (path / "letters").write_text("mine")
    with pytest.raises(StoreError, match="letters"):
        kind.check_place(path)
    with pytest.raises(StoreError, match="letters"):
        lay_out()
    assert [each.name for each in path.iterdir()] == ["letters"]


def test_a_case_can_be_read_only_after_its_commit_and_then_as_it_was_written(kind, store):
    case, other = CASES[1], CASES[0]
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        assert is_missing(kind.open(store.path), case)
        assert state(store, case) is CaseState.MISSING
        record = commit(attempt)
    assert is_stored(kind.open(store.path), case)
    assert is_missing(store, other)
    assert state(store, case) is CaseState.COMPLETE
    assert store.ledger.record(case.key, STEPS) == store.ledger.record_of(case.key, STEPS) == record
    assert (record.key, record.steps, record.worker, record.seconds) == (case.key, STEPS, "w", {"compute": 1.0})
    assert store.ledger.complete(CASES) == [case]
    assert store.ledger.complete_steps() == {case.key: STEPS}


def test_variables_may_be_written_by_themselves(store):
    case = CASES[0]
    with store.attempt(case) as attempt:
        for name, values in values_of(store, case).items():
            for first in range(STEPS):
                attempt.write_variable(name, first, values[first : first + 1])
        commit(attempt)
    assert is_stored(store, case)


def test_an_attempt_without_all_lead_times_is_not_committed_and_leaves_nan(kind, store):
    case = CASES[0]
    first = {name: values[:1] for name, values in values_of(store, case).items()}
    with store.attempt(case) as attempt:
        attempt.write(0, first)
        with pytest.raises(StoreError, match=case.key):
            commit(attempt)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
    assert is_missing(kind.open(store.path), case)
    assert state(store, case) is CaseState.MISSING
    assert store.ledger.record(case.key) is None


@pytest.mark.parametrize("wrong", ["shape", "dtype", "lead time", "variables"])
def test_frames_that_do_not_fit_are_refused(store, wrong):
    case = CASES[0]
    frames, first = {name: values[:1] for name, values in values_of(store, case).items()}, 0
    if wrong == "shape":
        frames = {name: values[..., :-1] for name, values in frames.items()}
    elif wrong == "dtype":
        frames = {name: values.astype(np.float64) for name, values in frames.items()}
    elif wrong == "lead time":
        first = STEPS
    else:
        del frames["temperature"]
    with store.attempt(case) as attempt, pytest.raises(StoreError, match=case.key):
        attempt.write(first, frames)


def test_a_case_that_the_store_was_not_laid_out_for_has_no_place(store):
    for case in (case_at(len(CASES), STEPS), case_at(0, STEPS + 1)):
        with pytest.raises(StoreError, match=case.key):
            store.place_of(case)
        with pytest.raises(StoreError, match=case.key):
            store.attempt(case)


def test_a_case_is_committed_exactly_once(kind, store):
    case = CASES[0]
    with store.attempt(case) as first, store.attempt(case) as second:
        write_all(first, store, case)
        for name, values in values_of(store, case).items():
            second.write_variable(name, 0, values + 1)
        record = commit(first)
        assert commit(second) == record
    assert is_stored(kind.open(store.path), case)


def lease_all(path, start, leased):
    """Leases whatever Cases it can get, as a driver beside others does, and writes them."""
    store = open_store(path)
    start.wait()
    for case in CASES:
        lease = store.ledger.lease(case, 60)
        if lease:
            leased.put(case.key)
            with store.attempt(case) as attempt:
                write_all(attempt, store, case)
                commit(attempt, lease)
            lease.release()
    leased.put(None)


def test_several_drivers_write_each_case_once(store):
    start, leased = PROCESSES.Event(), PROCESSES.Queue()
    drivers = [PROCESSES.Process(target=lease_all, args=(store.path, start, leased)) for _ in range(2)]
    for driver in drivers:
        driver.start()
    start.set()
    ended, keys = 0, []
    while ended < len(drivers):
        key = leased.get(timeout=120)
        ended, keys = (ended + 1, keys) if key is None else (ended, [*keys, key])
    for driver in drivers:
        driver.join()
    assert sorted(keys) == [case.key for case in CASES]
    assert all(is_stored(store, case) for case in CASES)
    assert store.ledger.complete(CASES) == list(CASES)


def test_a_case_has_one_lease_at_a_time_and_none_once_it_is_complete(store):
    case = CASES[0]
    lease = store.ledger.lease(case, 60)
    assert lease.held()
    assert lease.renew()
    assert state(store, case) is CaseState.RUNNING
    assert store.ledger.lease(case, 60) is None
    assert store.ledger.hold(case.key, 60) is None
    sent = pickle.loads(pickle.dumps(lease))
    assert sent.renew()
    sent.release()
    assert not lease.held()
    assert state(store, case) is CaseState.MISSING
    fill(store, case)
    assert store.ledger.lease(case, 60) is None
    held = store.ledger.hold(case.key, 60)
    assert state(store, case) is CaseState.COMPLETE
    held.release()


def test_a_lease_that_is_not_renewed_expires_and_whoever_lost_it_cannot_commit(store):
    case = CASES[0]
    lost = store.ledger.lease(case, 0.05)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        time.sleep(0.2)
        lease = store.ledger.lease(case, 60)
        assert lease
        assert not lost.held()
        assert not lost.renew()
        with pytest.raises(StoreError, match=case.key):
            commit(attempt, lost)
        lost.release()
        assert lease.held()
    assert is_missing(store, case)
    lease.release()


def test_a_failure_stands_until_the_case_is_freed_or_complete(store):
    failed, other, missing = CASES
    for case in (failed, other):
        store.ledger.fail(CaseFailure.of(case, ValueError("no such day"), 3))
    assert state(store, failed) is CaseState.FAILED
    found = store.ledger.failure(failed.key)
    assert (found.key, found.error, found.message, found.attempts) == (failed.key, "ValueError", "no such day", 3)
    assert store.ledger.failure(missing.key) is None
    assert store.ledger.free_failed([failed.key, missing.key]) == [failed.key]
    assert state(store, failed) is CaseState.MISSING
    assert state(store, other) is CaseState.FAILED
    fill(store, other)
    assert state(store, other) is CaseState.COMPLETE
    assert store.ledger.failure(other.key) is None
    assert store.ledger.free_failed() == []


def test_a_store_is_resumed_with_all_that_is_complete(lay_out):
    fill(lay_out(), CASES[0])
    again = lay_out(provenance={"source": "another"}, config_text="steps: 3 # again\n")
    assert again.ledger.complete(CASES) == [CASES[0]]
    assert is_stored(again, CASES[0])
    assert again.attributes["source"] == "a test"
    assert again.config_path.read_text() == "steps: 3 # again\n"


def test_a_store_is_extended_along_initial_and_lead_times_and_keeps_what_it_has(lay_out):
    first = lay_out(plan_of([0, 1], STEPS))
    fill(first, case_at(1, STEPS))
    extended = lay_out(plan_of([3, 1, 2], STEPS + 2))
    assert extended.init_times.tolist() == [case_at(index, 1).init_time.item() for index in range(4)]
    assert extended.kept.lead_hours == (6, 12, 18, 24, 30)
    assert is_stored(extended, case_at(1, STEPS))
    assert state(extended, case_at(1, STEPS)) is CaseState.COMPLETE
    assert state(extended, case_at(1, STEPS + 2)) is CaseState.MISSING
    longer = case_at(1, STEPS + 2)
    assert np.isnan(read(extended, longer)["temperature"][STEPS:]).all()
    fill(extended, longer, case_at(3, STEPS + 2))
    assert is_stored(extended, longer)
    assert is_stored(extended, case_at(3, STEPS + 2))
    assert extended.ledger.record(longer.key).steps == STEPS + 2
    assert lay_out(plan_of([1], STEPS)).init_times.size == 4


@pytest.mark.parametrize(
    ("plan", "identity", "named"),
    [
        (plan_of(range(3), STEPS), IDENTITY | {"checkpoint": "b2"}, ["checkpoint", "a1", "b2"]),
        (plan_of(range(3), STEPS, levels=(500, 700)), IDENTITY, ["levels", "850", "700"]),
        (plan_of(range(3), STEPS, keep_bits=9), IDENTITY, ["encoding of temperature", "9 bits"]),
        (plan_of(range(3), STEPS, variables=["temperature"]), IDENTITY, ["variables", "2m_temperature"]),
    ],
)
def test_other_forecasts_are_refused_with_the_difference(lay_out, store, plan, identity, named):
    for refused in (lambda: lay_out(plan, identity), lambda: store.refuse_other(plan, identity)):
        with pytest.raises(StoreMismatchError) as caught:
            refused()
        assert all(name in str(caught.value) for name in named)
    store.refuse_other(plan_of(range(5), STEPS + 4), IDENTITY)


@pytest.mark.parametrize("outputs", [{}, {"keep_bits": 7}, {"keep_bits": {"temperature": 3}}])
def test_values_are_predicted_as_they_will_be_read(lay_out, outputs):
    store, case = lay_out(plan_of(range(3), STEPS, **outputs)), CASES[2]
    fill(store, case)
    written = values_of(store, case)
    for name, values in read(store, case).items():
        np.testing.assert_array_equal(store.as_stored(name, written[name]), values)


def test_a_store_of_scores_only_records_cases_without_values(lay_out):
    store = lay_out(identity=IDENTITY | {OUTPUTS: NONE})
    assert store.only_scores
    with store.attempt(CASES[0]) as attempt:
        commit(attempt)
    assert state(store, CASES[0]) is CaseState.COMPLETE
    assert is_missing(store, CASES[0])


def test_nobody_extends_a_store_while_its_lock_is_held(lay_out, store):
    with store.extension_lock() as lock:
        assert lock.held()
    assert not lock.held()
    assert lay_out(plan_of(range(5), STEPS)).init_times.size == 5


def test_a_case_that_is_forgotten_is_made_again(store):
    fill(store, CASES[0])
    lease = store.ledger.hold(CASES[0].key, 60)
    store.forget(CASES[0].key, lease)
    lease.release()
    assert state(store, CASES[0]) is CaseState.MISSING
    fill(store, CASES[0])
    assert is_stored(store, CASES[0])


def test_a_sweep_takes_nothing_from_the_living(store):
    with store.attempt(CASES[0]) as attempt:
        write_all(attempt, store, CASES[0])
        lease = store.ledger.lease(CASES[1], 60)
        assert store.sweep() == []
        assert lease.held()
        commit(attempt)
    assert is_stored(store, CASES[0])


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_store_verifies_and_a_damaged_case_is_repaired_by_making_it_again(kind, store, deep):
    fill(store, *CASES[:2])
    found = kind.verify(store.path, deep=deep, executor=starmap)
    keys = tuple(case.key for case in CASES[:2])
    assert (found.cases, found.left, found.flaws) == (keys, (), ())
    record = store.ledger.record(CASES[0].key)
    assert found.bytes == record.bytes + store.ledger.record(CASES[1].key).bytes
    (store.path / min(record.files)).unlink()
    damaged = kind.verify(store.path, deep=deep, executor=starmap)
    assert {flaw.key for flaw in damaged.flaws} == {CASES[0].key}
    lease = store.ledger.hold(CASES[0].key, 60)
    assert kind.repair(store.path, damaged.flaws).busy == (CASES[0].key,)
    lease.release()
    assert kind.repair(store.path, damaged.flaws).forgotten == (CASES[0].key,)
    assert store.ledger.complete(CASES) == [CASES[1]]
    fill(store, CASES[0])
    assert kind.verify(store.path, deep=True, executor=starmap).flaws == ()
    assert all(is_stored(store, case) for case in CASES[:2])


def test_a_case_whose_values_were_dropped_stays_complete_until_it_is_forgotten(store):
    case, other, _ = CASES
    fill(store, case, other)
    before = store.forecasts().isel(store.place_of(other)).load()
    lease = store.ledger.hold(case.key, 60)

    store.drop_values(case.key, lease)
    store.drop_values(case.key, lease)  # which changes nothing

    assert state(store, case) is CaseState.COMPLETE
    assert store.ledger.lease(case, 60) is None
    assert store.ledger.dropped_steps() == {case.key: case.steps}
    assert store.ledger.complete(CASES) == [other]
    assert case.key not in store.ledger.complete_steps()
    assert store.ledger.record(case.key) is None
    dropped = store.forecasts().isel(store.place_of(case))
    assert all(np.isnan(dropped[name].values).all() for name in store.kept.variables)
    assert before.identical(store.forecasts().isel(store.place_of(other)).load())

    store.forget(case.key, lease)
    lease.release()
    assert is_missing(store, case)
    assert store.ledger.dropped_steps() == {}
    fill(store, case)
    assert is_stored(store, case)


def test_a_drop_that_breaks_off_is_seen_and_can_be_repeated(store, monkeypatch):
    case = CASES[0]
    fill(store, case)
    lease = store.ledger.hold(case.key, 60)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "lstat", lambda path: (_ for _ in ()).throw(OSError(5, "no disk", str(path))))
        with pytest.raises(StoreError, match=f"{case.key}: dropping its values"):
            store.drop_values(case.key, lease)
    assert state(store, case) is CaseState.COMPLETE
    assert store.ledger.complete([case]) == []

    store.drop_values(case.key, lease)

    dropped = store.forecasts().isel(store.place_of(case))
    assert all(np.isnan(dropped[name].values).all() for name in store.kept.variables)


def test_what_is_not_complete_is_not_dropped_nor_without_its_lease(store):
    case, missing, _ = CASES
    fill(store, case)
    lease, lost = store.ledger.hold(missing.key, 60), store.ledger.hold(case.key, 60)
    lost.release()

    with pytest.raises(StoreError, match=f"{missing.key} must be complete .* before its values are dropped"):
        store.drop_values(missing.key, lease)
    with pytest.raises(StoreError, match="the lease must be held"):
        store.drop_values(case.key, lost)
    assert store.ledger.complete([case]) == [case]


def test_a_longer_forecast_takes_the_place_of_a_dropped_one(store):
    case = CASES[0]
    short = replace(case, steps=1)
    fill(store, short)
    lease = store.ledger.hold(case.key, 60)
    store.drop_values(case.key, lease)
    lease.release()
    assert state(store, short) is CaseState.COMPLETE
    assert state(store, case) is CaseState.MISSING

    fill(store, case)

    assert store.ledger.complete([case, short]) == [case, short]
    assert store.ledger.dropped_steps() == {}
