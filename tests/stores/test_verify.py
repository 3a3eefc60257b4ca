import os
import random
import shutil
import tempfile
from contextlib import contextmanager
from itertools import count, starmap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import StoreError
from graphcast_batch.files import staging
from graphcast_batch.integrity.repair import repair
from graphcast_batch.integrity.verify import verify
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.flaws import FlawKind
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.stores.zarr.store_layout import extension_lock
from tests.forks import PROCESSES
from tests.stores.made_stores import (
    VARIABLES,
    case_at,
    commit,
    data_files,
    fill,
    make,
    plan_of,
    write_all,
)

STEPS = 10
COMPLETE = [case_at(0, STEPS), case_at(1, STEPS), case_at(2, 3), case_at(4, STEPS)]
"""Of five initial times, one longer than a file, one shorter, one missing."""
FILES = sorted(
    f"{name}/c.{index}.{block}{'.0' * (2 + levelled)}"
    for name, levelled in VARIABLES
    for index, blocks in ((0, 2), (1, 2), (2, 1), (4, 2))
    for block in range(blocks)
)
KEY_OF = {index: case_at(index, 1).key for index in range(5)}


def key_of(file):
    return KEY_OF[int(file.split("/c.")[1].split(".")[0])]


def with_statistics(store):
    (store.path / "statistics").mkdir()
    for kind in ("mean", "stddev", "diffs_stddev"):
        xr.Dataset({"temperature": 1.0}).to_netcdf(store.path / "statistics" / f"{kind}_by_level.nc")
    return store


@pytest.fixture(scope="module", autouse=True)
def no_power_failure():
    """What the system has yet to write is seen here all the same, and waiting for it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store that nobody may change."""
    store = with_statistics(make(tmp_path_factory.mktemp("sound") / "run.zarr", plan_of(range(5), STEPS)))
    fill(store, *COMPLETE)
    return store


@contextmanager
def copy_of(store):
    with tempfile.TemporaryDirectory() as folder:
        yield open_store(shutil.copytree(store.path, Path(folder) / "run.zarr"))


@pytest.fixture
def store(sound):
    with copy_of(sound) as copied:
        yield copied


def found_in(store, *, deep=False):
    return [(flaw.kind.value, flaw.key, flaw.path) for flaw in verify(store.path, deep=deep).flaws]


def remake(store):
    """What the next run does: the Cases that are not whole."""
    states = store.ledger.states(COMPLETE)
    fill(store, *(case for case in COMPLETE if states[case.key] is not CaseState.COMPLETE))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place // 8 % len(content)] ^= 1 << place % 8
    path.write_bytes(content)


def shorten(path, place):
    os.truncate(path, place % path.stat().st_size)


def lengthen(path, place):
    with path.open("ab") as file:
        file.write(bytes(1 + place % 100))


def remove(path, place):
    path.unlink()


DAMAGES = {remove: FlawKind.MISSING, shorten: FlawKind.SIZE, lengthen: FlawKind.SIZE, flip: FlawKind.CHECKSUM}
places = st.integers(0, 2**20)
damages = st.dictionaries(
    st.sampled_from(FILES), st.tuples(st.sampled_from(sorted(DAMAGES, key=DAMAGES.get)), places), min_size=1, max_size=5
)


def damage(store, damaged):
    for file, (how, place) in damaged.items():
        how(store.path / file, place)


def kinds(damaged):
    return {file: DAMAGES[how] for file, (how, _) in damaged.items()}


@pytest.mark.parametrize("deep", [False, True])
def test_in_a_sound_store_nothing_is_found(sound, deep):
    before = data_files(sound.path)
    verification = verify(sound.path, deep=deep)
    assert verification.flaws == ()
    assert not verification.damaged
    assert (verification.cases, verification.left) == (4, 0)
    assert verification.bytes == sum((sound.path / file).stat().st_size for file in FILES)
    assert data_files(sound.path) == before


@settings(max_examples=20, deadline=None)
@given(damaged=damages)
def test_each_damaged_file_is_found_with_its_case_and_a_flipped_bit_only_by_reading(sound, damaged):
    with copy_of(sound) as store:
        damage(store, damaged)
        expected = {(kind, key_of(file), file) for file, kind in kinds(damaged).items()}
        assert set(found_in(store, deep=True)) == expected
        assert set(found_in(store)) == {flaw for flaw in expected if flaw[0] != "checksum"}


@settings(max_examples=12, deadline=None)
@given(damaged=damages)
def test_repair_forgets_just_the_damaged_cases_and_after_the_next_run_every_byte_is_as_it_was(sound, damaged):
    with copy_of(sound) as store:
        damage(store, damaged)
        done = repair(store.path, verify(store.path, deep=True).flaws)
        assert set(done.forgotten) == {key_of(file) for file in damaged}
        assert set(done.removed) == {file for file, kind in kinds(damaged).items() if kind is not FlawKind.MISSING}
        assert done.busy == ()
        states = store.ledger.states(COMPLETE)
        assert {key for key, state in states.items() if state is not CaseState.COMPLETE} == set(done.forgotten)
        left = verify(store.path, deep=True)
        assert {flaw.kind for flaw in left.flaws} <= {FlawKind.UNRECORDED}
        assert not left.damaged
        assert repair(store.path, left.flaws) == type(done)((), (), ())
        remake(store)
        assert data_files(store.path) == data_files(sound.path)
        assert found_in(store, deep=True) == []


def test_what_was_damaged_is_read_as_nan_after_the_repair(store, sound):
    flip(store.path / "2m_temperature/c.0.1.0.0", 999)
    repair(store.path, verify(store.path, deep=True).flaws)
    expected = sound.forecasts().compute()
    expected["2m_temperature"][0, 8:] = np.nan
    xr.testing.assert_identical(store.forecasts().compute(), expected)


@settings(max_examples=15, deadline=None)
@given(case=st.sampled_from(COMPLETE), how=st.sampled_from([shorten, flip]), place=places)
def test_a_damaged_record_is_found_and_its_case_made_again(sound, case, how, place):
    with copy_of(sound) as store:
        path = store.ledger.folder / f"steps-{case.steps}" / f"{case.key}.json"
        how(path, place)
        flaws = verify(store.path, deep=True).flaws
        # A flipped bit may also fall on what nothing is compared with, or turn a number into another.
        assert {flaw.key for flaw in flaws} <= {case.key}
        assert all(flaw.kind in (FlawKind.RECORD, FlawKind.CHECKSUM, FlawKind.SIZE) for flaw in flaws)
        assert flaws or how is flip
        repair(store.path, flaws)
        remake(store)
        assert data_files(store.path) == data_files(sound.path)
        assert found_in(store, deep=True) == []


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"key": "2020-01-01T06"', '"key": "2020-01-01T00"', r"must be of 2020-01-01T06 with 10 .* 2020-01-01T00"),
        ('"steps": 10', '"steps": 9', r"must be of 2020-01-01T06 with 10 steps, but is of 2020-01-01T06 with 9 steps"),
        ("temperature/c.1.0.0.0.0", "temperature/c.2.0.0.0.0", r"lists 1 others and lacks 1; verify with --repair"),
        ("2m_temperature/c.1", "2m_humidity/c.1", r"lists 2 others and lacks 2; verify with --repair"),
        ("}", "", r"must be readable as a record, but is not: "),
    ],
)
def test_a_record_that_is_not_of_its_case_is_named(store, old, new, text):
    path = store.ledger.folder / "steps-10" / "2020-01-01T06.json"
    path.write_text(path.read_text().replace(old, new))
    (flaw,) = verify(store.path, deep=False).flaws
    assert (flaw.kind, flaw.key, flaw.path) == ("record", "2020-01-01T06", "ledger/steps-10/2020-01-01T06.json")
    with pytest.raises(StoreError, match=rf"^ledger/steps-10/2020-01-01T06\.json of 2020-01-01T06 .*{text}"):
        raise StoreError(flaw)
    assert repair(store.path, [flaw]).forgotten == ("2020-01-01T06",)


def break_off_commit(store, case, monkeypatch, after, lease):
    """Moves so many files into the store, and no more; while it lasts the attempt is under way."""
    moved = []

    def stopping(move):
        def stop(source, target):
            if len(moved) == after:
                raise OSError("the power fails")
            moved.append(target)
            move(source, target)

        return stop

    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopping(os.replace))
            patch.setattr(staging, "place", stopping(staging.place))
            with pytest.raises(StoreError, match="the power fails"):
                commit(attempt, lease)


def test_what_a_dead_attempt_left_is_told_as_harmless_and_left_alone(store, monkeypatch):
    break_off_commit(store, case_at(3, STEPS), monkeypatch, 3, None)
    verification = verify(store.path, deep=True)
    assert [flaw.kind for flaw in verification.flaws] == [FlawKind.UNRECORDED] * 3
    assert {flaw.key for flaw in verification.flaws} == {KEY_OF[3]}
    assert not verification.damaged
    before = data_files(store.path)
    repair(store.path, verification.flaws)
    assert data_files(store.path) == before


def test_a_case_that_is_being_written_is_no_finding(store, monkeypatch):
    lease = store.ledger.lease(case_at(3, STEPS), 3600)
    break_off_commit(store, case_at(3, STEPS), monkeypatch, 3, lease)
    assert found_in(store, deep=True) == []
    lease.release()
    assert len(found_in(store)) == 3


def test_a_longer_forecast_that_is_taking_the_place_of_a_shorter_one_is_no_finding_unless_it_died(store, monkeypatch):
    short, long = case_at(2, 3), case_at(2, STEPS)
    lease = store.ledger.lease(long, 3600)
    break_off_commit(store, long, monkeypatch, 4, lease)
    flaws = verify(store.path, deep=True).flaws
    assert flaws == ()
    lease.release()
    flaws = verify(store.path, deep=False).flaws
    assert {(flaw.kind, flaw.key) for flaw in flaws} == {("size", short.key), ("unrecorded", short.key)}
    assert repair(store.path, flaws).forgotten == (short.key,)
    fill(store, long)
    assert found_in(store, deep=True) == []


def test_a_shorter_record_that_a_longer_one_has_replaced_is_not_looked_at(store):
    folder = store.ledger.folder
    record = store.ledger.record(KEY_OF[0])
    (folder / "steps-3" / f"{KEY_OF[0]}.json").write_text(record.model_copy(update={"steps": 3}).model_dump_json())
    assert found_in(store, deep=True) == []
    (store.path / FILES[0]).unlink()
    repair(store.path, verify(store.path, deep=False).flaws)
    assert store.ledger.record(KEY_OF[0]) is None


@pytest.mark.parametrize(
    "name",
    [
        "c.5.0.0.0",  # beyond the initial times
        "c.0.2.0.0",  # beyond the lead times
        "c.0.0.0.0.0",  # of a variable on levels
        "c.00.0.0.0",
        "c.0.0.0.1",
        "c.-1.0.0.0",
        ".0123456789abcdef.tmp",
        "notes.txt",
    ],
)
def test_a_foreign_file_is_found_and_removed(store, sound, name):
    (store.path / "2m_temperature" / name).write_bytes(b"foreign")
    flaws = verify(store.path, deep=False).flaws
    assert [(flaw.kind, flaw.key, flaw.path) for flaw in flaws] == [("unexpected", "", f"2m_temperature/{name}")]
    assert repair(store.path, flaws).removed == (f"2m_temperature/{name}",)
    assert repair(store.path, flaws).removed == ()
    assert data_files(store.path) == data_files(sound.path)


def test_a_foreign_folder_is_found_and_left_to_its_owner(store):
    (store.path / "temperature" / "mine").mkdir()
    (store.path / "temperature" / "mine" / "thesis.txt").touch()
    flaws = verify(store.path, deep=False).flaws
    assert [flaw.path for flaw in flaws] == ["temperature/mine"]
    assert repair(store.path, flaws).removed == ()
    assert (store.path / "temperature" / "mine" / "thesis.txt").exists()


def test_a_file_beyond_the_axis_that_got_its_case_before_the_repair_is_kept(store):
    (store.path / "2m_temperature" / "c.5.0.0.0").write_bytes(b"foreign")
    flaws = verify(store.path, deep=False).flaws
    longer = make(store.path, plan_of(range(6), STEPS))
    fill(longer, case_at(5, STEPS))
    assert repair(store.path, flaws).removed == ()
    assert found_in(longer, deep=True) == []


def change_metadata(path):
    path.write_text(path.read_text().replace('"lz4"', '"zlib"'))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (lambda path: path.unlink(), "cannot be read: .*No such file"),
        (lambda path: path.write_bytes(b"{"), "cannot be read: Expecting property name"),
        (lambda path: path.write_bytes(b"\xff"), "cannot be read: .*codec can't decode"),
        (change_metadata, "agree with the metadata of the root, but does not; run again"),
    ],
)
def test_metadata_that_the_root_contradicts_are_named_unless_the_store_is_growing(store, how, text):
    how(store.path / "temperature" / "zarr.json")
    with extension_lock(store.path):
        (store.path / "temperature" / ".fresh.tmp").touch()
        assert found_in(store) == []
        (store.path / "temperature" / ".fresh.tmp").unlink()
    (flaw,) = verify(store.path, deep=False).flaws
    assert (flaw.kind, flaw.path) == (FlawKind.METADATA, "temperature/zarr.json")
    with pytest.raises(StoreError, match=text):
        raise StoreError(flaw)


def test_an_extension_that_broke_off_is_ended_by_the_next_run(store, monkeypatch):
    replace = os.replace

    def stop(source, target):
        if target == store.path / "zarr.json":
            raise OSError("the power fails")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(StoreError, match="the power fails"):
            make(store.path, plan_of(range(7), STEPS))
    assert {flaw.kind for flaw in verify(store.path, deep=True).flaws} == {FlawKind.METADATA}
    make(store.path, plan_of(range(7), STEPS))
    assert found_in(store, deep=True) == []


@pytest.mark.parametrize("name", ["time", "prediction_timedelta", "level", "latitude", "longitude"])
@pytest.mark.parametrize("how", [remove, shorten])
def test_a_store_whose_coordinates_are_lost_is_refused(store, name, how):
    how(store.path / name / "c.0", 0)
    with pytest.raises(StoreError, match=name):
        verify(store.path, deep=False)


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("time", 3, None), ("prediction_timedelta", 9, 6), ("level", 1, 500), ("level", 0, -500)],
)
def test_coordinates_that_changed_are_found_and_nothing_is_repaired_before_they_are_restored(store, name, index, value):
    remove(store.path / FILES[0], 0)
    axis = zarr.open_array(store.path / name, mode="r+")
    axis[index] = axis[2] if name == "time" else value
    before = data_files(store.path)
    flaws = verify(store.path, deep=False).flaws
    assert {flaw.path for flaw in flaws if flaw.kind is FlawKind.COORDINATES} == {name}
    with pytest.raises(StoreError, match=rf"nothing was repaired in .*: {name} .*must .*restore .* from a copy"):
        repair(store.path, flaws)
    assert data_files(store.path) == before
    assert store.ledger.steps_of(KEY_OF[0]) == STEPS


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(5)), shift=st.sampled_from([0, 1, 1000]))
def test_initial_times_that_stand_elsewhere_than_their_files_are_a_fault_of_the_axis(sound, order, shift):
    with copy_of(sound) as store:
        hours = store.init_times.astype(np.int64)[order] + shift
        zarr.open_array(store.path / "time", mode="r+")[...] = hours
        moved = {KEY_OF[index] for index in (0, 1, 2, 4) if shift or order[index] != index}
        flaws = [flaw for flaw in verify(store.path, deep=False).flaws if flaw.kind is not FlawKind.UNRECORDED]
        assert {(flaw.kind, flaw.key, flaw.path) for flaw in flaws} == {("coordinates", key, "time") for key in moved}


def test_a_root_that_cannot_be_opened_is_refused(store):
    path = store.path / "zarr.json"
    path.write_text(path.read_text().replace('"consolidated_metadata"', '"consolidated"'))
    with pytest.raises(StoreError, match=r"run\.zarr must be"):
        verify(store.path, deep=True)


def test_a_root_whose_shapes_contradict_each_other_is_found(store):
    path = store.path / "zarr.json"
    text = path.read_text()
    sizes = "5,\n          10,\n          2,\n          5,\n          8"
    assert sizes in text
    path.write_text(text.replace(sizes, sizes.replace("10", "11", 1)))
    assert ("coordinates", "", "temperature") in found_in(store)


def test_without_a_store_there_is_nothing_to_verify(tmp_path):
    with pytest.raises(StoreError, match="there is no store at"):
        verify(tmp_path, deep=False)


@pytest.mark.parametrize("how", [remove, shorten])
def test_statistics_that_a_worker_could_not_read_are_named(store, how):
    how(store.path / "statistics" / "stddev_by_level.nc", 100)
    (flaw,) = verify(store.path, deep=False).flaws
    assert (flaw.kind, flaw.path) == (FlawKind.STATISTICS, "statistics/stddev_by_level.nc")


def test_a_lost_variable_is_lost_in_every_case(store):
    shutil.rmtree(store.path / "temperature")
    flaws = verify(store.path, deep=False).flaws
    lost = [file for file in FILES if file.startswith("temperature/")]
    assert {flaw.path for flaw in flaws} == {*lost, "temperature/zarr.json"}
    assert set(repair(store.path, flaws).forgotten) == {case.key for case in COMPLETE}


def test_repair_never_touches_a_case_that_someone_works_on(store):
    for file in ("temperature/c.0.0.0.0.0", "temperature/c.1.0.0.0.0"):
        shorten(store.path / file, 100)
    flaws = verify(store.path, deep=False).flaws
    lease = store.ledger.hold(KEY_OF[0], 3600)
    done = repair(store.path, flaws)
    assert (done.forgotten, done.busy) == ((KEY_OF[1],), (KEY_OF[0],))
    assert (store.path / "temperature/c.0.0.0.0.0").exists()
    assert store.ledger.steps_of(KEY_OF[0]) == STEPS
    lease.release()
    assert repair(store.path, flaws).forgotten == (KEY_OF[0],)
    assert not list(store.ledger.folder.glob("*.claim"))


def test_a_case_that_was_mended_since_is_not_forgotten(store, sound):
    for how in (flip, remove):
        how(store.path / FILES[0], 5)
        flaws = verify(store.path, deep=True).flaws
        shutil.copy(sound.path / FILES[0], store.path / FILES[0])
        assert repair(store.path, flaws).forgotten == ()
    assert found_in(store, deep=True) == []


def test_a_repair_that_loses_its_claim_forgets_nothing(store, monkeypatch):
    shorten(store.path / FILES[0], 5)
    flaws = verify(store.path, deep=False).flaws
    monkeypatch.setattr("graphcast_batch.files.leases.FileLease.held", lambda lease: False)
    with pytest.raises(StoreError, match=rf"{KEY_OF[0]}: the lease must be held .*lost to another process; verify"):
        repair(store.path, flaws)
    assert store.ledger.steps_of(KEY_OF[0]) == STEPS
    assert (store.path / FILES[0]).exists()


@pytest.mark.parametrize("after", range(12))
def test_a_repair_killed_at_any_removal_leaves_nothing_worse_and_the_next_one_ends_it(store, sound, monkeypatch, after):
    harmed = [file for file in FILES if "/c.0." in file or "/c.4.1." in file]
    for file in harmed:
        flip(store.path / file, 77)
    (store.path / "temperature" / "stray").touch()
    removed, unlink, rename = [], Path.unlink, os.rename

    def stop(path, missing_ok=False):
        if path.suffix not in (".tmp", ".claim") and path.name != ".extending":
            count(path)
        unlink(path, missing_ok)

    def stop_taking(path, target):
        count(path)
        rename(path, target)

    def count(path):
        if len(removed) == after:
            raise KeyboardInterrupt
        removed.append(path)

    flaws = verify(store.path, deep=True).flaws
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stop)
        patch.setattr(os, "rename", stop_taking)
        with pytest.raises(KeyboardInterrupt):
            repair(store.path, flaws)
    states = store.ledger.states(COMPLETE)
    assert {key for key, state in states.items() if state is not CaseState.COMPLETE} <= {KEY_OF[0], KEY_OF[4]}
    repair(store.path, verify(store.path, deep=True).flaws)
    assert not verify(store.path, deep=True).damaged
    remake(store)
    assert data_files(store.path) == data_files(sound.path)
    assert found_in(store, deep=True) == []


def test_files_are_read_where_the_spread_reads_them(store):
    flip(store.path / "temperature/c.1.0.0.0.0", 1000)

    def backwards(function, arguments):
        return reversed(list(starmap(function, reversed(arguments))))

    verification = verify(store.path, deep=True, executor=backwards)
    assert [(flaw.kind, flaw.key) for flaw in verification.flaws] == [("checksum", KEY_OF[1])]
    assert verification.cases == 4


def test_a_spread_that_stops_early_leaves_cases_and_what_fails_in_it_is_raised(store):
    verification = verify(store.path, deep=True, executor=lambda function, arguments: starmap(function, arguments[:3]))
    assert (verification.cases, verification.left) == (3, 1)
    with pytest.raises(StoreError, match="lost"):
        verify(store.path, deep=True, executor=lambda function, arguments: [StoreError("lost")])


def fill_and_grow(path, ready, stop):
    for longest in count(1):
        store = make(path, plan_of(range(longest), min(longest, 20)))
        for index in random.Random(longest).sample(range(longest), min(longest, 3)):
            fill_claimed(store, case_at(index, len(store.kept.lead_hours)))
        ready.set()
        if stop.is_set():
            return


def fill_claimed(store, case):
    lease = store.ledger.lease(case, 3600)
    if lease:
        with store.attempt(case) as attempt:
            write_all(attempt, store, case)
            commit(attempt, lease)
        lease.release()


def test_while_a_driver_writes_and_extends_nothing_is_found(tmp_path):
    store = with_statistics(make(tmp_path / "run.zarr", plan_of([0], 1)))
    ready, stop = PROCESSES.Event(), PROCESSES.Event()
    child = PROCESSES.Process(target=fill_and_grow, args=(store.path, ready, stop), daemon=True)
    child.start()
    assert ready.wait(120)
    found = [flaw for look in range(30) for flaw in verify(store.path, deep=look % 2 == 1).flaws]
    stop.set()
    child.join(120)
    assert child.exitcode == 0
    assert found == []
