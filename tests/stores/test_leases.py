import os
import time

import pytest

from graphcast_batch.errors import StoreError
from graphcast_batch.files.leases import FileLease, Owner


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.claim"


def test_a_heartbeat_prolongs_a_claim(path):
    lease = FileLease.take(path, 60)
    past = time.time() - 59
    os.utime(lease.path, (past, past))
    assert lease.renew()
    assert lease.path.stat().st_mtime > past + 50


def test_a_taker_that_judged_too_slowly_gives_a_fresh_claim_back(path, monkeypatch):
    stale = FileLease.take(path, 60)
    past = time.time() - 120
    os.utime(stale.path, (past, past))
    rename, faster = os.rename, []

    def rename_after_a_faster_taker(source, target):
        monkeypatch.setattr(os, "rename", rename)
        faster.append(FileLease.take(path, 60))
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_after_a_faster_taker)
    assert FileLease.take(path, 60) is None
    assert faster[0].held()


def test_an_unreadable_claim_lasts_for_the_lease_of_whoever_asks(path):
    path.write_bytes(b"{")
    assert FileLease.take(path, 60) is None
    past = time.time() - 120
    os.utime(path, (past, past))
    assert FileLease.take(path, 60).held()


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"scope": "another boot"}, {"started": ""}])
def test_nobody_is_believed_dead_who_cannot_be_seen(change):
    owner = Owner.here(60)
    assert not owner.gone
    unused = owner.model_copy(update={"pid": 2**22 + 1})
    assert unused.gone
    assert not unused.model_copy(update=change).gone


def test_a_process_number_used_again_is_not_its_former_owner():
    assert Owner.here(60).model_copy(update={"started": "1"}).gone


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match="gone"):
        FileLease.take(tmp_path / "gone" / "x.claim", 60)


def test_a_claim_waits_for_no_disk(path, monkeypatch):
    def refuse(handle):
        raise AssertionError("a claim was synced")

    monkeypatch.setattr(os, "fsync", refuse)
    lease = FileLease.take(path, 60)
    assert FileLease.take(path, 60) is None
    lease.release()
    assert not path.exists()


@pytest.mark.parametrize(
    ("before", "now", "gone"),
    [
        ("7.0", "7.1", True),
        ("7.", "7.2", True),
        ("7.1", "7.1", False),
        ("7.1", "7.0", False),  # a job that lives on beside its own successor, which it does not believe in
        ("7.0", "8.1", False),
        (".", ".", False),
    ],
)
def test_a_job_that_was_begun_anew_is_dead_as_it_was_before(path, monkeypatch, before, now, gone):
    def as_job(text):
        job, _, restarts = text.partition(".")
        for name, value in (("SLURM_JOB_ID", job), ("SLURM_RESTART_COUNT", restarts)):
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)

    as_job(before)
    elsewhere = {"host": "another", "scope": "another"}
    owner = Owner.here(60).model_copy(update=elsewhere)
    path.write_text(owner.model_dump_json())
    as_job(now)
    lease = FileLease.take(path, 60)
    assert (lease is not None) == gone
