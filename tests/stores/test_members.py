"""Stores of ensembles: an axis of members, on which each member of an initial time is a Case of its own."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.plan import case_key
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.flaws import FlawKind
from graphcast_batch.stores.store_kinds import STORES, open_store
from tests.stores.made_stores import case_at, data_files, fill, make, members_of, plan_of, values_of

STEPS = 3
KIND = STORES["zarr"]


def serially(function, argument_lists):
    return [function(*arguments) for arguments in argument_lists]


@pytest.fixture
def store(tmp_path):
    return make(tmp_path / "s", plan_of(range(2), STEPS, members=3))


def test_the_axis_of_members_lies_between_initial_and_lead_time_and_says_what_each_is(store):
    opened = xr.open_zarr(store.path)

    assert opened["temperature"].dims == ("time", "number", "prediction_timedelta", "level", "latitude", "longitude")
    assert opened["2m_temperature"].dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    assert opened["number"].values.tolist() == [0, 1, 2]
    assert set(opened.coords) > {"checkpoint", "weights_sha256", "perturbation", "seed"}
    assert opened["perturbation"].values.tolist() == ["gaussian 0", "gaussian 1", "gaussian 2"]
    assert opened["seed"].values.tolist() == [7, 7, 7]
    assert opened.sel(number=2)["weights_sha256"].values.item() == "ab" * 32
    assert store.members == open_store(store.path).members == members_of(3)


def test_a_store_without_an_ensemble_has_no_such_axis(tmp_path):
    store = make(tmp_path / "s", plan_of(range(2), STEPS))

    assert "number" not in xr.open_zarr(store.path).variables
    assert store.members == ()


def test_each_member_is_a_case_with_files_of_its_own(store):
    case, others = case_at(1, STEPS, 2), [case_at(1, STEPS, 0), case_at(0, STEPS, 2)]
    fill(store, case)

    assert store.place_of(case) == {"time": 1, "number": 2}
    states = store.ledger.states([case, *others])
    assert states == {case.key: CaseState.COMPLETE} | {other.key: CaseState.MISSING for other in others}
    found = store.forecasts()
    for name, values in values_of(store, case).items():
        np.testing.assert_array_equal(found[name].isel(time=1, number=2).values, values)
        assert np.isfinite(found[name].values).sum() == values.size
    assert all("/c.1.2." in file for file in store.ledger.record(case.key).files)


def test_a_store_of_forecasts_can_be_copied_to_netcdf(store, tmp_path):
    fill(store, case_at(0, STEPS, 1))
    store.forecasts().to_netcdf(tmp_path / "all.nc")

    with xr.open_dataset(tmp_path / "all.nc") as copied:
        assert copied["perturbation"].values.tolist() == ["gaussian 0", "gaussian 1", "gaussian 2"]
        np.testing.assert_array_equal(copied["temperature"].values, store.forecasts()["temperature"].values)


def test_more_members_extend_a_store_and_leave_what_is_there(store):
    fill(store, case_at(0, STEPS, 2))
    before = {name: content for name, content in data_files(store.path).items() if "/c.0.2." in name}

    longer = make(store.path, plan_of(range(3), STEPS + 2, members=5))
    fill(longer, case_at(2, STEPS + 2, 4))

    after = data_files(store.path)
    assert all(after[name] == content for name, content in before.items())
    assert longer.members == members_of(5)
    assert longer.forecasts().sizes["number"] == 5
    for case in (case_at(0, STEPS, 2), case_at(2, STEPS + 2, 4)):
        here = longer.forecasts().isel(longer.place_of(case) | {"prediction_timedelta": slice(0, case.steps)})
        for name, values in values_of(longer, case).items():
            np.testing.assert_array_equal(here[name].values, values)
    assert KIND.verify(store.path, deep=True, executor=serially).flaws == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": members_of(3, seed=8)}, "number 0: seed 7, this run has number 0: seed 8"),
        ({"members": (*members_of(2), replace(members_of(3)[2], weights_sha256="cd" * 32))}, "number 2: weights abab"),
        ({"members": members_of(2)}, "members: the store has 3 of each initial time, this run has 2"),
        ({"members": ()}, "this run has no ensemble"),
    ],
)
def test_a_run_with_other_members_is_refused_with_the_difference(store, change, message):
    count = len(change["members"])
    plan = replace(plan_of([0], STEPS, members=count), members=change["members"])
    before = data_files(store.path)

    with pytest.raises(StoreMismatchError, match=message):
        make(store.path, plan)
    assert data_files(store.path) == before


def test_an_ensemble_is_refused_in_a_store_without_one(tmp_path):
    store = make(tmp_path / "s", plan_of([0], STEPS))

    with pytest.raises(StoreMismatchError, match="the store has no ensemble, this run has 2 of each"):
        make(store.path, plan_of([0], STEPS, members=2))


def test_a_renamed_checkpoint_is_the_same_member(store):
    plan = plan_of([0], STEPS, members=3)
    renamed = replace(plan, members=tuple(replace(member, checkpoint="other") for member in plan.members))

    assert make(store.path, renamed).members == members_of(3)


def test_a_plan_refuses_a_case_of_a_member_that_it_does_not_have():
    plan = plan_of([0], STEPS, members=2)
    for member in (2, None):
        with pytest.raises(ValueError, match="must be of one of the 2 members"):
            replace(plan, cases=(case_at(0, STEPS, member),))
    with pytest.raises(ValueError, match="must be of one of the 0 members"):
        replace(plan_of([0], STEPS), cases=(case_at(0, STEPS, 0),))


def test_the_store_has_no_place_for_a_member_beyond_its_own(store):
    with pytest.raises(StoreError, match=r"2020-01-01T00-m003: .* 2 initial times with 3 members; extend it first"):
        store.attempt(case_at(0, STEPS, 3))


def test_a_damaged_member_is_found_and_forgotten_alone(store):
    cases = [case_at(1, STEPS, member) for member in range(3)]
    fill(store, *cases)
    damaged = store.path / "temperature" / "c.1.1.0.0.0.0"
    content = bytearray(damaged.read_bytes())
    content[10] ^= 1
    damaged.write_bytes(content)
    (store.path / "temperature" / "c.1.3.0.0.0.0").write_bytes(b"")

    flaws = KIND.verify(store.path, deep=True, executor=serially).flaws
    assert {(flaw.kind, flaw.key, flaw.path) for flaw in flaws} == {
        (FlawKind.CHECKSUM, case_key(cases[1].init_time, 1), "temperature/c.1.1.0.0.0.0"),
        (FlawKind.UNEXPECTED, "", "temperature/c.1.3.0.0.0.0"),
    }
    repaired = KIND.repair(store.path, flaws)

    assert repaired.forgotten == (cases[1].key,)
    assert store.ledger.complete(cases) == [cases[0], cases[2]]
    fill(store, cases[1])
    assert KIND.verify(store.path, deep=True, executor=serially).flaws == ()


def test_members_that_changed_places_on_their_axis_are_found(store):
    fill(store, case_at(0, STEPS, 0))
    record = store.ledger.record(case_at(0, STEPS, 0).key)
    path = next((store.path / "ledger").rglob("2020-01-01T00-m000.json"))
    path.write_text(path.read_text().replace("/c.0.0.", "/c.0.1."))
    assert record.files

    flaws = KIND.verify(store.path, deep=False, executor=serially).flaws
    (flaw,) = (flaw for flaw in flaws if flaw.kind is FlawKind.COORDINATES)
    assert (flaw.path, flaw.expected) == ("time and number", "be 2020-01-01T00-m000 at index 0, 1, where its files are")


def test_a_store_whose_members_are_damaged_is_not_opened(store):
    (store.path / "perturbation" / "c.0").unlink()

    with pytest.raises(StoreError, match="perturbation of all forecasts, but cannot be read"):
        open_store(store.path)
