"""Disks that fill up, quotas, read-only folders and files that vanish, by real means wherever there are any."""

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from graphcast_batch.errors import StoreError, StoreUnwritableError
from graphcast_batch.files.durable import publish
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.store_kinds import open_store, store_exists
from tests.conftest import HASTY
from tests.forks import PROCESSES
from tests.stores.made_stores import (
    VARIABLES,
    assert_whole_cases_are_all_there,
    case_at,
    commit,
    data_files,
    fill,
    make,
    plan_of,
    values_of,
    write_all,
)
from tests.test_pipeline import FakeForecasts, cases, context, store_of
from tests.test_pipeline import make as make_case

EARLIER = plan_of(range(1), 3, on_levels=VARIABLES[1:2])
PLAN = plan_of(range(2), 10, on_levels=VARIABLES[1:2])
PAGE = 4096
NOBODY = 65534


class Disk:
    """A small file system in memory, mounted for one test."""

    def __init__(self, folder):
        self.folder = folder
        self._filler = folder / "filler"

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def clear(self):
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def leave_pages(self, count):
        with suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while filler.write(bytes(PAGE)):
                pass
        os.truncate(self._filler, max(0, self._filler.stat().st_size - count * PAGE))

    def leave_inodes(self, count):
        self._filler.mkdir()
        with suppress(OSError):
            for number in range(10_000):
                (self._filler / str(number)).touch()
        for path in list(self._filler.iterdir())[:count]:
            path.unlink()

    def free(self):
        shutil.rmtree(self._filler) if self._filler.is_dir() else self._filler.unlink()


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "tmpfs", folder]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system to fill; try `unshare -Urm pytest`")
    yield Disk(folder)
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def memory():
    """A folder that needs no disk, where there is one: hundreds of stores made durable take their time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


def make_all(path, plan):
    """What a run does to a store, with one worker."""
    store = make(path, plan)
    store.sweep()
    states = store.ledger.states(plan.cases)
    for case in plan.cases:
        if states[case.key] is not CaseState.COMPLETE:
            lease = store.ledger.lease(case, 60)
            try:
                with store.attempt(case) as attempt:
                    write_all(attempt, store, case)
                    commit(attempt, lease)
            finally:
                lease.release()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Two stores to compare with, new and grown, and what the grown one was before."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for name in ("earlier", "grown"):
        make_all(folder / name, EARLIER)
    for name in ("new", "grown"):
        make_all(folder / name, PLAN)
    return folder


def begin(history, undisturbed, path):
    if history == "grown":
        shutil.copytree(undisturbed / "earlier", path)


def assert_nothing_is_lost(history, path):
    """A store is absent or whole; every record has its data, and those of an earlier run are as they were."""
    if not store_exists(path):
        assert history == "new"
        return
    store = open_store(path)
    assert not list((path / ".staging").iterdir())
    known = [case for case in PLAN.cases if str(case.init_time) in map(str, store.init_times)]
    if len(store.kept.lead_hours) == 10:
        assert_whole_cases_are_all_there(store, known)
    if history == "grown":
        (case,) = EARLIER.cases
        assert store.ledger.states(EARLIER.cases) == {case.key: CaseState.COMPLETE}
        kept = store.forecasts().sel(time=case.init_time, prediction_timedelta=case.lead_times)
        for name, values in values_of(store, case).items():
            np.testing.assert_array_equal(kept[name], values)


def assert_mended(history, undisturbed, path):
    # The next run is another process, to which the claims of this one are void.
    for lease in path.glob("ledger/*.claim"):
        lease.unlink()
    make_all(path, PLAN)
    assert data_files(path) == data_files(undisturbed / history)
    assert set(open_store(path).ledger.states(PLAN.cases).values()) == {CaseState.COMPLETE}


FULL = "No space left on device.*; free space, or raise the quota or the limits of files and run again"
READ_ONLY = "Read-only file system.*; correct the mount or the permissions and run again"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("history", "kind", "moments"),
    [
        ("new", "pages", ("laying out", "the lease", "writing it to", "recording it in")),
        ("new", "inodes", ("laying out", "the lease", "writing it to", "recording it in")),
        ("grown", "pages", ("the lease", "laying out")),
        ("grown", "inodes", ("the lease", "laying out")),  # a store that grows needs more files at once than a Case
    ],
)
def test_a_disk_may_fill_up_at_any_moment(disk, undisturbed, history, kind, moments):
    path, told = disk.folder / "run.zarr", []
    for left in range(200):
        disk.clear()
        begin(history, undisturbed, path)
        getattr(disk, f"leave_{kind}")(left)
        try:
            make_all(path, PLAN)
            break
        except StoreUnwritableError as error:
            told.append(str(error))
        assert_nothing_is_lost(history, path)
        disk.free()
        assert_mended(history, undisturbed, path)
    assert all(re.search(f"{re.escape(str(path))}.* failed: .*{FULL}", text) for text in told)
    for moment in moments:
        assert any(moment in text for text in told)


@contextmanager
def largest_file(size):
    """Lets no file of this process become larger, as a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("history", ["new", "grown"])
def test_a_limit_may_cut_off_any_file(memory, undisturbed, history):
    path = memory / "run.zarr"
    before = data_files(undisturbed / "earlier") if history == "grown" else {}
    written = [content for file, content in data_files(undisturbed / history).items() if before.get(file) != content]
    for size in sorted(set(map(len, written))):
        begin(history, undisturbed, path)
        with (
            pytest.raises(StoreUnwritableError, match=rf"{path}.* failed: .*File too large.*free space, or"),
            largest_file(size - 1),
        ):
            make_all(path, PLAN)
        assert_nothing_is_lost(history, path)
        assert_mended(history, undisturbed, path)
        shutil.rmtree(path)


def test_the_rollout_stops_at_a_full_disk_and_leaves_no_case_behind(disk):
    some = cases(2, 400)
    path = disk.folder / "run.zarr"
    store = store_of(path, some, 8)
    disk.leave_pages(60)
    forecasts = FakeForecasts(8)
    with pytest.raises(StoreUnwritableError, match=rf"2020-01-01T00: writing it to {path} failed: .*{FULL}"):
        make_case(context(store, forecasts), some[0])
    assert not list((path / ".staging").iterdir())
    assert store.ledger.record(some[0].key) is None
    disk.free()
    assert make_case(context(store, forecasts), some[1]).steps == 400


def make_one(store, moment):
    """The moments in which a Case is made; ``moment`` is told each before it comes."""
    (case,) = PLAN.cases[:1]
    moment("sweep")
    store.sweep()
    moment("claim")
    lease = store.ledger.lease(case, 60)
    try:
        moment("attempt")
        with store.attempt(case) as attempt:
            values = values_of(store, case)
            for first, last in ((0, 8), (8, 10)):
                moment(f"write {first}")
                attempt.write(first, {name: array[first:last] for name, array in values.items()})
            moment("commit")
            commit(attempt, lease)
    finally:
        moment("release")
        lease.release()


MAKING = ("sweep", "claim", "attempt", "write 0", "write 8", "commit")


@pytest.mark.parametrize("when", [*MAKING, "release"])
def test_a_disk_that_becomes_read_only_stops_what_writes_and_leaves_what_reads(disk, undisturbed, when):
    path = disk.folder / "run.zarr"
    store = make(path, PLAN)

    def read_only(moment):
        if moment == when:
            disk.remount("ro")

    with pytest.raises(StoreUnwritableError, match=f"{path}.* failed: .*{READ_ONLY}"):
        make_one(store, read_only)
    states = open_store(path).ledger.states(PLAN.cases)
    assert (CaseState.COMPLETE in states.values()) == (when == "release")
    assert open_store(path).forecasts()["temperature"].shape == (2, 10, 2, 5, 8)
    disk.remount("rw")
    assert_mended("new", undisturbed, path)


@contextmanager
def as_nobody_owning(folder):
    """Root may write everywhere; within this, this process is someone else."""
    if os.geteuid():
        yield
        return
    try:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    except OSError:
        pytest.skip("this user namespace has no user but root")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (".", "laying out {path} failed"),
        ("run.zarr/ledger", "the lease {path}/ledger/2020-01-01T00.claim failed"),
        ("run.zarr/.staging", "2020-01-01T00: writing it to {path} failed"),
        ("run.zarr/temperature", "2020-01-01T00: writing it to {path} failed"),
    ],
)
def test_a_folder_without_permission_to_write_is_named(undisturbed, where, told):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.zarr")
        with as_nobody_owning(folder):
            if where != ".":
                make(path, PLAN)
            forbidden = Path(folder, where)
            forbidden.chmod(0o555)
            told = re.escape(told.format(path=path)) + ": .*Permission denied.*; correct the mount or the permissions"
            with pytest.raises(StoreUnwritableError, match=told):
                make_all(path, PLAN)
            forbidden.chmod(0o755)
            assert not list(path.glob("ledger/steps-*/*"))
            make_all(path, PLAN)
        assert data_files(path) == data_files(undisturbed / "new")


@pytest.mark.parametrize(
    ("what", "failing"),
    [
        (".staging", ("write 0", "write 8", "commit")),
        (".staging/*", ("write 0", "write 8", "commit")),
        ("ledger", MAKING),
        ("ledger/*.claim", ("attempt", "write 0", "write 8", "commit")),
        ("temperature", MAKING),
        ("temperature/zarr.json", ()),
        ("zarr.json", ()),
        (".", MAKING),
    ],
)
def test_what_vanishes_from_a_store_fails_the_case_and_is_mended_by_putting_it_back(memory, undisturbed, what, failing):
    told = {}
    for number, when in enumerate(MAKING):
        path, aside = memory / f"{number}.zarr", memory / f"aside-{number}"
        store = make(path, PLAN)

        def vanish(moment, path=path, aside=aside, when=when):
            if moment == when:
                aside.mkdir()
                for gone in list(path.glob(what)) if what != "." else [path]:
                    gone.rename(aside / gone.name)

        try:
            make_one(store, vanish)
        except StoreError as error:
            told[when] = str(error)
        put_back(path, aside, what)
        assert_whole_cases_are_all_there(open_store(path), PLAN.cases)
        assert_mended("new", undisturbed, path)
    assert tuple(told) == failing
    for text in told.values():
        assert re.search(rf"{memory}/\d.zarr.*(put back what was removed|lost to another process or removed)", text)


def put_back(path, aside, what):
    if what in (".staging/*", "ledger/*.claim"):
        return
    (gone,) = aside.iterdir()
    place = path if what == "." else path / what
    if what == "." or not place.exists():
        shutil.rmtree(place, ignore_errors=True)
        gone.rename(place)


CALLS = {"replace": errno.ESTALE, "link": errno.ESTALE, "rename": errno.ESTALE, "fsync": errno.EIO, "utime": errno.EIO}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("history", "name"),
    [
        ("new", "rename"),
        ("new", "fsync"),
        ("grown", "fsync"),
        ("grown", "link"),
        ("grown", "replace"),
        ("grown", "utime"),
    ],
)
def test_a_network_that_drops_any_one_call_costs_no_more_than_another_run(
    memory, undisturbed, history, name, monkeypatch
):
    call, path = getattr(os, name), memory / "run.zarr"
    for dropped in range(200):
        left = dropped

        def drop(*arguments, **options):
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(CALLS[name], os.strerror(CALLS[name]))
            return call(*arguments, **options)

        begin(history, undisturbed, path)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, drop)
            with suppress(StoreError):
                make_all(path, PLAN)
        if left >= 0:
            break
        assert_nothing_is_lost(history, path)
        assert_mended(history, undisturbed, path)
        shutil.rmtree(path)
    assert 0 < dropped < 199


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_an_array_that_lost_its_own_metadata_gets_it_again_from_the_root(tmp_path, undisturbed, content):
    path = tmp_path / "run.zarr"
    make(path, PLAN)
    file = path / "temperature" / "zarr.json"
    file.unlink() if content is None else file.write_bytes(content)
    make_all(path, PLAN)
    for name, expected in data_files(undisturbed / "new").items():
        found = (path / name).read_bytes()
        if name.endswith("zarr.json"):
            assert json.loads(found) == json.loads(expected)
        else:
            assert found == expected


@pytest.mark.parametrize("content", [None, b"", b"\0" * 40])
@pytest.mark.parametrize("name", ["time", "prediction_timedelta", "level", "latitude", "longitude"])
def test_a_store_without_one_of_its_coordinates_is_not_taken_up(tmp_path, undisturbed, name, content):
    path = tmp_path / "run.zarr"
    make_all(path, EARLIER)
    (file,) = (path / name).glob("c*")
    kept = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    before = data_files(path)
    with pytest.raises(StoreError, match=rf"{path}.*{name}.*put .*back"):
        make(path, PLAN)
    assert data_files(path) == before
    file.write_bytes(kept)
    assert_mended("grown", undisturbed, path)


def test_a_store_that_lost_its_root_is_not_laid_out_over(tmp_path, undisturbed):
    path = tmp_path / "run.zarr"
    make_all(path, EARLIER)
    (path / "zarr.json").rename(tmp_path / "aside")
    before = data_files(path)
    with pytest.raises(StoreError, match=rf"{path} must be a store .*or put its zarr\.json back"):
        make(path, PLAN)
    assert data_files(path) == before
    (tmp_path / "aside").rename(path / "zarr.json")
    assert_mended("grown", undisturbed, path)


@pytest.mark.parametrize("file", ["zarr.json", "ledger/steps-3/2020-01-01T00.json", "ledger/2020-01-01T06.failed.json"])
def test_a_file_that_cannot_be_read_is_named_with_the_cause(tmp_path, file):
    path = tmp_path / "run.zarr"
    make_all(path, EARLIER)
    (path / file).unlink(missing_ok=True)
    (path / file).mkdir()

    def look():
        store = open_store(path)
        store.ledger.record("2020-01-01T00")
        store.ledger.failure("2020-01-01T06")

    with pytest.raises(StoreError, match=rf"{path}.*Is a directory: '{path / file}'.*run again"):
        look()


def test_without_hard_links_a_full_disk_leaves_no_half_of_a_record(disk, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    disk.leave_pages(1)  # for the file beside, so that the one in its place finds none
    with pytest.raises(OSError, match="No space left"):
        publish(disk.folder / "record.json", b"{}")
    assert [path.name for path in disk.folder.iterdir()] == ["filler"]


def test_a_write_that_hangs_commits_nothing_and_holds_up_nobody_else(tmp_path, undisturbed):
    path = tmp_path / "run.zarr"
    store = make(path, PLAN)
    hung, other = PLAN.cases
    lease, ended, piped = store.ledger.lease(hung, 60), [], []

    def write():
        try:
            with store.attempt(hung) as attempt:
                # Opening a pipe hangs until someone reads from it, and no pipe can be made to outlast a power failure.
                pipe = next(path.glob(".staging/*")) / "temperature" / "c.0.0.0.0.0"
                os.mkfifo(pipe)
                piped.append(pipe)
                write_all(attempt, store, hung)
                commit(attempt, lease)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    while not piped:
        time.sleep(0.01)
    fill(store, other)
    assert store.ledger.states(PLAN.cases) == {hung.key: CaseState.RUNNING, other.key: CaseState.COMPLETE}
    assert not list(path.glob("*/c.0.*"))
    handle = os.open(piped[0], os.O_RDONLY | os.O_NONBLOCK)
    thread.join(60)
    os.close(handle)
    assert [type(error) for error in ended] == [StoreError]
    assert store.ledger.states(PLAN.cases)[hung.key] is CaseState.RUNNING
    assert_mended("new", undisturbed, path)


@pytest.mark.slow
def test_a_run_onto_a_disk_that_fills_up_stops_and_with_more_space_ends_as_if_nothing_had_been(
    disk, small_config, command, finished
):
    disk.remount("size=64m,nr_inodes=10000")
    undisturbed, store = disk.folder / "undisturbed", disk.folder / "run.zarr"
    finished.copy(undisturbed)
    shutil.rmtree(undisturbed / "figures")
    used = shutil.disk_usage(disk.folder).used
    disk.remount(f"size={used + used // 2}")
    config = small_config(store=str(store))

    # Its workers must be gone with it: one that still wrote would hold the disk.
    stopped = command("run", config, env=os.environ | {"XLA_FLAGS": HASTY})

    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert re.search(f"StoreUnwritableError: 2020-01-01T.*{store}.* failed: .*{FULL}", stopped.stderr)
    assert "Traceback" not in stopped.stderr
    planned = [case_at(index, 3) for index in range(4)]
    assert CaseState.FAILED not in open_store(store).ledger.states(planned).values()
    assert_whole_cases_are_all_there(open_store(store), planned)

    disk.remount("size=64m")
    assert command("run", config, env=os.environ | {"XLA_FLAGS": HASTY}).returncode == 0
    assert forecasts_of(store) == forecasts_of(undisturbed)
    assert not list((store / ".staging").iterdir())


def forecasts_of(store):
    """Files that hold forecasts and their coordinates."""
    return {name: content for name, content in data_files(store).items() if re.search(r"/c(\.\d+)*$", name)}


def refuse_to_unlink(*_, **__):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def make_all_without_unlink(path):
    os.unlink = refuse_to_unlink
    make_all(path, PLAN)


def die_in_an_attempt(path, how):
    store = make(path, PLAN)
    attempt = store.attempt(PLAN.cases[0]).__enter__()
    write_all(attempt, store, PLAN.cases[0])
    (owner,) = path.glob(".staging/*/owner.json")
    owner.write_bytes(b"") if how == "full disk" else owner.unlink()
    os._exit(0)


def die_laying_out(path, _how):
    os.rename = refuse_to_unlink
    shutil.rmtree = lambda *_, **__: os._exit(0)
    make(path, PLAN)


def in_another_process(function, *arguments):
    child = PROCESSES.Process(target=function, args=arguments)
    child.start()
    child.join(120)
    assert child.exitcode == 0


def test_a_disk_that_deletes_nothing_holds_up_no_case_and_what_is_left_goes_with_the_next_run(tmp_path, undisturbed):
    path = tmp_path / "run.zarr"
    make(path, PLAN)
    in_another_process(make_all_without_unlink, path)
    assert set(open_store(path).ledger.states(PLAN.cases).values()) == {CaseState.COMPLETE}
    assert list(path.glob("ledger/.*")), list(path.glob(".staging/*"))
    open_store(path).sweep()
    assert not [*path.rglob(".*.tmp"), *path.rglob(".*.aside"), *path.glob(".staging/*"), *path.glob("ledger/*.claim")]
    assert data_files(path) == data_files(undisturbed / "new")


@pytest.mark.parametrize("how", ["full disk", "no file descriptors"])
def test_what_the_dead_left_is_known_by_its_name_where_nothing_in_it_tells_whose_it_is(tmp_path, how):
    path = tmp_path / "run.zarr"
    in_another_process(die_in_an_attempt, path, how)
    assert len(list(path.glob(".staging/*"))) == 1
    open_store(path).sweep()
    assert not list(path.glob(".staging/*"))


def test_half_a_lay_out_of_a_dead_driver_goes_with_the_next_run(tmp_path):
    path = tmp_path / "run.zarr"
    in_another_process(die_laying_out, path, "")
    assert len(list(tmp_path.glob(".run.zarr.*.partial"))) == 1
    make(path, PLAN)
    assert [each.name for each in tmp_path.iterdir()] == ["run.zarr"]
