import pytest

from graphcast_batch.errors import StoreError
from graphcast_batch.report.summary import MOST_KEYS, facts, listed, open_store, standing, versions
from graphcast_batch.stores.case_records import CaseState
from tests.evaluation.made import cases
from tests.report.made import fail, run


def test_a_store_that_jobs_or_a_draft_or_an_empty_folder_stand_for_is_awaited(tmp_path):
    (tmp_path / "submitted" / "slurm").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".drafted.0f.partial").mkdir()

    assert [open_store(tmp_path / name) for name in ("submitted", "empty", "drafted")] == [None] * 3


def test_what_was_never_a_store_is_refused(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()

    for name in ("letters", "nothing"):
        with pytest.raises(StoreError, match=f"there is no store at {tmp_path / name}"):
            open_store(tmp_path / name)


def test_every_case_is_in_one_state_and_failures_are_told_by_their_end(tmp_path):
    store = run(tmp_path / "s", complete=1)
    fail(store, cases(4)[1], "x" * 30_000 + "the end")

    found = standing(open_store(store.path))

    assert found.keys == {
        CaseState.COMPLETE: ("2020-01-01T00",),
        CaseState.RUNNING: (),
        CaseState.FAILED: ("2020-01-01T12",),
        CaseState.MISSING: ("2020-01-02T00", "2020-01-02T12"),
    }
    assert (found.total, found.is_over) == (4, False)
    (failure,) = found.failures
    assert failure.message.endswith("the end")
    assert len(failure.message) == len(failure.traceback) == 20_000


def test_a_store_says_what_it_holds_and_what_made_it(tmp_path):
    provenance = {"source": "a model", "weights_sha256": "ab12", "versions": {"zarr": "3", "jax": "0.7"}}
    opened = open_store(run(tmp_path / "s", complete=0, provenance=provenance).path)

    told = dict(facts(opened))

    assert told["Initial times"] == "2020-01-01 00 UTC to 2020-01-02 12 UTC (4)"
    assert (told["Model"], told["Weights"], told["Grid"]) == ("a model", "ab12", "19 × 36 points")
    assert "Precision" not in told
    assert versions(opened) == [("jax", "0.7"), ("zarr", "3")]


def test_of_very_many_cases_some_are_named_and_the_others_counted():
    assert listed(["a", "b"]) == "a b"
    assert listed(["k"] * (MOST_KEYS + 7)).endswith("k and 7 more")
