"""No archive makes a command end with an internal error, whatever it lacks."""

import pytest

from tests.fuzz.archives import Prepared, ended, rounds, wrong
from tests.layouts import KINDS, weather

FOUND = (2010, 2092, 2152, 2165, 2174)
"""Of longer searches, mended since."""
CHEAP = ("cds, folder of months", "graphcast names")


def faults_of(prepared, seeds):
    return [
        f"seed {seed}, {name}, {done}: {' '.join(ending.arguments)}: {fault}\n{ending.printed}"
        for seed, name, done, ending in rounds(prepared, seeds)
        if (fault := wrong(ending))
    ]


@pytest.mark.filterwarnings("default")
def test_every_command_ends_plainly_whatever_an_archive_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert faults_of(Prepared.make(tmp_path, CHEAP), range(2)) == []


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_every_command_ends_plainly_whatever_an_archive_of_any_layout_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert faults_of(Prepared.make(tmp_path), [*range(100, 160), *FOUND]) == []


def test_constant_fields_alone_are_refused_by_every_command(tmp_path):
    weather()[KINDS["static"]].to_netcdf(tmp_path / "statics.nc")
    for command in (
        ["init", tmp_path / "first.yaml", "--inputs", tmp_path / "statics.nc"],
        ["stats", tmp_path / "statics.nc", "--to", tmp_path / "stats"],
        ["climatology", tmp_path / "statics.nc", "--to", tmp_path / "climatology.zarr"],
    ):
        ending = ended(*command)
        assert ending.code == 1, ending.printed
        assert "must hold a variable that changes with time, but has only geopotential_at_surface" in ending.printed
