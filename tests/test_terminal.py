"""What a run shows, on a terminal, in a log, and to those who want to know less or more."""

import io
import json
import os
import pty
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from rich.console import Console

from graphcast_batch.app.progress import JournaledRun
from graphcast_batch.errors import ForecastError
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.stores.journal import read_journal
from graphcast_batch.terminal import LineProgress, RunWatcher, TerminalProgress, run_progress
from tests.conftest import SMALL

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


class Lines(io.StringIO):
    """A log that keeps whole lines, and lets a test wait for the next."""

    def __init__(self):
        super().__init__()
        self.printed = threading.Semaphore(0)

    def write(self, text):
        super().write(text)
        for _ in range(text.count("\n")):
            self.printed.release()

    def next(self):
        assert self.printed.acquire(timeout=60)
        return self.getvalue().splitlines()[-1]


def test_a_line_has_steps_cases_and_the_expected_end(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(run_progress, "monotonic", lambda: now[0])
    watcher = RunWatcher(Console(file=io.StringIO()), tmp_path, STEPS, 6, "quiet")
    watcher.started(2, "cpu", 4, 1)
    assert watcher._line() == "0 of 120 steps made, 1 of 4 Cases complete; workers are starting"

    watcher.under_way("host:7", [Place("2020-01-01T06", "compute", 0), Place("2020-01-01T12", "wait", 0)])
    assert watcher._line() == (
        "0 of 120 steps made, 1 of 4 Cases complete; in progress: 2020-01-01T06 computing (0 of 40 steps), "
        "2020-01-01T12 waiting (0 of 40 steps)"
    )
    now[0] += 31
    assert watcher._line() == "0 of 120 steps made, 1 of 4 Cases complete; no worker has answered for 30 s"

    # From the first steps on, 10 take 50 s; 106 are left, of which one has been under way for 2 s.
    watcher.under_way("host:7", [Place("2020-01-01T06", "compute", 4)])
    now[0] += 50
    watcher.under_way("host:7", [Place("2020-01-01T06", "compute", 14)])
    now[0] += 2
    before, line = datetime.now(UTC), watcher._line()
    found = re.fullmatch(
        r"14 of 120 steps made, 1 of 4 Cases complete; in progress: 2020-01-01T06 computing \(14 of 40 steps\); "
        r"end expected at (\d{4}-\d\d-\d\d \d\d:\d\d) UTC, in 0:08:48",
        line,
    )
    assert found, line
    end = datetime.strptime(found[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert timedelta(seconds=528 - 61) < end - before < timedelta(seconds=528 + 61)

    # The steps of a Case that failed are not made any more: 40 are left, at 5 s each.
    watcher.failed(FAILURE)
    now[0] += 128  # 26 steps more
    watcher.finished(record(6))
    assert watcher._line().startswith("40 of 120 steps made, 2 of 4 Cases complete, 1 failed; end expected at ")
    assert watcher._line().endswith(" UTC, in 0:03:20")


def test_the_end_is_not_expected_from_steps_that_are_made_again(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(run_progress, "monotonic", lambda: now[0])
    watcher = RunWatcher(Console(file=io.StringIO()), tmp_path, STEPS, 6, "quiet")
    watcher.started(1, "cpu", 1, 0)
    for made in (4, 14):
        now[0] += 50
        watcher.under_way("host:7", [Place("2020-01-01T06", "compute", made)])
    watcher.retried(Case(np.datetime64("2020-01-01T06"), STEPS, 6), ForecastError("too hot"))

    assert watcher._line() == "0 of 40 steps made, 0 of 1 Cases complete"


def test_a_line_names_few_of_many_cases(tmp_path):
    watcher = RunWatcher(Console(file=io.StringIO()), tmp_path, STEPS, 6)
    watcher.under_way("host:7", [Place(f"2020-01-{day:02}T00", "compute", day) for day in range(1, 10)])

    assert re.findall(r"2020-01-(\d\d)", watcher._line()) == ["09", "08", "07", "06"]
    assert watcher._line().endswith("(6 of 40 steps) and 5 more")


@pytest.mark.parametrize("level", ["quiet", "normal"])
def test_whoever_is_quiet_gets_no_line_a_minute(tmp_path, level):
    log = Lines()
    with RunWatcher(Console(file=log), tmp_path, STEPS, 6, level, line_seconds=0.001) as watcher:
        watcher.started(1, "cpu", 1, 0)
        if level == "normal":
            log.next(), log.next()
    assert ("workers are starting" in log.getvalue()) == (level == "normal")
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_a_terminal_shows_the_time_left_also_of_steps_that_take_minutes(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(run_progress, "monotonic", lambda: now[0])
    with Screen() as screen, RunWatcher(screen.console, tmp_path, STEPS, 6) as watcher:
        watcher.started(1, "cpu", 1, 0)
        for made in (1, 2):
            now[0] += 100
            watcher.under_way("host:7", [Place("2020-01-01T06", "compute", made)])

    assert "1:03:20 left" in screen.text  # 38 steps of 100 s


def test_work_that_is_counted_prints_a_line_now_and_then_in_a_log():
    log = io.StringIO()
    lines = [
        TerminalProgress(Console(file=log), Console(file=log), level, line_seconds=0) for level in ("normal", "quiet")
    ]

    assert [list(progress.track("abc", "averaging", 3)) for progress in lines] == [["a", "b", "c"]] * 2
    assert log.getvalue().splitlines() == [f"averaging: {n} of 3" for n in (1, 2, 3)]


def test_a_notebook_is_told_at_the_end_how_much_was_done(capsys):
    assert list(LineProgress().track("ab", "averaging", 3)) == ["a", "b"]

    assert capsys.readouterr().out == "averaging: 2 of 3\n"


WATCHED = """
import json, sys
import graphcast_batch as gb
from graphcast_batch.cluster import dispatch_loop, worker_watch
from graphcast_batch.screen import Screen
from graphcast_batch.terminal import TerminalProgress
screen = Screen(width=200)
dispatch_loop._WAIT_SECONDS = worker_watch._SHORTEST_PAUSE_SECONDS = 0.1
gb.run(json.loads(sys.argv[1]), progress=TerminalProgress(screen, screen, line_seconds=0.05))
"""


def test_a_real_run_prints_how_many_steps_are_made_before_its_first_case_is_complete(run_on_ray, tmp_path):
    one = {"times": SMALL["times"] | {"last": "2020-01-01T00"}, "steps": 300, "limits": "off"}
    config = SMALL | one | {"store": str(tmp_path / "run"), "model": SMALL["model"] | {"steps_per_call": 1}}

    done = run_on_ray(WATCHED, json.dumps(config), cwd=tmp_path, kind="python")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    before = lines[: next(n for n, line in enumerate(lines) if line.startswith("2020-01-01T00 complete"))]
    assert "0 of 300 steps made, 0 of 1 Cases complete; workers are starting" in before
    under_way = [re.match(r"(\d+) of 300 .* in progress: 2020-01-01T00 \w+ \((\d+) of 300 steps\)", x) for x in before]
    made = [(int(found[1]), int(found[2])) for found in under_way if found]
    assert made == sorted((steps, steps) for steps, _ in made)
    assert max(steps for steps, _ in made if steps < 300) > 0
