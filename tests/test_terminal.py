"""What a run shows, on a terminal, in a log, and to those who want to know less or more."""

import io
import os
import pty
import re
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from rich.console import Console

from graphcast_batch.app.progress import JournaledRun
from graphcast_batch.errors import ForecastError
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.stores.journal import read_journal
from graphcast_batch.terminal import RunWatcher, run_progress

STEPS = 40


@dataclass(frozen=True)
class Place:
    key: str
    name: str
    steps: int


def record(hour):
    return CaseRecord(
        key=f"2020-01-01T{hour:02}",
        init_time=f"2020-01-01T{hour:02}:00:00Z",
        steps=STEPS,
        bytes=1,
        files={},
        seconds={"read": 1.25, "compute": 10.0},
        host="host",
        device="cpu",
        worker="host:7",
        attempts=1,
        finished_at="2020-01-01T00:00:00+00:00",
        details={},
    )


FAILURE = CaseFailure(
    key="2020-01-01T12",
    error="ForecastError",
    message="too hot",
    traceback="",
    attempts=2,
    host="host",
    failed_at="2020-01-01T00:00:00+00:00",
)


class Screen:
    """A real terminal, and all that is written on it."""

    def __enter__(self):
        self._ours, theirs = pty.openpty()
        self._file = os.fdopen(theirs, "w")
        self._pieces = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.console = Console(file=self._file, width=100, height=30)
        return self

    def _read(self):
        try:
            while piece := os.read(self._ours, 4096):
                self._pieces.append(piece)
        except OSError:  # how Linux tells that the other side is closed
            pass

    def __exit__(self, *_):
        self._file.close()
        self._reader.join(60)
        os.close(self._ours)

    @property
    def text(self):
        """All of it once closed, without colors."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)

    @property
    def raw(self):
        return b"".join(self._pieces).decode()


def watched(console, store, level="normal"):
    """A run of four Cases, two of which were whole before; one becomes whole, one fails."""
    store.mkdir(exist_ok=True)
    with RunWatcher(console, store, STEPS, 6, level) as shown:
        watcher = JournaledRun(store, shown)
        watcher.started(2, "cpu", 4, 2)
        watcher.under_way("host:7", [Place("2020-01-01T06", "compute", 16), Place("2020-01-01T18", "wait", 0)])
        watcher.under_way("host:7", [Place("2020-01-01T06", "compute", 24), Place("2020-01-01T18", "read", 0)])
        watcher.retried(Case(np.datetime64("2020-01-01T12"), STEPS, 6), ForecastError("too hot"))
        watcher.failed(FAILURE)
        watcher.under_way("host:8", [Place("2020-01-01T18", "compute", 10)])
        watcher.finished(record(6))


def in_a_log(store, level="normal"):
    file = io.StringIO()
    watched(Console(file=file, width=140), store, level)
    return file.getvalue().splitlines()


def on_a_terminal(store, level="normal"):
    with Screen() as screen:
        watched(screen.console, store, level)
    return screen


def test_a_log_has_a_line_for_each_case(tmp_path):
    assert in_a_log(tmp_path / "s") == [
        "4 Cases, 2 to make; 2 workers on cpu are starting",
        "2020-01-01T12 failed and will be tried again: too hot",
        "2020-01-01T12 failed: ForecastError: too hot",
        f"tracebacks: {tmp_path / 's' / 'ledger'}; earlier events: {tmp_path / 's' / 'log'}",
        "2020-01-01T06 complete (4/4; read 1.2 s, compute 10.0 s; host:7)",
    ]


def test_whoever_is_quiet_hears_of_problems_only(tmp_path):
    said = in_a_log(tmp_path / "s", "quiet")

    assert [line.partition(":")[0] for line in said] == [
        "2020-01-01T12 failed and will be tried again",
        "2020-01-01T12 failed",
        "tracebacks",
    ]
    assert "forecasts" not in on_a_terminal(tmp_path / "s", "quiet").text


@pytest.mark.parametrize("shown", [in_a_log, lambda *given: on_a_terminal(*given).text.splitlines()])
def test_whoever_wants_to_know_hears_of_each_stage_once(tmp_path, shown):
    said = [line.strip() for line in shown(tmp_path / "s", "verbose")]

    assert said.count("2020-01-01T06 computing from 96 h on (host:7)") == 1
    assert not [line for line in said if line.startswith("2020-01-01T06 computing from 144 h")]
    assert said.count("2020-01-01T18 reading (host:7)") == 1
    assert "2020-01-01T06 complete (4/4; read 1.2 s, compute 10.0 s; host:7)" in said
    assert "graphcast_batch.errors.ForecastError: too hot" in said


def test_a_terminal_shows_how_far_all_and_each_case_is(tmp_path):
    text = on_a_terminal(tmp_path / "s").text

    assert "3 of 4 Cases" in text
    assert "1 failed" in text
    assert re.search(r"2020-01-01T18 +computing +[━╸╺]+ +60 of 240 h +host:8", text)
    assert "complete (" not in text
    last = text.rpartition("forecasts")[2]
    assert "2020-01-01T18" in last
    assert "2020-01-01T06" not in last


def test_a_failure_stays_on_the_terminal_in_red(tmp_path):
    raw = on_a_terminal(tmp_path / "s").raw

    assert "\x1b[31m2020-01-01T12 failed: ForecastError: too hot\x1b[0m" in raw


def test_no_color_leaves_the_bars_and_takes_the_colors(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    screen = on_a_terminal(tmp_path / "s")

    assert "3 of 4 Cases" in screen.text
    assert not re.findall(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", screen.raw)


def test_a_terminal_that_cannot_move_its_cursor_gets_the_lines_of_a_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")

    text = on_a_terminal(tmp_path / "s").text

    assert "2020-01-01T06 complete (4/4" in text
    assert "of 4 Cases" not in text


def test_of_many_cases_under_way_those_that_are_furthest_are_shown(tmp_path):
    file = io.StringIO()
    with RunWatcher(Console(file=file, force_terminal=True, width=100, height=40), tmp_path, STEPS, 6) as watcher:
        for number in range(20):
            watcher.under_way(f"host:{number}", [Place(f"2020-01-{number + 1:02}T00", "compute", number)])
        watcher.started(20, "cpu", 20, 0)

    last = file.getvalue().rpartition("forecasts")[2]

    assert re.findall(r"2020-01-(\d\d)T00", last) == [f"{number:02}" for number in range(20, 8, -1)]
    assert "and 8 more in progress" in last


def test_a_worker_that_tells_nothing_more_is_shown_no_longer(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(run_progress, "monotonic", lambda: now[0])
    file = io.StringIO()
    with RunWatcher(Console(file=file, force_terminal=True, width=100), tmp_path, STEPS, 6) as watcher:
        watcher.under_way("host:1", [Place("2020-01-01T00", "compute", 4)])
        now[0] += 31
        watcher.under_way("host:2", [Place("2020-01-01T06", "compute", 4)])
        watcher.started(2, "cpu", 2, 0)

    assert "2020-01-01T06" in file.getvalue()
    assert "2020-01-01T00" not in file.getvalue()


def test_the_journal_is_kept_whatever_is_shown(tmp_path):
    in_a_log(tmp_path / "s", "quiet")

    events = [line.event for line in read_journal(tmp_path / "s")]

    assert events == ["started", "retried", "failed", "stage", "stage", "finished"]


def test_a_journal_that_cannot_be_written_is_told_among_the_rest(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "log").touch()

    said = in_a_log(tmp_path / "s")

    assert sum("journal" in line and "cannot be written" in line for line in said) == 1
    assert said[-1].startswith("2020-01-01T06 complete")
