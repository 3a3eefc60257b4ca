"""The metadata of a store that someone sent: what it names and declares is looked at before it is followed."""

import json

import pytest

from graphcast_batch.errors import StoreError
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.stores.zarr.ledger import FileLedger
from tests.stores.made_stores import case_at, commit, make, plan_of, write_all
from tests.stores.test_ledger import record_of

DEEP = "[" * 100_000


def changed(folder, change):
    """A sound store of two Cases, of which ``change`` gets the root's metadata and those of the arrays."""
    make(folder / "store", plan_of([0, 1], 4))
    path = folder / "store" / "zarr.json"
    root = json.loads(path.read_text())
    arrays = root["consolidated_metadata"]["metadata"]
    path.write_text(change(root, arrays) or json.dumps(root))
    return folder / "store"


def put(name, *keys, value):
    def change(root, arrays):
        place = {"root": root, "arrays": arrays}[name]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def dropped(*names):
    def change(root, arrays):
        for name in names:
            (root if name in root else arrays).pop(name)

    return change


def renamed(new):
    def change(root, arrays):
        arrays[new] = arrays.pop("2m_temperature")

    return change


def work_in(path):
    store = open_store(path)
    assert store.identity
    with store.attempt(case_at(0, 4)) as attempt:
        write_all(attempt, store, case_at(0, 4))
        commit(attempt)


def test_a_store_as_it_was_made_is_worked_in(tmp_path):
    work_in(changed(tmp_path, lambda root, arrays: None))


@pytest.mark.parametrize("name", ["../../escaped", "a/../../../escaped", "/tmp/escaped", "ledger/escaped"])
def test_a_variable_whose_name_leads_out_of_its_folder_is_not_followed(name, tmp_path, only_inside):
    path = changed(tmp_path, renamed(name))
    with only_inside(path), pytest.raises(StoreError, match="store"):
        work_in(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda root, arrays: DEEP,
        put("arrays", "time", "shape", value=[10**12]),
        put("arrays", "latitude", "shape", value=[10**12]),
        put("arrays", "temperature", "shape", value="x"),
        put("arrays", "temperature", "dimension_names", value=None),
        put("arrays", "2m_temperature", "chunk_grid", "configuration", "chunk_shape", value=[2, 4, 5, 8]),
        put("arrays", "2m_temperature", "chunk_grid", "configuration", "chunk_shape", value=[]),
        put("root", "consolidated_metadata", "metadata", value=[1]),
        put("root", "attributes", "graphcast_batch_identity", value="{"),
        put("root", "attributes", "graphcast_batch_identity", value=DEEP),
        put("root", "attributes", "graphcast_batch_identity", value=5),
        dropped("consolidated_metadata"),
        dropped("time"),
        dropped("2m_temperature", "temperature", "total_precipitation_6hr"),
    ],
)
def test_metadata_that_this_program_never_wrote_are_refused(change, tmp_path, only_inside):
    path = changed(tmp_path, change)
    with only_inside(path), pytest.raises(StoreError, match="must be a store that this program made"):
        work_in(path)


@pytest.mark.parametrize(
    "file", ["../../x", "/etc/passwd", "a/../../c.0", "ledger/../../c.0.0", "c.0", "a/c.0/../../x"]
)
def test_a_record_of_files_outside_its_store_is_damaged(file, tmp_path):
    case = case_at(0, 4)
    folder = tmp_path / "steps-4"
    folder.mkdir()
    good = record_of(case).model_dump(mode="json")
    (folder / f"{case.key}.json").write_text(json.dumps(good))
    assert FileLedger(tmp_path).record(case.key) == CaseRecord.model_validate_json(json.dumps(good))

    (folder / f"{case.key}.json").write_text(json.dumps(good | {"files": {file: [1, "00000000"]}}))
    with pytest.raises(StoreError, match=r"must be a case record .* but is damaged"):
        FileLedger(tmp_path).record(case.key)


@pytest.mark.parametrize(
    "key", ["../../x", "2020-01-01T00/../x", "", "/etc/passwd", "٢٠٢٠-01-01T00", "2020-01-01T00\n"]
)
def test_a_key_that_is_none_leads_nowhere(key, tmp_path):
    assert FileLedger(tmp_path).free_failed([key]) == []
    (tmp_path / "steps-4").mkdir()
    for act in (FileLedger(tmp_path).failure, FileLedger(tmp_path).record):
        with pytest.raises(StoreError, match="the key of a Case must look like 2020-01-01T06"):
            act(key)


@pytest.mark.parametrize("name", ["steps-", "steps-0", "steps-007", "steps-٣", "steps-4x", "x.failed.json", ".claim"])
def test_files_that_are_none_of_a_ledger_are_passed_over(name, tmp_path):
    (tmp_path / name).touch()
    ledger = FileLedger(tmp_path)

    assert set(ledger.states([case_at(0, 4)]).values()) == {"missing"}
    assert ledger.record(case_at(0, 4).key) is None
    assert ledger.free_failed() == []
