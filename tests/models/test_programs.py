import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphcast_batch import models
from graphcast_batch.config.loading import load_config
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.models import graphs, programs
from graphcast_batch.models.disk_cache import Cache
from graphcast_batch.models.programs import CompiledOnce, compiled_once
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.setup.worker_setup import worker_context

MISS, HIT = "/jax/compilation_cache/cache_misses", "/jax/compilation_cache/cache_hits"

PROCESS = """
import sys
from collections import Counter
from pathlib import Path
import jax
import numpy as np
from graphcast_batch.models.disk_cache import Cache
from graphcast_batch.models.programs import compiled_once

seen = Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event.rpartition("/")[2]]))
values = jax.device_put(np.arange(8))
print("ready", flush=True)
sys.stdin.readline()
with compiled_once(Cache(Path(sys.argv[1])), "test"):
    total = jax.jit(lambda x: (x * x).sum())(values)
print(int(total), seen["cache_misses"], seen["cache_hits"])
"""


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def seen():
    """What JAX tells of its cache."""
    events = Counter()

    def listen(event, **_):
        events[event] += 1

    jax.monitoring.register_event_listener(listen)
    yield events
    jax.monitoring.unregister_event_listener(listen)


class Powers:
    """Forecasts that need a program: each frame is the one before times the input."""

    device = "abacus"

    def __init__(self):
        self._step = jax.jit(lambda state, factor: state * factor)

    def forecast(self, inputs, forcings, steps):
        state = jnp.asarray(forcings)
        for _ in range(steps):
            state = self._step(state, inputs)
            yield {"power": state}

    def forecast_many(self, starts, steps):
        yield from zip(*(self.forecast(*start, steps) for start in starts), strict=True)


def squares(values):
    """A new program, as in a new process, for JAX knows a program by its function."""
    jax.clear_caches()
    return jax.jit(lambda x: x * x + 0.25)(values)


VALUES = np.arange(6, dtype=np.float32)


def use(cache, *key):
    with compiled_once(cache, *key):
        np.testing.assert_array_equal(squares(VALUES), VALUES**2 + 0.25)


def test_what_was_compiled_once_is_not_compiled_again(cache, seen):
    use(cache, "test")
    assert seen[MISS] > 0
    assert not seen[HIT]
    seen.clear()

    use(cache, "test")

    assert seen[HIT] > 0
    assert not seen[MISS]


def test_of_several_processes_that_start_at_once_one_compiles(tmp_path):
    words = [sys.executable, "-c", PROCESS, str(tmp_path / "cache")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pool = [subprocess.Popen(words, **pipes) for _ in range(3)]
    for process in pool:
        assert process.stdout.readline() == "ready\n"
    for process in pool:
        process.stdin.write("\n")
        process.stdin.flush()
    found = [tuple(map(int, process.communicate(timeout=60)[0].split())) for process in pool]

    assert [total for total, _, _ in found] == [sum(n * n for n in range(8))] * 3
    assert sorted(misses > 0 for _, misses, _ in found) == [False, False, True]
    assert sorted(hits > 0 for _, _, hits in found) == [False, True, True]


@pytest.mark.parametrize("part", ["_instructions", "digest_of_source"])
def test_programs_for_another_processor_or_of_other_code_are_not_taken(cache, seen, monkeypatch, part):
    use(cache, "test")
    monkeypatch.setattr(programs, part, lambda *_: "another")
    seen.clear()

    use(cache, "test")

    assert not seen[HIT]
    assert seen[MISS] > 0


def test_the_digest_of_the_code_covers_every_module_of_every_model(cache, monkeypatch):
    digested = []
    monkeypatch.setattr(programs, "digest_of_source", lambda *paths: digested.extend(paths) or "digest")
    use(cache, "test")

    assert set(digested) == set(Path(models.__path__[0]).rglob("*.py"))
    names = {path.relative_to(models.__path__[0]).as_posix() for path in digested}
    assert names >= {"base.py", "programs.py", "graphcast/network.py", "deepmind/deepmind_forecaster.py"}


def test_a_damaged_entry_is_compiled_anew_and_mended(cache, seen):
    use(cache, "test")
    (entry,) = cache.folder.glob("*.entry")
    entry.write_bytes(entry.read_bytes()[:-1])
    seen.clear()

    use(cache, "test")
    assert seen[MISS] > 0
    seen.clear()
    use(cache, "test")
    assert not seen[MISS]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(40)])
def test_an_entry_of_something_else_with_a_digest_that_fits_is_compiled_again(cache, seen, content):
    use(cache, "test")
    (entry,) = cache.folder.glob("*.entry")
    cache.put(entry.stem, content)
    seen.clear()

    use(cache, "test")
    assert seen[MISS] > 0
    seen.clear()
    use(cache, "test")
    assert not seen[MISS]


def test_a_program_that_an_entry_lacks_is_added_to_it(cache, seen):
    use(cache, "test")
    with compiled_once(cache, "test"):
        jax.clear_caches()
        jax.jit(lambda x: x - 3)(VALUES)
    seen.clear()

    with compiled_once(cache, "test"):
        squares(VALUES)
        jax.jit(lambda x: x - 3)(VALUES)

    assert not seen[MISS]


def test_what_fails_keeps_nothing_and_holds_up_nobody(cache, seen):
    with pytest.raises(ZeroDivisionError), compiled_once(cache, "test"):
        raise ZeroDivisionError

    use(cache, "test")
    assert seen[MISS] > 0


def test_without_a_cache_all_is_compiled_and_nothing_kept(seen):
    for _ in range(2):
        use(None, "test")

    assert not seen[HIT]


def test_jax_is_left_as_it_was(cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "users"))
    try:
        use(cache, "test")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "users")
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        programs.compilation_cache.reset_cache()


def test_nothing_is_left_in_the_folder_for_temporary_files(cache, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    use(cache, "test")

    assert not list((tmp_path / "temporary").iterdir())


def test_where_no_temporary_folder_can_be_made_all_is_compiled(cache, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    use(cache, "test")

    assert "no folder can be made" in caplog.text
    assert not list(cache.folder.glob("*.entry"))


def test_programs_that_did_not_fit_on_the_disk_are_not_kept(cache, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "full"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system to fill; try `unshare -Urm pytest`")
    try:
        (folder / "filler").write_bytes(bytes(8192))
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        with pytest.warns(UserWarning, match="Error writing persistent compilation cache entry"):
            use(cache, "test")
    finally:
        subprocess.run(["umount", folder], check=True)

    assert "compiled programs cannot be written" in caplog.text
    assert not list(cache.folder.glob("*.entry"))


def test_forecasts_are_the_same_and_the_next_worker_compiles_nothing(cache, seen):
    for worker in range(2):
        jax.clear_caches()
        seen.clear()
        forecasts = CompiledOnce(Powers(), cache, "powers")
        for _ in range(2):
            frames = list(forecasts.forecast(np.float32(2), np.ones(3, np.float32), 3))
            np.testing.assert_array_equal([frame["power"][0] for frame in frames], [2, 4, 8])
        assert forecasts.device == "abacus"
        assert bool(seen[MISS]) == (worker == 0)


def test_forecasts_of_several_starts_are_the_same_too(cache, seen):
    starts = [(np.float32(base), np.ones(3, np.float32)) for base in (2, 3)]
    for worker in range(2):
        jax.clear_caches()
        seen.clear()
        frames = list(CompiledOnce(Powers(), cache, "powers").forecast_many(starts, 2))
        assert [[int(one["power"][0]) for one in each] for each in frames] == [[2, 3], [4, 9]]
        assert bool(seen[MISS]) == (worker == 0)


def test_only_the_first_forecast_of_a_length_looks_into_the_cache(cache):
    forecasts = CompiledOnce(Powers(), cache, "powers")
    there = []
    for steps in (2, 2, 3):
        list(forecasts.forecast(np.float32(2), np.ones(3, np.float32), steps))
        there.append(cache.folder.exists())
        shutil.rmtree(cache.folder, ignore_errors=True)

    assert there == [True, False, True]


def test_a_program_that_was_compiled_in_the_window_is_not_compiled_after_it(cache):
    forecasts = CompiledOnce(Powers(), cache, "powers")
    arguments = (np.float32(2), np.ones(3, np.float32), 2)
    list(forecasts.forecast(*arguments))
    compiled = []

    def listen(event, _seconds, **_):
        compiled.extend([event] if "backend_compile" in event else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        list(forecasts.forecast(*arguments))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_a_second_worker_builds_no_graphs_and_compiles_nothing(small_config, cache, seen, monkeypatch):
    run = assemble(load_config(small_config(cache=str(cache.folder))))
    lay_out(run, "float32", run_serially)
    frames = []
    for worker in ("first", "second"):
        jax.clear_caches()
        seen.clear()
        context = worker_context(run.config, run.source, memory_uses(run, accelerated=False)[0], worker)
        case = run.plan.cases[0]
        inputs = run.source.read(case, context.task)
        frames += list(context.model.forecast(inputs.frames, inputs.forcings, case.steps))
        monkeypatch.delattr(graphs, "build_graphs", raising=False)

    assert seen[HIT] > 0
    assert not seen[MISS]
    first, second = frames[: len(frames) // 2], frames[len(frames) // 2 :]
    for once, again in zip(first, second, strict=True):
        for name, values in once.items():
            np.testing.assert_array_equal(values, again[name])
