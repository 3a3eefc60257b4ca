"""Measure all commands of a campaign one after the other, from an archive to scores: time, processor time and memory.

Weather is of the synthetic planet and weights are random: neither time nor memory depends on them.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Final

import numpy as np
import psutil

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.bench.step_contestant import SIZES, Size, SizeName
from graphcast_batch.errors import BenchError
from graphcast_batch.models.base import Precision

_BETWEEN_SECONDS: Final = 0.5
"""Time between two looks at the processes of a command."""
_FIRST: Final = "2020-01-01T00"
_YEAR: Final = ("--first", "2020-01-01T00", "--last", "2020-12-31T18", "--every-hours", "186")
"""Times of a climatology: the fewest that have each hour of the day within 30 days of each day."""
_ALL_GOAL: Final = "< 16 GB"
_GOALS: Final = {"figures": "< 2 GB", "evaluate": "< 4 GB"}
"""Most memory that a process which a command starts should need."""


@dataclass
class _Use:
    """What the processes of a command have used so far.

    Memory that can be shared, such as libraries and Ray's store of objects, is counted once, as that of the process
    which has most of it. To ask the kernel how it is divided would hold up a process of some GB for a second.

    Attributes:
        wall_seconds: from its start to its end.
        processor_seconds: by process.
        bytes: most that all processes held at once.
        of_driver: most that the command's first process held.
        of_another: most that any other process held.
    """

    wall_seconds: float = 0.0
    processor_seconds: dict[int, float] = field(default_factory=dict)
    bytes: int = 0
    of_driver: int = 0
    of_another: int = 0

    def look(self, driver: psutil.Process) -> None:
        """Look at a command's first process and at all that it has started."""
        alone, most_shared = 0, 0
        with suppress(psutil.NoSuchProcess):
            for process in (driver, *driver.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    memory, spent = process.memory_info(), process.cpu_times()
                    self.processor_seconds[process.pid] = spent.user + spent.system
                    held = memory.rss
                    alone += held - memory.shared
                    most_shared = max(most_shared, memory.shared)
                    if process == driver:
                        self.of_driver = max(self.of_driver, held)
                    else:
                        self.of_another = max(self.of_another, held)
        self.bytes = max(self.bytes, alone + most_shared)


def measure(folder: Path, size_name: SizeName, precision: Precision, cases: int, steps: int) -> BenchmarkResult:
    """Run every command in a process of its own, as a user would.

    Args:
        folder: on the disk for archive, store and climatology; nothing is left in it.
        size_name: of network and grid.
        precision: of the network.
        cases: number of initial times, 6 h apart.
        steps: model steps of each forecast.

    Raises:
        BenchError: a command fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = SIZES[size_name]
    with TemporaryDirectory(prefix="bench-chain-", dir=folder) as place:
        used = {name: _run(name, words) for name, words in _commands(Path(place), size, precision, cases, steps)}
        stored = sum(file.stat().st_size for file in Path(place, "run").rglob("*") if file.is_file())
    figures = [figure for name, use in used.items() for figure in _figures(name, use)]
    return BenchmarkResult(
        bench=f"chain-{size_name}-{precision}",
        what=f"every command at {size.resolution:g}° with {len(size.channels.levels)} levels, {precision}, lean, one "
        f"worker, {cases} Case{'s' * (cases > 1)} of {steps} steps",
        command=f"graphcast-batch bench chain --size {size_name} --precision {precision} --cases {cases} "
        f"--steps {steps} --folder FOLDER",
        figures=[*figures, BenchmarkFigure("the store", "GB", [stored / 1e9])],
        settings={"size": size_name, "precision": precision, "cases": cases, "steps": steps},
    )


def _commands(
    place: Path, size: Size, precision: Precision, cases: int, steps: int
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each command's name and words, when what it needs was made."""
    archive, store, config = str(place / "planet.zarr"), str(place / "run"), place / "run.yaml"
    content = _config(archive, store, size, precision, cases, steps)
    config.write_text(json.dumps(content))
    planet = place / "planet.yaml"
    planet.write_text(json.dumps({**content, "inputs": {"kind": "synthetic", "resolution": size.resolution}}))
    hours = size.channels.step_hours
    last = _time(hours * (cases + steps))
    levels = str(len(size.channels.levels))
    span = ("--first", _FIRST, "--last", last)
    yield (
        "archive",
        ("archive", "synthetic", "--out", archive, *span, "--res", f"{size.resolution:g}", "--levels", levels),
    )
    for name in ("check", "plan", "run"):
        yield name, (name, str(config))
    yield "status", ("status", store)
    yield "verify --deep", ("verify", store, "--deep")
    yield "figures", ("figures", store)
    yield "animation", ("figures", store, "--variable", "2m_temperature", "--animation", "gif")
    climatology = str(place / "climatology.zarr")
    of_one = ("--variable", "geopotential", "--levels", "500")
    yield "climatology", ("climatology", str(planet), "--to", climatology, *_YEAR, *of_one)
    yield "evaluate", ("evaluate", store, "--baseline", "persistence")
    shutil.rmtree(place / "run" / "scores")  # a store is not scored in two ways
    few = place / "few.yaml"
    few.write_text(json.dumps({**content, "scores": {"variables": ["geopotential"], "levels": [500]}}))
    yield "evaluate, climatology", ("evaluate", str(few), "--climatology", climatology)
    yield "report", ("report", store, "--out", str(place / "report.html"))
    yield "stats", ("stats", archive, "--to", str(place / "stats"))


def _time(hours: int) -> str:
    """Return the time so many hours after the first of the archive."""
    return str(np.datetime64(_FIRST, "h") + np.timedelta64(hours, "h"))


def _config(archive: str, store: str, size: Size, precision: Precision, cases: int, steps: int) -> Mapping[str, Any]:
    hours = size.channels.step_hours
    return {
        "store": store,
        "inputs": {"kind": "archive", "path": archive},
        "times": {"list": [_time(hours * n) for n in range(1, cases + 1)]},
        "steps": steps,
        "model": {
            "weights": {"kind": "random", "architecture": size.architecture.model_dump(), "task": size.task},
            "precision": precision,
            "memory": "lean",
        },
        "limits": "off",  # random weights leave physics
        "workers": {"count": 1},
        "figures": {
            "variables": ["2m_temperature", "geopotential"],
            "levels": [500],
            "lead_hours": [hours, hours * steps],
        },
    }


def _run(name: str, words: Sequence[str]) -> _Use:
    use, start = _Use(), time.perf_counter()
    command = [sys.executable, "-m", "graphcast_batch", *words]
    with TemporaryFile("w+") as said:
        driver = psutil.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while True:
            use.look(driver)
            with suppress(psutil.TimeoutExpired):
                code = driver.wait(_BETWEEN_SECONDS)
                break
        if code != 0:
            said.seek(0)
            raise BenchError(
                f"graphcast-batch {' '.join(words)} must end with code 0, but ended with {code}:\n{said.read()[-2000:]}"
            )
    use.wall_seconds = time.perf_counter() - start
    return use


def _figures(name: str, use: _Use) -> list[BenchmarkFigure]:
    goal = _GOALS.get(name.split(",")[0], "")
    return [
        BenchmarkFigure(f"{name}, wall", "s", [use.wall_seconds]),
        BenchmarkFigure(f"{name}, processor", "s", [sum(use.processor_seconds.values())]),
        BenchmarkFigure(f"{name}, memory of all processes", "GB", [use.bytes / 1e9], goal=_ALL_GOAL),
        BenchmarkFigure(
            f"{name}, memory of the driver", "GB", [use.of_driver / 1e9], goal="< 1 GB" if name == "run" else ""
        ),
        *(
            [BenchmarkFigure(f"{name}, memory of another process", "GB", [use.of_another / 1e9], goal=goal)]
            if use.of_another
            else []
        ),
    ]
