import errno
import fcntl
import grp
import os
import pickle
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.config.loading import dump_config, load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import Grid
from graphcast_batch.models import graphs as graphs_module
from graphcast_batch.models.disk_cache import Cache, digest_of_source, entry_name, users_folder
from graphcast_batch.models.graphs import build_graphs, cached_graphs
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.run_warnings import run_warnings
from graphcast_batch.spec import Architecture

NAME = entry_name("graphs", "some", "key")
CONTENT = bytes(range(256)) * 40

TOGETHER = """
import os, sys, time
from pathlib import Path
from graphcast_batch.models.disk_cache import Cache, entry_name

folder, count, fate = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
cache, name = Cache(folder / "cache"), entry_name("graphs", "some", "key")
start, started = os.pipe()
children = []
for number in range(count):
    child = os.fork()
    if not child:
        os.close(started)
        os.read(start, 1)
        with cache.turn(name) as kept:
            if kept is None:
                with (folder / "built").open("a") as built:
                    built.write("x")
                if fate == "die" and (folder / "built").stat().st_size == 1:
                    os.kill(os.getpid(), 9)
                time.sleep(0.3)
                kept = bytes(range(256)) * 4000
                cache.put(name, kept)
        os._exit(0 if kept == bytes(range(256)) * 4000 else 1)
    children.append(child)
os.close(start)
os.close(started)
ends = [os.waitpid(child, 0)[1] for child in children]
print((folder / "built").stat().st_size, ends.count(0), ends.count(9))
"""


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def disk(tmp_path):
    """A file system of 256 kB, and how to mount it otherwise."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system to fill; try `unshare -Urm pytest`")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    yield folder, remount
    subprocess.run(["umount", folder], check=True)


def entry(cache, name=NAME):
    return cache.folder / f"{name}.entry"


def together(tmp_path, count, fate):
    """How many of so many processes computed, how many had the right content, and how many were killed."""
    words = [sys.executable, "-c", TOGETHER, str(tmp_path), str(count), fate]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return tuple(map(int, done.stdout.split()))


@pytest.mark.parametrize("content", [b"", b"\0", CONTENT])
def test_what_is_put_is_what_is_got(cache, content):
    assert cache.get(NAME) is None

    cache.put(NAME, content)

    assert cache.get(NAME) == content
    assert cache.get(entry_name("graphs", "another", "key")) is None


def test_a_later_entry_takes_the_place_of_an_earlier_one(cache):
    cache.put(NAME, b"old")
    cache.put(NAME, b"new")

    assert cache.get(NAME) == b"new"


def test_only_the_user_may_look_into_a_new_folder(cache):
    cache.put(NAME, CONTENT)

    assert cache.folder.stat().st_mode & 0o777 == 0o700


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_an_entry_that_is_torn_or_rotten_is_removed_and_made_again(tmp_path_factory, data):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    cache.put(NAME, CONTENT)
    complete = entry(cache).read_bytes()
    place = data.draw(st.integers(0, len(complete) - 1))
    bits = data.draw(st.integers(1, 255))
    torn = data.draw(st.booleans())
    entry(cache).write_bytes(
        complete[:place] if torn else complete[:place] + bytes([complete[place] ^ bits]) + complete[place + 1 :]
    )

    with cache.turn(NAME) as kept:
        assert kept is None
        assert not entry(cache).exists()
        cache.put(NAME, CONTENT)
    assert cache.get(NAME) == CONTENT


def test_of_a_hundred_processes_that_start_at_once_one_computes(tmp_path):
    assert together(tmp_path, 100, "live") == (1, 100, 0)


def test_when_the_one_that_computes_is_killed_another_does_so(tmp_path):
    computed, right, killed = together(tmp_path, 20, "die")

    assert (computed, right, killed) == (2, 19, 1)


def test_a_process_killed_while_it_publishes_leaves_no_entry_and_holds_up_nobody(cache):
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom graphcast_batch.models.disk_cache import Cache\n"
        "os.fsync = lambda file: (print(flush=True), time.sleep(60))\n"
        f"cache = Cache(Path(sys.argv[1]))\nwith cache.turn({NAME!r}):\n    cache.put({NAME!r}, bytes(10**6))\n"
    )
    words = [sys.executable, "-c", script, str(cache.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as publishing:
        publishing.stdout.readline()
        publishing.send_signal(signal.SIGKILL)

    assert [path.suffix for path in cache.folder.iterdir() if path.suffix != ".lock"] == [".tmp"]
    with cache.turn(NAME) as kept:
        assert kept is None
        cache.put(NAME, CONTENT)
    assert cache.get(NAME) == CONTENT


def test_what_comes_just_before_the_turn_is_taken(cache, monkeypatch):
    def come(lock):
        cache.put(NAME, CONTENT)
        return True

    monkeypatch.setattr("graphcast_batch.models.disk_cache._locked", come)
    with cache.turn(NAME) as kept:
        assert kept == CONTENT


def test_one_that_takes_too_long_is_not_waited_for(tmp_path):
    slow, hurried = Cache(tmp_path), Cache(tmp_path, patience=0.2)

    with slow.turn(NAME) as mine, hurried.turn(NAME) as kept:
        assert mine is None
        assert kept is None


def test_one_that_fails_hands_the_task_on(cache):
    with pytest.raises(ZeroDivisionError), cache.turn(NAME):
        raise ZeroDivisionError

    with cache.turn(NAME) as kept:
        assert kept is None


def test_a_file_system_without_locks_makes_nobody_wait(cache, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with cache.turn(NAME) as first, cache.turn(NAME) as second:
        assert first is None
        assert second is None


def test_a_read_only_folder_is_read_and_what_it_lacks_is_computed(disk, caplog):
    folder, remount = disk
    cache = Cache(folder / "cache")
    assert cache.writable
    cache.put(NAME, CONTENT)
    remount("ro")
    other = entry_name("graphs", "another", "key")

    assert not cache.writable
    assert cache.get(NAME) == CONTENT
    with cache.turn(other) as kept:
        assert kept is None
        cache.put(other, CONTENT)
    assert cache.get(other) is None
    assert "no entry can be written" in caplog.text


def test_a_full_disk_takes_no_entry_and_keeps_no_half_of_one(disk, caplog):
    cache = Cache(disk[0])
    cache.put(NAME, CONTENT)
    other = entry_name("graphs", "another", "key")
    cache.put(other, bytes(10**6))

    assert "No space left on device" in caplog.text
    assert cache.get(other) is None
    assert not list(disk[0].glob("*.tmp"))
    assert cache.get(NAME) == CONTENT


def test_a_file_where_the_folder_should_be_is_no_error(tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")

    with cache.turn(NAME) as kept:
        assert kept is None
        cache.put(NAME, CONTENT)
    assert not cache.writable
    assert "no entry can be written" in caplog.text


def test_when_there_is_too_much_what_was_not_used_for_longest_goes(tmp_path):
    cache = Cache(tmp_path, most_bytes=35_000)
    names = [entry_name("graphs", number) for number in range(4)]
    for age, name in zip((30, 20, 10), names, strict=False):
        cache.put(name, CONTENT)
        os.utime(entry(cache, name), (time.time() - age, time.time() - age))

    assert cache.get(names[0]) == CONTENT  # the oldest, and used just now
    cache.put(names[3], CONTENT)

    assert [cache.get(name) is not None for name in names] == [True, False, True, True]


def test_nothing_goes_but_entries_and_what_was_left_of_them(tmp_path):
    cache = Cache(tmp_path, most_bytes=1)
    others = [tmp_path / name for name in ("thesis.tex", f"{NAME}.entry.bak", "graphs-1.entry", f"x{NAME}.txt")]
    for path in others:
        path.write_text("mine")
    stray = tmp_path / f"{NAME}-{'0' * 32}.tmp"
    stray.write_text("half")

    cache.put(NAME, CONTENT)

    assert all(path.read_text() == "mine" for path in others)
    assert not stray.exists()
    assert cache.get(NAME) == CONTENT


def test_a_name_tells_every_part_of_the_key_apart():
    keys = [("a", "b"), ("ab",), ("a", b"b"), ("a", 1), ("a", 1.0), ("a", None), ("a", "1"), ("b", "a")]

    assert len({entry_name("graphs", *key) for key in keys}) == len(keys)


def test_the_digest_of_source_changes_with_every_file(tmp_path):
    files = [tmp_path / name for name in ("a.py", "b.py")]
    for file in files:
        file.write_text("1")
    seen = {digest_of_source(*files)}
    for file in files:
        file.write_text("2")
        seen.add(digest_of_source(*files))

    assert len(seen) == 3


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/scratch/me"}, "/scratch/me/graphcast-batch"),
        ({"HOME": "/home/me"}, "/home/me/.cache/graphcast-batch"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "relative"}, "/home/me/.cache/graphcast-batch"),
    ],
)
def test_the_users_own_folder_is_where_the_environment_says(monkeypatch, variables, expected):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert str(users_folder()) == expected


SHAPE = Architecture(mesh_size=2, latent_size=8, gnn_msg_steps=1)
GRID = Grid(np.arange(-90, 91, 12, dtype=np.float32), np.arange(0, 360, 12, dtype=np.float32))


def arrays(graphs):
    grid_nodes, mesh_nodes, *edges = graphs
    return [grid_nodes, mesh_nodes, *(array for part in edges for array in part)]


def assert_same(found, expected):
    for a, b in zip(arrays(found), arrays(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def counted(monkeypatch):
    """How often graphs are built."""
    calls = []

    def build(architecture, grid):
        calls.append(architecture)
        return build_graphs(architecture, grid)

    monkeypatch.setattr(graphs_module, "build_graphs", build)
    return calls


def test_graphs_from_the_cache_are_those_that_were_built(cache, counted):
    for _ in range(2):
        found = cached_graphs(SHAPE, GRID, cache)
        assert type(found) is graphs_module.Graphs
        assert_same(found, build_graphs(SHAPE, GRID))
    assert len(counted) == 1


def test_without_a_cache_graphs_are_built_every_time(counted):
    for _ in range(2):
        assert_same(cached_graphs(SHAPE, GRID, None), build_graphs(SHAPE, GRID))
    assert len(counted) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"mesh_size": 1},
        {"radius_query_fraction_edge_length": 0.61},
        {"mesh2grid_edge_normalization_factor": 0.5},
    ],
    ids=str,
)
def test_another_architecture_has_other_graphs(cache, counted, changes):
    other = SHAPE.model_copy(update=changes)
    cached_graphs(SHAPE, GRID, cache)

    assert_same(cached_graphs(other, GRID, cache), build_graphs(other, GRID))
    assert len(counted) == 2


def test_an_architecture_that_differs_in_its_layers_only_has_the_same_graphs(cache, counted):
    cached_graphs(SHAPE, GRID, cache)
    cached_graphs(SHAPE.model_copy(update={"latent_size": 16, "gnn_msg_steps": 3}), GRID, cache)

    assert len(counted) == 1


def test_a_grid_that_differs_in_its_last_bit_has_other_graphs(cache, counted):
    longitude = GRID.longitude.copy()
    longitude[1] = np.nextafter(longitude[1], np.float32(360))
    cached_graphs(SHAPE, GRID, cache)
    cached_graphs(SHAPE, Grid(GRID.latitude, longitude), cache)

    assert len(counted) == 2


def test_graphs_of_other_code_are_not_taken(cache, counted, monkeypatch):
    cached_graphs(SHAPE, GRID, cache)
    monkeypatch.setattr(graphs_module, "digest_of_source", lambda *files: "of an older version")
    cached_graphs(SHAPE, GRID, cache)

    assert len(counted) == 2


@pytest.mark.parametrize("content", [b"", b"no array", CONTENT, b"\x93NUMPY\x01\x00v\x00{"])
def test_graphs_are_built_again_where_an_entry_of_a_fitting_digest_holds_something_else(cache, counted, content):
    cached_graphs(SHAPE, GRID, cache)
    (entry,) = cache.folder.glob("*.entry")
    cache.put(entry.stem, content)
    expected = build_graphs(SHAPE, GRID)
    for found in (cached_graphs(SHAPE, GRID, cache), cached_graphs(SHAPE, GRID, cache)):
        np.testing.assert_array_equal(found[0], expected[0])
    assert cache.get(entry.stem) != content


def test_no_pickle_is_read_from_an_entry(cache, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    cached_graphs(SHAPE, GRID, cache)
    (kept,) = cache.folder.glob("*.entry")
    cache.put(kept.stem, pickle.dumps(Trap()))

    np.testing.assert_array_equal(cached_graphs(SHAPE, GRID, cache)[0], build_graphs(SHAPE, GRID)[0])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("written", "read"),
    [(None, None), ("off", "off"), (False, "off"), ("/scratch/me", Path("/scratch/me")), ("~", Path.home())],
)
def test_a_config_names_a_folder_or_none(small_config, written, read):
    config = load_config(small_config(cache=written))

    assert config.cache == read
    assert parse_config(yaml.safe_load(dump_config(config)), RunConfig, origin="its own copy") == config


@pytest.mark.parametrize("wrong", [True, 3, "s3://bucket/cache", ["a"]])
def test_a_config_names_nothing_else_as_its_cache(small_config, wrong):
    with pytest.raises(ConfigError, match="cache: give a folder or off, not "):
        load_config(small_config(cache=wrong))


def test_a_cache_that_cannot_be_written_is_told_before_a_run(small_config, tmp_path):
    (tmp_path / "file").touch()

    def told(cache):
        return [text for text in run_warnings(assemble(load_config(small_config(cache=cache)))) if "cache" in text]

    assert told("off") == told(None) == told(str(tmp_path / "new" / "folder")) == []
    (text,) = told(str(tmp_path / "file" / "folder"))
    assert "cannot be written, so that each worker builds graphs and compiles programs for itself" in text


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757, 0o707])
def test_a_cache_that_everybody_may_write_is_refused_and_each_remedy_helps(small_config, tmp_path, mode):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    fault = rf"the cache {folder} must be .* executed, but it may be written by everybody \(mode {mode:04o}\); .*chmod"
    with pytest.raises(ConfigError, match=fault):
        run_warnings(assemble(load_config(small_config(cache=str(folder)))))
    for cache in ("off", str(tmp_path / "other")):
        run_warnings(assemble(load_config(small_config(cache=cache))))
    folder.chmod(mode & ~0o022)
    assert Cache(folder).check().fault == ""


def test_a_cache_of_a_group_is_refused_unless_nobody_else_is_in_it(tmp_path, monkeypatch):
    tmp_path.chmod(0o2770)
    monkeypatch.setattr("grp.getgrgid", lambda number: grp.struct_group(("weather", "x", number, ["me", "you"])))
    with pytest.raises(ConfigError, match=r"may be written by the group weather \(mode 2770\)"):
        Cache(tmp_path).check()
    me = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr("grp.getgrgid", lambda number: grp.struct_group((me, "x", number, [])))
    Cache(tmp_path).check()


def test_a_cache_of_another_user_is_refused_and_one_of_root_is_not(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    assert ("belongs to" in Cache(tmp_path).fault) == (owner != 0)
    monkeypatch.setattr("os.geteuid", lambda: owner)
    assert Cache(tmp_path).fault == ""
    if owner == 0:
        os.chown(tmp_path, 65534, 65534)
        with pytest.raises(ConfigError, match="but it belongs to nobody; if you trust"):
            Cache(tmp_path).check()


def test_where_there_is_no_home_there_is_no_cache_and_that_is_told(small_config, monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.delenv("XDG_CACHE_HOME")

    assert users_folder() is None
    assert "no home folder" in run_warnings(assemble(load_config(small_config())))[-1]
