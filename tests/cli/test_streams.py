"""What is printed does not end what is computed, wherever it goes."""

import errno
import os
import subprocess
import sys
from importlib import import_module

import pytest

from graphcast_batch.cli import main
from graphcast_batch.cli.streams import Output
from tests.conftest import SMALL

commands = import_module("graphcast_batch.cli.application")  # whose name in the package is that of the app itself
WORDS = [sys.executable, "-m", "graphcast_batch"]
QUICK = {"times": {"list": ["2020-01-01T00", "2020-01-01T06"]}, "steps": 1, "workers": SMALL["workers"] | {"count": 1}}


def shell(line, cwd, **variables):
    """Runs a line of bash, in which $G is the command; its own exit code is that of the command, not of a pipe."""
    environment = os.environ | {"G": " ".join(WORDS)} | variables
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("$G schema | head -1", 0, ""),
        ("$G schema >&-", 1, "standard output cannot be written: [Errno 9] it is closed"),
        ("$G schema > /dev/full", 1, "standard output cannot be written: [Errno 28] No space left on device"),
        ("$G schema > /dev/null 2>&- <&-", 0, ""),
        ("$G retry-failed nowhere 2> /dev/full", 1, ""),
        ("mkdir gone && cd gone && rmdir ../gone && $G schema", 2, "ConfigError: the working directory must exist"),
        ("mkdir $'\\xff' && cd $'\\xff' && $G schema", 2, "working directory must be UTF-8 without control characters"),
    ],
)
def test_a_command_ends_as_it_should_whatever_becomes_of_what_it_prints(tmp_path, line, code, told):
    done = shell(line, tmp_path)

    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert done.stderr.count("\n") == bool(told)
    assert told in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["$G run run.yaml | head -1", "$G run run.yaml >&- 2>&-", "$G run run.yaml &> /dev/full"]
)
def test_a_run_that_nobody_reads_makes_all_cases_and_its_code_tells(small_config, tmp_path, line, on_ray):
    small_config(**QUICK)

    assert shell(line, tmp_path, **on_ray).returncode == 0
    assert len(list((tmp_path / "run" / "ledger").rglob("2020*.json"))) == 2


class Full:
    """A stream on a disk that is full until it is not."""

    def __init__(self):
        self.full, self.text = True, ""

    def write(self, text):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.text += text
        return len(text)

    def flush(self):
        pass

    def fileno(self):
        raise ValueError("there is none")


def test_what_a_full_disk_refuses_is_lost_and_what_follows_once_there_is_room_is_written():
    stream = Full()
    output = Output(stream, 1)

    assert output.write("lost") == 4
    stream.full = False
    output.write("kept")
    output.end()

    assert (stream.text, output.is_broken) == ("kept", True)


def test_a_name_that_the_encoding_lacks_is_written_out(tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        Output(stream, 1).write("30° \udcff")

    assert (tmp_path / "out").read_bytes() == b"30\\xb0 \\udcff"


def test_an_interrupted_command_says_so_and_ends_as_documented(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["run", "x"])

    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_a_home_that_cannot_be_written_is_no_news(tmp_path):
    code = "import graphcast_batch.figures, matplotlib; print(matplotlib.get_cachedir())"
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "XDG_CONFIG_HOME": "/proc/nowhere"}
    environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"} | nowhere

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)

    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.exists(done.stdout.strip())
