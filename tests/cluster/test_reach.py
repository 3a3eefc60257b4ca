"""Whether a head answers is known within seconds, whatever is at its address."""

import os
import socket
import sys
import threading
import time

import pytest

from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.driver import connected
from graphcast_batch.cluster.reach import check_head, within
from graphcast_batch.errors import ClusterError


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_closed_port_is_refused_with_what_to_do():
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1 within 0 s, but there is none \(Connection refused\); see"):
        check_head("127.0.0.1:1", 0)


def test_what_accepts_connections_and_never_answers_is_no_head(listener):
    """As a head that is stopped."""
    with pytest.raises(ClusterError, match="nothing answers there"):
        check_head(f"127.0.0.1:{listener.getsockname()[1]}", 0)


def test_another_server_is_no_head(listener):
    def greet():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connection.recv(100)

    serving = threading.Thread(target=greet, daemon=True)
    serving.start()
    with pytest.raises(ClusterError, match="what answers there is not Ray"):
        check_head(f"127.0.0.1:{listener.getsockname()[1]}", 0)
    serving.join(60)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:x", "head:70000"])
def test_an_address_that_is_none_is_refused_by_its_form(address):
    with pytest.raises(ClusterError, match="must be HOST:PORT, but is"):
        check_head(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_head_that_runs_is_found(on_ray, scheme):
    check_head(scheme + on_ray["RAY_ADDRESS"])


def test_an_address_with_nothing_there_is_refused_before_ray_is_asked():
    with pytest.raises(ClusterError, match="see that its head is running"), connected("127.0.0.1:1", Drain()):
        pass


def test_a_call_that_hangs_is_left_behind_and_one_that_fails_fails():
    with pytest.raises(ClusterError, match=r"must report its nodes within 0 s, but has not answered; it is stopped"):
        within(0.1, "report its nodes", lambda: time.sleep(30))
    with pytest.raises(ZeroDivisionError):
        within(60, "report its nodes", lambda: 1 / 0)
    assert within(60, "report its nodes", lambda: 6 * 7) == 42


def test_a_name_that_is_no_text_in_this_locale_is_refused_with_what_to_set(monkeypatch):
    """As Python has a path outside ASCII in the C locale."""
    monkeypatch.setattr(sys, "argv", ["graphcast-batch", "run", os.fsdecode(b"wetter-\xfc.yaml")])
    with (
        pytest.raises(ClusterError, match=r"'wetter-\\udcfc\.yaml' is none .*; set PYTHONUTF8=1"),
        connected(None, Drain()),
    ):
        pass
