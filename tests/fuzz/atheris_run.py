"""Random bytes, led by the coverage that they reach, become what a parser reads, until one breaks it.

``python -m tests.fuzz.atheris_run TARGET [libFuzzer options] [CORPUS]``; needs the package ``atheris``. What it finds
belongs into the tests beside it.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["graphcast_batch", "yaml", "zipfile", "numpy.lib"]):
    from tests.fuzz.targets import TARGETS, attempt


def main():
    target = sys.argv.pop(1)
    if target not in TARGETS:
        sys.exit(f"the target must be one of {', '.join(TARGETS)}, but is {target!r}")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

    def once(data):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        attempt(target, data, folder)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
