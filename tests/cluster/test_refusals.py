import errno

import pytest

from graphcast_batch.cluster import store_refusals
from graphcast_batch.cluster.store_refusals import RateLimitedNotes, kind_of, patiently
from graphcast_batch.errors import StoreError, StoreUnwritableError


def refused(number, kind=StoreError):
    error = kind(f"the claim failed with {number}")
    error.__cause__ = OSError(number, "refused")
    return error


def test_of_a_storm_one_line_of_each_kind_is_printed_in_a_minute_with_their_number(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr(store_refusals.time, "monotonic", lambda: now[0])
    seldom = RateLimitedNotes(lambda *line: told.append(line))
    for second in range(100):
        now[0] = float(second)
        for number in (errno.EIO, errno.ESTALE) if second < 70 else ():
            seldom.note("store refused", kind_of(refused(number)), f"{number} in second {second}")
    seldom.close()
    seldom.close()
    eio, stale = errno.EIO, errno.ESTALE
    counted = "(60 times since this was last printed)"
    assert told == [
        ("store refused", f"{eio} in second 0"),
        ("store refused", f"{stale} in second 0"),
        ("store refused", f"{eio} in second 60 {counted}"),
        ("store refused", f"{stale} in second 60 {counted}"),
        ("store refused", f"{eio} in second 69 (9 times since this was last printed)"),
        ("store refused", f"{stale} in second 69 (9 times since this was last printed)"),
    ]


def test_what_is_asked_of_a_store_is_asked_again_for_a_minute_where_that_may_help(monkeypatch):
    monkeypatch.setattr(store_refusals, "REFUSAL_SECONDS", 0.0)
    answers = [refused(errno.ESTALE), refused(errno.EIO), "found"]

    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(ask) == "found"
    for error in (StoreError("the record is damaged"), refused(errno.ENOSPC, StoreUnwritableError)):
        answers[:] = [error, "found"]
        with pytest.raises(StoreError, match=str(error)):
            patiently(ask)
    answers[:] = [refused(errno.ESTALE), "found"]
    monkeypatch.setattr(store_refusals, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(StoreError, match="the claim failed"):
        patiently(ask)
