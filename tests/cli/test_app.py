"""The command as a person meets it: help, options of the whole, and how errors are told."""

import os
import re
import subprocess
import sys

import pytest

import graphcast_batch.stores.zarr.store
from graphcast_batch.cli import main
from graphcast_batch.errors import StoreError

WORDS = [sys.executable, "-m", "graphcast_batch"]


@pytest.fixture
def told(capsys):
    """Runs the command in this process; gives its exit code and what it printed."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """Has the opening of a store fail, and keeps what is left of a mistake in the folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def fail(error):
        def opened(path):
            raise error

        monkeypatch.setattr(graphcast_batch.stores.zarr.store.ZarrStore, "open", opened)

    return fail


def test_the_help_begins_with_what_a_newcomer_needs(told, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    code, out, _ = told("--help")

    assert code == 0
    panels = re.findall(r"─ ([A-Z][\w ]+) ─", out)
    assert panels == ["Options", "Forecasts", "Scores and pictures", "Cluster", "Data and weights", "Measure"]
    assert re.findall(r"^│ ([a-z][\w-]+)", out, re.MULTILINE)[:4] == ["demo", "init", "plan", "run"]


def test_every_command_has_a_place_in_the_help_and_an_example_in_its_own():
    from typer.main import get_command

    from graphcast_batch.cli.application import PANELS, app

    for name, command in get_command(app).commands.items():
        assert command.rich_help_panel in PANELS, name
        assert f"graphcast-batch {name}" in command.epilog.replace("srun --ntasks-per-node=1 ", ""), name


def test_the_version_is_that_of_the_package(told):
    from importlib.metadata import version

    assert told("--version") == (0, f"graphcast-batch {version('graphcast-batch')}\n", "")


def test_an_error_of_ours_is_told_without_a_traceback(told, failing):
    failing(StoreError("the store is not one"))

    assert told("retry-failed", "here") == (1, "", "StoreError: the store is not one\n")


def test_an_error_of_the_system_is_told_like_ours(told, failing):
    failing(PermissionError(13, "Permission denied", "/root/x"))

    assert told("retry-failed", "x") == (1, "", "PermissionError: [Errno 13] Permission denied: '/root/x'\n")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(told, failing, place):
    failing(StoreError("the store is not one"))
    words = ["retry-failed", "here"]
    words.insert(place, "--debug")

    code, _, err = told(*words)

    assert code == 1
    assert re.search(r"Traceback.*in opened\n.*StoreError: the store is not one", err, re.DOTALL)


def test_the_environment_asks_for_tracebacks_too(told, failing, monkeypatch):
    monkeypatch.setenv("GRAPHCAST_BATCH_DEBUG", "1")
    failing(StoreError("the store is not one"))

    assert "Traceback" in told("retry-failed", "here")[2]


def test_options_behind_two_dashes_are_for_another_program(told, failing):
    failing(StoreError("the store is not one"))

    assert told("retry-failed", "here", "--", "--debug") == (1, "", "StoreError: the store is not one\n")


def test_a_long_error_fits_on_a_screen(told, failing):
    failing(StoreError("\n".join(f"fault {number}" for number in range(100))))

    lines = told("retry-failed", "here")[2].splitlines()

    assert len(lines) == 25
    assert lines[-1] == "... and 76 more lines, with --debug"
    assert "fault 99" in told("--debug", "retry-failed", "here")[2]


def test_a_mistake_of_ours_is_told_in_a_few_lines_and_its_traceback_kept(told, failing, tmp_path):
    failing(KeyError("level"))

    code, out, err = told("retry-failed", "here")

    assert (code, out) == (70, "")
    assert re.match(
        r"KeyError: 'level'\nThis is an internal error of graphcast-batch, at test_app.py:\d+. The trace", err
    )
    (kept,) = (tmp_path / "state" / "graphcast-batch").iterdir()
    assert str(kept) in err
    assert "Traceback" not in err
    assert "in opened\n" in kept.read_text()


def test_a_traceback_that_cannot_be_kept_is_to_be_had_by_another_run(told, failing, tmp_path):
    failing(KeyError("level"))
    (tmp_path / "state").touch()

    code, _, err = told("retry-failed", "here")

    assert code == 70
    assert "with --debug to see the traceback" in err


def test_an_interruption_is_not_talked_about(told, failing):
    failing(KeyboardInterrupt())

    assert told("retry-failed", "here") == (130, "", "")


def test_quiet_and_verbose_exclude_each_other(told):
    code, _, err = told("status", "x", "--quiet", "-v")

    assert code == 2
    assert "contradict each other" in err


@pytest.mark.parametrize("words", [["--help"], ["schema"]])
def test_a_reader_that_goes_away_is_not_complained_of(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*WORDS, *words], stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)

    assert done.stderr == b""


def completed(line, **more):
    environment = os.environ | {"_GRAPHCAST_BATCH_COMPLETE": "complete_bash", "COMP_WORDS": line} | more
    return subprocess.run(WORDS, capture_output=True, text=True, env=environment, check=False).stdout.split()


def test_a_shell_completes_commands_and_options():
    assert completed("graphcast-batch ret", COMP_CWORD="1") == ["retry-failed"]
    assert completed("graphcast-batch run --tr", COMP_CWORD="2") == ["--trace"]


def test_the_script_for_completion_is_shown():
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # there may be no shell above
    words = [*WORDS, "--show-completion", "bash"]

    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)

    assert "_GRAPHCAST_BATCH_COMPLETE=complete_bash" in done.stdout
