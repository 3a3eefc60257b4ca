"""A run is asked to stop by signals, a file or the end of its job."""

import os
import signal
import sys
import time

import pytest

from graphcast_batch.cluster.drain import DRAIN_VARIABLE, Drain, overheard


def test_nothing_asks_by_itself(monkeypatch):
    monkeypatch.delenv(DRAIN_VARIABLE, raising=False)
    assert not Drain().asked


def test_a_file_asks_also_one_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv(DRAIN_VARIABLE, str(tmp_path / "named"))
    given, named = Drain(tmp_path / "given"), Drain()
    (tmp_path / "named").touch()
    assert (given.asked, named.asked) == (False, True)


def test_an_empty_name_is_no_file(monkeypatch):
    monkeypatch.setenv(DRAIN_VARIABLE, "")
    assert not Drain().asked


@pytest.mark.parametrize(("seconds", "asked"), [(50, True), (70, False), (-10, True)])
def test_the_last_minute_of_a_job_asks(seconds, asked):
    assert Drain(end=time.time() + seconds).asked is asked


def test_the_second_signal_interrupts_but_not_the_first_after_a_file(tmp_path, capsys):
    (tmp_path / "drain").touch()
    before = signal.getsignal(signal.SIGTERM)
    with Drain(tmp_path / "drain") as drain:
        assert drain.asked
        assert drain.reason == f"{tmp_path / 'drain'} has appeared"
        os.kill(os.getpid(), signal.SIGUSR1)
        told = capsys.readouterr().err
        assert told.startswith("SIGUSR1: work in progress is finished, and no other is begun. A second signal ends")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_is_heard_though_a_library_took_it_and_its_exception_was_lost(capsys):
    class Finalised:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def leave(number, _):
        raise SystemExit(number)

    with Drain() as drain:
        with overheard(drain.heard):
            signal.signal(signal.SIGTERM, leave)
            Finalised()
            assert not drain.asked
        assert drain.asked
        assert capsys.readouterr().err.count("SIGTERM: ") == 1
        drain.listen()
        with pytest.raises(KeyboardInterrupt):  # which is the second
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_interrupts_another_print_is_acknowledged_all_the_same(monkeypatch, capfd):
    class Printing:
        """A buffered stream that is being written when the handler writes to it too."""

        def write(self, _text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr(sys, "stderr", Printing())
    with Drain():
        os.kill(os.getpid(), signal.SIGINT)

    assert capfd.readouterr().err.startswith("SIGINT: work in progress is finished")


def test_nothing_is_heard_where_no_signal_came():
    with Drain() as drain, overheard(drain.heard):
        pass
    assert not drain.asked
