"""Nothing that an attempt still does reaches a Case that another one took over, however late it lands."""

import errno
import itertools
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from graphcast_batch.errors import StoreError
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.files import staging
from graphcast_batch.files.durable import Sealed
from graphcast_batch.files.leases import FileLease
from graphcast_batch.files.staging import Staging
from graphcast_batch.integrity.repair import repair
from graphcast_batch.integrity.verify import verify
from graphcast_batch.stores.flaws import FlawKind
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.stores.zarr.ledger import FileLedger
from tests.stores.commit_model import DEAD, Folder, explore, fault, land, program, settled
from tests.stores.made_stores import VARIABLES, case_at, commit, fill, make, plan_of, values_of, write_all
from tests.stores.test_scores import by, means_of

ONE = VARIABLES[:1]


def two(extending, change=lambda calls: calls):
    return tuple(change(program([rival], extending=extending)) for rival in (1, 0))


@pytest.mark.parametrize("extending", [False, True])
@pytest.mark.parametrize("twice", [False, pytest.param(True, marks=pytest.mark.long)])
def test_however_two_attempts_hang_die_and_land_late_a_recorded_case_is_of_one_of_them(extending, twice):
    assert len(explore(two(extending), extending=extending, twice=twice)) > 4000


@pytest.mark.parametrize("extending", [False, True])
def test_whatever_two_attempts_left_a_third_makes_the_case_and_what_lands_after_it_changes_nothing(extending):
    programs = (*two(extending), program([0, 1], extending=extending))
    worlds = explore(two(extending), extending=extending, twice=False)
    for world in {replace(world, lease=None, steps=()) for world in worlds}:
        folders = (*world.folders, Folder())
        last = settled(replace(world, folders=folders, steps=(DEAD, DEAD, 0)), programs)
        assert last.record is not None
        for order in itertools.permutations(last.late):
            landed = last
            for call in order:
                landed, _ = land(landed, *call)
                assert fault(landed, extending=extending) is None
            assert landed.places == last.places == (last.record,) * 2


def without(*kinds):
    return lambda calls: tuple(call for call in calls if call[0] not in kinds)


def with_renames(calls):
    """As it was before there were private folders that a taker removes."""
    kept = without("list", "erase", "closed", "away", "drop", "own")(calls)
    return tuple(("rename", *call[1:]) if call[0] == "link" else call for call in kept)


@pytest.mark.parametrize(
    "change",
    [
        without("list", "erase", "closed"),
        without("stands"),
        with_renames,
        lambda calls: tuple(("unlink", *call[1:]) if call[0] == "away" else call for call in calls),
    ],
)
def test_the_model_finds_what_is_wrong_with_an_attempt_that_leaves_out_any_part_of_it(change):
    with pytest.raises(AssertionError, match="a recorded Case has files of another attempt"):
        explore(two(False, change), twice=False)


def test_the_model_finds_that_a_call_may_be_delivered_twice():
    with pytest.raises(AssertionError, match="a recorded Case has files of another attempt"):
        explore(two(True, without("drop")), extending=True)


def test_files_in_the_way_are_removed_also_where_a_reader_on_nfs_has_them_open(tmp_path, monkeypatch):
    store, unlink = make(tmp_path / "s", plan_of([0], 3, on_levels=ONE)), os.unlink
    left = store.path / ONE[0][0] / "c.0.0.0.0"
    left.touch()

    def as_nfs_does(path, *, dir_fd=None):
        if path == left.name:
            os.rename(path, ".nfs0001", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", as_nfs_does)
    fill(store, case_at(0, 3))

    assert store.ledger.record(case_at(0, 3).key).steps == 3
    assert left.stat().st_size > 0


@pytest.mark.parametrize("extending", [False, True])
def test_the_model_makes_the_calls_that_an_attempt_makes(tmp_path, monkeypatch, extending):
    store = make(tmp_path / "s", plan_of([0], 16, on_levels=ONE))
    files = {f"{ONE[0][0]}/c.0.{block}.0.0": name for block, name in enumerate("ab")}
    if extending:
        fill(store, case_at(0, 8))
    for file in files:
        if not (store.path / file).exists():
            (store.path / file).touch()  # as a dead attempt may leave it
    case, calls = case_at(0, 16), []
    taken = store.ledger.lease(case, 60)

    def note(owner, attribute, called):
        function = getattr(owner, attribute)

        def noted(*arguments):
            found = called(*arguments)
            calls.extend([found] if found else [])
            return function(*arguments)

        monkeypatch.setattr(owner, attribute, noted)

    def name(path):
        return next((name for file, name in files.items() if str(path).endswith(file)), path.name)

    for owner, attribute, kind in (
        (FileLease, "held", "held"),
        (Staging, "make", "make"),
        (Staging, "fence", "fence"),
        (Staging, "remove", "remove"),
        (Staging, "drop_taken", "drop"),
        (FileLedger, "record", "stands"),
    ):
        note(owner, attribute, lambda *_, kind=kind: (kind,))
    note(Sealed, "is_at", lambda _, path: ("own", name(path)))
    note(staging, "write_new", lambda path, _: ("note",) if path.name == "record.json" else None)
    note(staging, "place", lambda source, _: ("record",) if source.name == "record.json" else ("link", name(source)))
    note(os, "rename", lambda source, _: ("away", name(source)) if source.parent.name == ONE[0][0] else None)
    note(os, "replace", lambda source, _: ("rename", name(source)))
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        commit(attempt, taken)
    expected = [call for call in program([], extending=extending) if call[0] not in ("take", "release")]
    expected.insert(2, ("fence",))  # which comes before all that the model has of rivals
    # The record is also looked for before anything else, and at the end.
    assert [call for call in calls if call != ("stands",)] == [call for call in expected if call != ("stands",)]
    assert calls.index(("stands",), calls.index(("fence",))) < min(calls.index(c) for c in calls if c[0] == "away")


class Late:
    """Has the calls of two attempts, each in a thread of its name, wait before the one with a number."""

    def __init__(self, monkeypatch, **numbers):
        self.left = dict(numbers)
        self.stopped = {name: threading.Event() for name in numbers}
        self.go = {name: threading.Event() for name in numbers}
        for owner, name in ((os, "rename"), (os, "replace"), (staging, "place")):
            monkeypatch.setattr(owner, name, self._late(getattr(owner, name)))

    def _late(self, call):
        def delayed(source, target):
            name = threading.current_thread().name
            if name in self.left:
                self.left[name] -= 1
                if self.left[name] == -1:
                    self.stopped[name].set()
                    self.go[name].wait()
            return call(source, target)

        return delayed


def start(name, store, case, lease, late):
    def work():
        with suppress(StoreError), store.attempt(case) as attempt:
            write_all(attempt, store, case)
            commit(attempt, lease)
        late.stopped[name].set()

    thread = threading.Thread(target=work, name=name)
    thread.start()
    return thread


HISTORIES = {"new": None, "extended": 10}
NEVER = 999


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("both", [False, pytest.param(True, marks=pytest.mark.long)])
def test_wherever_real_attempts_stop_a_case_that_is_whole_stays_whole(tmp_path, history, links, both, monkeypatch):
    store, case = begun(tmp_path / "begun", HISTORIES[history])
    if not links:
        link = os.link
        monkeypatch.setattr(os, "link", lambda *paths: link(*paths) if ".staging" not in str(paths[0]) else refuse())
    numbers = itertools.count()
    for first in itertools.count():
        for second in itertools.count() if both else [NEVER]:
            path = shutil.copytree(store.path, tmp_path / str(next(numbers)))
            with monkeypatch.context() as patch:
                reached = run_two(patch, open_store(path), case, first, second)
            assert_sound(open_store(path), case, HISTORIES[history])
            # The next run makes what is missing, whatever was left.
            fill(open_store(path), case)
            assert open_store(path).ledger.record(case.key, case.steps)
            assert_sound(open_store(path), case, HISTORIES[history])
            shutil.rmtree(path)
            if not reached[1]:
                break
        if not reached[0]:
            break
    assert first > 4


def refuse():
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def begun(folder, shorter):
    """A store in which an attempt has died half-way, maybe after a shorter forecast was whole."""
    store = make(folder, plan_of([0], 20, on_levels=ONE))
    if shorter:
        fill(store, case_at(0, shorter))
    (folder / ONE[0][0] / "c.0.2.0.0").write_bytes(b"half")
    return store, case_at(0, 20)


def run_two(patch, store, case, first, second):
    """Stops one attempt before a call, has another take over and stop before one of its, and lets both go on.

    Returns:
        for each of them, whether it came as far as that call.
    """
    late = Late(patch, first=first, second=second)
    lease = store.ledger.lease(case, 60)
    threads = [start("first", store, case, lease, late)]
    late.stopped["first"].wait()
    os.utime(lease.path, (0, 0))
    taken = store.ledger.lease(case, 60)
    if taken:
        threads.append(start("second", store, case, taken, late))
        late.stopped["second"].wait()
    reached = [left < 0 for left in late.left.values()]
    for name, thread in zip(("first", "second"), threads, strict=False):
        late.go[name].set()
        thread.join()
    return reached


def assert_sound(store, case, shorter):
    """What a record says is there; all of a shorter forecast can be read at any time."""
    flaws = [flaw for flaw in verify(store.path, deep=True).flaws if flaw.kind is not FlawKind.STATISTICS]
    record = store.ledger.record(case.key, case.steps)
    assert not [flaw for flaw in flaws if record or (not shorter and not flaw.harmless)], list(map(str, flaws))
    steps = case.steps if record else shorter
    if steps:
        values = values_of(store, case)[ONE[0][0]]
        np.testing.assert_array_equal(store.forecasts()[ONE[0][0]][0, :steps], values[:steps])


def overtaken(monkeypatch, number, work, claim_of, other_work):
    """Stops what one process does before a call, has another take over and do all, and lets the first one go on.

    Returns:
        whether it came as far as that call.
    """
    with monkeypatch.context() as patch:
        late = Late(patch, first=number)

        def first():
            with suppress(StoreError):
                work()
            late.stopped["first"].set()

        thread = threading.Thread(target=first, name="first")
        thread.start()
        late.stopped["first"].wait()
        for lease in claim_of():
            os.utime(lease, (0, 0))
        other_work()
        late.go["first"].set()
        thread.join()
        return late.left["first"] < 0


def test_a_driver_that_made_a_store_longer_too_late_leaves_the_axes_to_the_one_that_overtook_it(tmp_path, monkeypatch):
    for number in itertools.count():
        path = tmp_path / str(number)
        make(path, plan_of([0], 3, on_levels=ONE))

        def other(path=path):
            store = make(path, plan_of([0, 7], 6, on_levels=ONE))
            fill(store, case_at(7, 6))

        reached = overtaken(
            monkeypatch,
            number,
            lambda path=path: make(path, plan_of([0, 3], 3, on_levels=ONE)),
            lambda path=path: path.glob("ledger/.extending"),
            other,
        )
        store = open_store(path)
        values = store.forecasts()[ONE[0][0]]
        np.testing.assert_array_equal(
            values.sel(time=case_at(7, 6).init_time), values_of(store, case_at(7, 6))[ONE[0][0]]
        )
        assert {flaw.kind for flaw in verify(path, deep=True).flaws} <= {FlawKind.STATISTICS}
        if not reached:
            break
    assert number > 3


def test_a_driver_that_lays_out_too_late_around_jobs_takes_nothing_from_the_store(tmp_path, monkeypatch):
    for number in itertools.count():
        path = tmp_path / str(number)
        (path / "slurm").mkdir(parents=True)
        reached = overtaken(
            monkeypatch,
            number,
            lambda path=path: make(path, plan_of([0], 3, on_levels=ONE)),
            lambda path=path: path.glob("slurm/.lay-out"),
            lambda path=path: fill(make(path, plan_of([0], 3, on_levels=ONE)), case_at(0, 3)),
        )
        assert open_store(path).ledger.steps_of(case_at(0, 3).key) == 3
        assert {flaw.kind for flaw in verify(path, deep=True).flaws} <= {FlawKind.STATISTICS}
        assert [each.name for each in (path / "slurm").iterdir()] == []
        if not reached:
            break
    assert number > 3


def test_scores_that_are_written_too_late_leave_those_of_another_as_they_are(tmp_path, monkeypatch):
    for number in itertools.count():
        store = make(tmp_path / str(number), plan_of(range(2), 4))
        scores, case = ScoreStore.lay_out(store.path, "forecast", by()), case_at(1, 4)

        def write(seed, scores=scores, case=case):
            lease = scores.lease(case)
            with scores.keeping(lease):
                scores.write(1, case, means_of(seed), 8, str(seed), {}, lease)

        reached = overtaken(
            monkeypatch,
            number,
            lambda write=write: write(1),
            lambda scores=scores: scores.folder.glob("records/*.claim"),
            lambda write=write: write(2),
        )
        assert not [flaw for flaw in verify(store.path, deep=True).flaws if flaw.kind is FlawKind.SCORES]
        if reached:
            assert scores.records()[case.key].forecast == "2"
            np.testing.assert_array_equal(scores.dataset()["temperature"][:, 1], means_of(2)["temperature"])
        else:
            break
    assert number > 2


def test_a_repair_that_is_carried_out_too_late_takes_nothing_from_a_case_that_was_made_again(tmp_path, monkeypatch):
    for number in itertools.count():
        store, case = make(tmp_path / str(number), plan_of([0], 16, on_levels=ONE)), case_at(0, 16)
        fill(store, case)
        file = store.path / ONE[0][0] / "c.0.1.0.0"
        file.write_bytes(b"damaged")
        flaws = verify(store.path, deep=True).flaws

        def other(store=store, case=case, flaws=flaws):
            repair(store.path, flaws)
            fill(store, case)

        reached = overtaken(
            monkeypatch,
            number,
            lambda store=store, flaws=flaws: repair(store.path, flaws),
            lambda store=store: store.path.glob("ledger/*.claim"),
            other,
        )
        assert store.ledger.steps_of(case.key) == 16
        assert {flaw.kind for flaw in verify(store.path, deep=True).flaws} <= {FlawKind.STATISTICS}
        if not reached:
            break
    assert number > 1
