"""What Python itself tells of files that are written, pickles that are loaded and programs that are started."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

_STARTED = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class"}
_CHANGED = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_watched: list[Path] = []
_seen: list[str] = []


def _hook(event, arguments):
    if not _watched:
        return
    if event in _STARTED:
        _seen.append(f"{event} {arguments}")
    elif event in _CHANGED or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
        names = arguments[:1] if event == "open" else arguments[:2]
        paths = [path for path in names if isinstance(path, str | bytes | os.PathLike)]
        _seen.extend(f"{event} {path!r}" for path in map(os.fsdecode, paths) if not _inside(path))


def _inside(path):
    return Path(os.path.abspath(path)).is_relative_to(_watched[0])


sys.addaudithook(_hook)  # Python has no way to take it off again


@pytest.fixture
def only_inside():
    """A block in which nothing may be written outside a folder, unpickled or started."""

    @contextmanager
    def watch(folder):
        _seen.clear()
        _watched.append(folder)
        try:
            yield
        finally:
            _watched.clear()
        assert _seen == []

    return watch
