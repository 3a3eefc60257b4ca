"""Measure in one command, within some minutes, what should be known of the network on an accelerator.

Each part is measured in a process of its own, so that one that fails, as for want of memory, ends no other. Parts are
in order of importance; a part for which too little time is left is left out. There is a result after each part, so that
nothing is lost with a machine that is only lent.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final, Literal

from graphcast_batch.bench.accelerator_part import Part
from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult, machine
from graphcast_batch.cluster.visible_devices import visible_devices
from graphcast_batch.errors import BenchError
from graphcast_batch.models.device_allocation import ALLOCATION

SuiteSize = Literal["published", "tiny"]
_END_SECONDS: Final = 10.0
"""How long a process that is told to end may take."""
_PUBLISHED: Final = (
    Part("forecast", 90, "operational"),
    Part("reference", 60),
    Part("forecast", 60, "operational", memory="fast", steps_per_call=4),
    Part("profile", 45, "operational"),
    Part("forecast", 30, "small", memory="fast"),
    Part("batches", 60, "small", memory="fast", steps_per_call=4),
    Part("run", 60, "small", steps=16),
    Part("forecast", 30, "small", "float32", memory="fast"),
    Part("forecast", 30, "small"),
    Part("forecast", 60, "operational", memory="fast"),
    Part("batches", 60, "coarse", memory="fast", steps_per_call=4),
    Part("forecast", 60, "operational", steps_per_call=4),
    Part("forecast", 30, "small", memory="fast", steps_per_call=4),
    Part("forecast", 30, "small", "float32"),
    Part("forecast", 90, "full"),
    Part("forecast", 90, "full", memory="fast"),
)
"""The parts in order of importance. Their seconds are guesses for an H100, most of them that of compiling."""
_TINY: Final = (
    Part("forecast", 1, "tiny", steps=4),
    Part("reference", 1),
    Part("profile", 1, "tiny"),
    Part("batches", 1, "tiny", memory="fast", steps_per_call=2, batches=(1, 2)),
    Part("run", 1, "tiny", steps=4, cases=2),
)
"""What shows that the benchmark works, on any machine."""


@dataclass(frozen=True)
class Outcome:
    """What came of a part.

    Attributes:
        figures: that were measured, also if it failed later.
        words: how it ended.
    """

    figures: Sequence[BenchmarkFigure]
    words: str


def measure(size: SuiteSize, minutes: float, reference: Path | None, out: Path) -> Iterator[BenchmarkResult]:
    """Measure all parts for which there is time.

    Args:
        size: ``tiny`` shows on any machine that the benchmark works; it measures nothing that matters.
        minutes: in which the benchmark ends.
        reference: folder of forecasts by DeepMind's package; None to leave out how far frames are from them.
        out: folder in which the profile gets a folder.

    Yields:
        After each part the result of all parts so far.

    Raises:
        BenchError: JAX sees no accelerator, which ``tiny`` alone can do without.
    """
    deadline = monotonic() + 60 * minutes
    accelerated, device = _device(size)
    bench = "gpu" if size == "published" else f"gpu-{size}"
    result = BenchmarkResult(
        bench=bench,
        what=f"the network on {device}, at {'the published sizes' if size == 'published' else 'a tiny size'}",
        command=f"graphcast-batch bench gpu --size {size} --minutes {minutes:g}",
        figures=(),
        settings={"size": size, "minutes": minutes, "parts": {}},
        machine=machine(device if accelerated else None),
    )
    profile = out.absolute() / f"profile-{bench}-{datetime.now(UTC).date()}"
    with TemporaryDirectory(prefix="bench-gpu-") as scratch:
        for part in _PUBLISHED if size == "published" else _TINY:
            kept = {"reference": str(reference.absolute()) if reference else "", "profile": str(profile)}
            whole = replace(part, accelerated=accelerated, scratch=scratch, kept=kept.get(part.kind, ""))
            outcome = _outcome(whole, deadline)
            parts = {**result.settings["parts"], whole.name: outcome.words}
            figures = [replace(figure, name=f"{whole.name}: {figure.name}") for figure in outcome.figures]
            result = replace(result, figures=[*result.figures, *figures], settings={**result.settings, "parts": parts})
            yield result


def _device(size: SuiteSize) -> tuple[bool, str]:
    """Return whether JAX computes on an accelerator, and on which device; JAX stays untouched in this process."""
    devices, fault = visible_devices()
    if fault or not devices:
        raise BenchError(f"JAX must start to measure a device, but it does not: {fault or 'it sees none'}")
    platform, kind = devices[0]
    if platform == "cpu" and size != "tiny":
        raise BenchError(
            "bench gpu measures an accelerator, but JAX sees none here, only a CPU; run it where there is one, with "
            'the plugin of its platform (pip install "graphcast-batch[cuda12]" or "graphcast-batch[tpu]"), or show '
            "with --size tiny that it works"
        )
    return platform != "cpu", kind


def _outcome(part: Part, deadline: float) -> Outcome:
    left = deadline - monotonic()
    if part.kind == "reference" and not part.kept:
        return Outcome((), "left out: there is no folder of reference forecasts; name one with --reference")
    if left < part.seconds:
        return Outcome((), f"left out: it takes about {part.seconds:.0f} s, and {max(0.0, left):.0f} s are left")
    return _measured(part, left)


def _measured(part: Part, seconds: float) -> Outcome:
    """Measure a part in a process of its own, which is ended when there is no time left."""
    answers, errors = Path(part.scratch) / "answers", Path(part.scratch) / "errors"
    answers.unlink(missing_ok=True)
    words = [sys.executable, "-m", "graphcast_batch.bench.accelerator_part", json.dumps(asdict(part)), str(answers)]
    begin, late = monotonic(), False
    with errors.open("w") as stream:
        process = subprocess.Popen(
            words, env=os.environ | ALLOCATION, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            process.wait(max(0.0, seconds - _END_SECONDS))
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
    figures, failure = _read(answers)
    if late:
        failure = "there was no time left"
    elif process.returncode and not failure:
        failure = f"its process ended with code {process.returncode}: {_last_line(errors)}"
    took = f"{monotonic() - begin:.0f} s"
    return Outcome(figures, f"failed after {took}: {failure[:1000]}" if failure else f"measured in {took}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, with all that it started and that is still there."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)


def _read(answers: Path) -> tuple[list[BenchmarkFigure], str]:
    """Return the figures that a part has measured, and why it failed; empty if it did not."""
    figures, failure = [], ""
    for line in answers.read_text().splitlines() if answers.exists() else ():
        try:
            kept = json.loads(line)
        except ValueError:  # a line that was being written when the process ended
            continue
        failure = kept.get("failure", "")
        if not failure:
            figures.append(BenchmarkFigure(**kept))
    return figures, failure


def _last_line(errors: Path) -> str:
    return (errors.read_text(errors="replace").strip().splitlines() or ["it wrote nothing"])[-1]
