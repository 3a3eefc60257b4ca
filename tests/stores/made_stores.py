"""Stores to test with, filled with numbers that a retry repeats."""

import subprocess
import zlib
from contextlib import contextmanager

import numpy as np
import pytest

from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.grid import Grid
from graphcast_batch.members import Member
from graphcast_batch.plan import Case
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend

VARIABLES = (("2m_temperature", False), ("temperature", True), ("total_precipitation_6hr", False))
IDENTITY = {"checkpoint": "a1", "precision": "float32"}


def grid_of(rows=5, columns=8):
    longitude = np.arange(columns, dtype=np.float32) * np.float32(360 / columns)
    return Grid(np.linspace(-90, 90, rows, dtype=np.float32), longitude)


def case_at(index, steps, member=None):
    return Case(np.datetime64("2020-01-01T00", "h") + np.timedelta64(6 * index, "h"), steps, 6, member=member)


def members_of(count, seed=7):
    return tuple(Member(number, "weights", "ab" * 32, f"gaussian {number}", seed) for number in range(count))


def plan_of(indices, steps, *, grid=None, levels=(500, 850), on_levels=VARIABLES, members=0, **outputs):
    layout = Layout(grid or grid_of(), levels, on_levels, steps, 6, OutputsConfig(**outputs))
    cases = [case_at(index, steps, member) for index in indices for member in range(members) or [None]]
    return Plan(tuple(cases), layout, members=members_of(members))


def make(path, plan, *, identity=IDENTITY, provenance=None, config_text="steps: 1\n"):
    return create_or_extend(path, plan, identity=identity, provenance=provenance or {}, config_text=config_text)


def values_of(store, case):
    """Numbers that depend on the Case, the variable and the lead time only, so that a retry repeats them."""
    found = {}
    for number, (name, levelled) in enumerate(store.kept.on_levels):
        shape = store.kept.frame_shape(levelled)
        hours = int(case.init_time.astype(np.int64))
        frames = [
            np.random.default_rng([hours, number, step, 0 if case.member is None else case.member + 1])
            .normal(size=shape)
            .astype(np.float32)
            for step in range(case.steps)
        ]
        found[name] = np.stack(frames)
    return found


def write_all(attempt, store, case):
    values, leads = values_of(store, case), store.kept.leads(case.hours)
    for first in range(0, leads, store.block_steps):
        last = min(first + store.block_steps, leads)
        attempt.write(first, {name: array[first:last] for name, array in values.items()})


def commit(attempt, lease=None):
    return attempt.commit(lease=lease, seconds={"compute": 1.0}, device="cpu", worker="w", attempts=1, details={})


def fill(store, *cases):
    for case in cases:
        with store.attempt(case) as attempt:
            write_all(attempt, store, case)
            commit(attempt)


def data_files(path):
    """Content of every file but the ledger's and what waits to be swept, by its path in the store."""
    aside = (path / "ledger", path / ".staging")
    files = [file for file in path.rglob("*") if file.is_file() and not set(aside) & set(file.parents)]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def assert_whole_cases_are_all_there(store, cases):
    for case in cases:
        record = store.ledger.record(case.key, case.steps)
        if record:
            assert len(record.files) == len(store.variables) * store.blocks_of(case.steps)
            for file, (size, checksum) in record.files.items():
                content = (store.path / file).read_bytes()
                assert (len(content), f"{zlib.crc32(content):08x}") == (size, checksum)


def kill(child):
    child.kill()  # no error if it has ended, unlike os.kill
    child.join()


@contextmanager
def small_disk(folder):
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a small file system to fill")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
