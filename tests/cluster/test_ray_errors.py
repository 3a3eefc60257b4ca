"""Every error of Ray's is either that of a Case, or that of a lost worker, and says what to do."""

import inspect

import pytest
from ray import exceptions

from graphcast_batch.cluster import dispatch_loop, driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.ray_errors import explained, is_of_the_node, unwrapped
from graphcast_batch.errors import ClusterError

KILLED = """Task was killed due to the node running low on memory.
Memory on the node (IP: 10.0.0.7, ID: 4f) where the task (actor ID: 0a, name=Actor.begin, pid=71, memory used=2.1GB) \
was running was 22.53GB / 23.42GB (0.962), which exceeds the memory usage threshold of 0.95."""
CLASSES = [
    each
    for _, each in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(each, exceptions.RayError) and each is not exceptions.RayError
]


def bare(kind):
    """An error of a class that says the same as any other; their constructors differ."""
    own = {"__init__": lambda self: None, "__str__": lambda self: "what happened\nand where"}
    return type(kind.__name__, (kind,), own)()


def test_ray_has_the_classes_that_are_told_apart():
    assert len(CLASSES) > 30
    assert exceptions.OutOfMemoryError in CLASSES
    assert not issubclass(exceptions.OutOfMemoryError, exceptions.RayActorError)


def test_a_worker_that_the_memory_monitor_ended_is_told_with_bytes_and_what_to_lower():
    text = explained(exceptions.OutOfMemoryError(KILLED))
    assert "because 22.53GB of 23.42GB were used on its node" in text
    assert "workers.count" in text
    assert "model.steps_per_call" in text
    assert "\n" not in text
    assert "nearly full" in explained(exceptions.OutOfMemoryError("another text of a later Ray"))


def test_errors_that_tell_of_a_lost_node_are_known():
    kinds = {each.__name__ for each in CLASSES if is_of_the_node(bare(each))}
    assert {"NodeDiedError", "LocalRayletDiedError", "ActorUnavailableError", "OwnerDiedError"} <= kinds
    assert not {"OutOfMemoryError", "ActorDiedError", "RayTaskError", "WorkerCrashedError"} & kinds


def test_an_error_of_ray_within_a_task_is_no_programs_error():
    error = exceptions.RayTaskError("f", "traceback", exceptions.OutOfMemoryError(KILLED))
    assert isinstance(unwrapped(error), ClusterError)
    assert "22.53GB" in str(unwrapped(error))


@pytest.mark.parametrize("kind", CLASSES)
def test_any_error_of_ray_ends_a_call_with_a_value_and_not_the_run(kind, monkeypatch):
    def fail(_reference):
        raise bare(kind)

    monkeypatch.setattr(dispatch_loop.ray, "get", fail)
    result = dispatch_loop._result("reference")
    assert isinstance(result, kind)
    assert dispatch_loop._is_lost(result) != issubclass(kind, exceptions.RayTaskError)


@pytest.mark.parametrize("kind", CLASSES)
def test_any_error_of_ray_that_comes_out_of_a_command_is_a_plain_one(kind, monkeypatch):
    monkeypatch.setattr("graphcast_batch.cluster.connection.check_head", lambda _address: None)
    monkeypatch.setattr(dispatch_loop.ray, "init", lambda **_options: None)
    monkeypatch.setattr(dispatch_loop.ray, "shutdown", lambda: None)
    with pytest.raises(ClusterError), driver.connected("head:1", Drain()):
        raise bare(kind)
