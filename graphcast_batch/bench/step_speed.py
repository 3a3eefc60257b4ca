"""Measure the seconds that a model step takes with our network and with DeepMind's package.

Each contestant is a process of its own (`step_contestant`), so that its memory is its own too, and does one rollout
whenever it is asked. They are asked in turn, so that whatever else the machine does affects all of them alike. A matrix
product shows what the machine can reach.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from graphcast_batch.bench.operation_count import operations
from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult, machine
from graphcast_batch.bench.step_contestant import SIZES, Answer, Role, Size, SizeName
from graphcast_batch.errors import BenchError, PackageError
from graphcast_batch.models.base import MemoryMode, Precision
from graphcast_batch.models.device_allocation import ALLOCATION
from graphcast_batch.models.graphs import build_graphs


def measure(
    size: SizeName,
    precision: Precision,
    steps: int,
    rounds: int,
    python: Path | None = None,
    against: Literal["deepmind", "none"] = "deepmind",
    memory: MemoryMode = "fast",
) -> BenchmarkResult:
    """Measure our network and DeepMind's package in turn, with one step a call and frames on the host.

    Args:
        size: name of the size of network and grid.
        precision: precision of the network.
        steps: steps of each rollout.
        rounds: how often each contestant is measured, after a first rollout that compiles.
        python: interpreter that has DeepMind's package and this one; None for the running interpreter.
        against: ``none`` to measure our network alone.
        memory: how our network uses the memory of the device.

    Returns:
        Seconds a step of each contestant, their ratio, the rate of our network in the arithmetic that it needs, and
        that rate as a share of the rate of the machine's matrix product; seconds to the first frame, peak memory, and
        how far frames differ. Where DeepMind's package cannot be used, only the part about our network, with the reason
        among the settings.

    Raises:
        BenchError: our network needs more memory than there is, or a contestant's process ended early.
    """
    roles: dict[Role, str] = {"deepmind": str(python or sys.executable)} if against == "deepmind" else {}
    roles |= {"native": sys.executable, "product": sys.executable}
    with TemporaryDirectory() as place, ExitStack() as stack:
        contestants, refusal = {}, ""
        for role, interpreter in roles.items():
            words = (role, size, precision, memory, str(steps), f"{place}/{role}.npz")
            try:
                contestants[role] = stack.enter_context(closing(_Contestant(interpreter, words)))
            except PackageError as error:
                if role == "native":
                    raise BenchError(str(error)) from error
                refusal = str(error)
        answers = _in_turn(contestants, rounds)
        apart = _largest_differences(Path(place)) if "deepmind" in contestants else {}
    first = {role: contestant.first for role, contestant in contestants.items()}
    device = first["native"].device
    command = f"graphcast-batch bench model --size {size} --precision {precision} --steps {steps} --rounds {rounds}"
    command += " --memory lean" if memory == "lean" else ""
    return BenchmarkResult(
        bench=f"model-{size}-{precision}" + ("-lean" if memory == "lean" else ""),
        what=f"the network at the size {size}: seconds a step, beside {first['deepmind'].what if apart else 'nothing'}",
        command=command if apart else f"{command} --against none",
        figures=[
            *_figures(SIZES[size], steps, first, answers),
            *(BenchmarkFigure(f"largest difference, {when}", "diffs_stddev", [most]) for when, most in apart.items()),
        ],
        settings={
            "size": size,
            "precision": precision,
            "memory": memory,
            "steps": steps,
            "against": first["deepmind"].what if apart else refusal or "none",
        },
        machine=machine(None if device == "cpu" else device),
    )


class _Contestant:
    """The process of a contestant, which makes a measurement whenever it is asked."""

    def __init__(self, python: str, words: tuple[str, ...]) -> None:
        """Start the process, and wait until it is ready.

        Raises:
            PackageError: the contestant cannot take part.
            BenchError: the process ended.
        """
        # Several share a device, and memory that one has only reserved would hide what it needs.
        environment = os.environ | ALLOCATION | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        command = [python, "-m", "graphcast_batch.bench.step_contestant", *words]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._role = words[0]
        self.first = self._read_answer()
        if self.first.refusal:
            self.close()
            raise PackageError(self.first.refusal)

    def close(self) -> None:
        """Close the input of the process, at which it ends, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ask(self) -> Answer:
        """Return one more measurement."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end is noticed when its answer is read
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise BenchError(
                f"the process that measures {self._role} must answer, but ended with code {self._process.returncode}; "
                + ("take more memory or a smaller --size" if self._process.returncode == -9 else "see what it wrote")
            )
        return Answer(**json.loads(line))


def _in_turn(contestants: Mapping[Role, _Contestant], rounds: int) -> dict[Role, list[Answer]]:
    """Return the answers of each contestant; the order in which they are asked is reversed in every second round."""
    answers: dict[Role, list[Answer]] = {role: [] for role in contestants}
    for number in range(rounds):
        for role in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            answers[role].append(contestants[role].ask())
    return answers


def _figures(
    size: Size, steps: int, first: Mapping[Role, Answer], answers: Mapping[Role, list[Answer]]
) -> list[BenchmarkFigure]:
    channels, shape = size.channels, size.architecture
    needed = operations(shape, channels.inputs, channels.outputs, build_graphs(shape, size.grid))
    rate = [1 / answer.seconds for answer in answers["product"]]
    spent = {role: [answer.seconds / steps for answer in answers[role]] for role in answers if role != "product"}
    achieved = [needed / seconds / 1e9 for seconds in spent["native"]]
    figures = [BenchmarkFigure(f"{role}, a step", "s", seconds) for role, seconds in spent.items()]
    if "deepmind" in spent:
        ratios = [theirs / ours for ours, theirs in zip(spent["native"], spent["deepmind"], strict=True)]
        figures.append(
            BenchmarkFigure("deepmind / native, a step", "times", ratios, goal=">= 1.8; >= 3 for small networks")
        )
    figures += [
        BenchmarkFigure(f"matrix product {first['product'].what}", "GFLOP/s", rate),
        BenchmarkFigure(
            f"native, of the {needed / 1e9:.4g} GFLOP that a step needs", "GFLOP/s", achieved, limit=median(rate)
        ),
        BenchmarkFigure(
            "native / matrix product",
            "share",
            [ours / most for ours, most in zip(achieved, rate, strict=True)],
            limit=1.0,
            goal=">= 0.85 for large networks",
        ),
    ]
    for role in spent:
        last = answers[role][-1]
        figures.append(BenchmarkFigure(f"{role}, to the first frame", "s", [first[role].seconds]))
        figures.append(BenchmarkFigure(f"{role}, peak memory of the process", "GB", [last.host_bytes / 1e9]))
        if last.device_bytes:
            figures.append(BenchmarkFigure(f"{role}, peak memory of the device", "GB", [last.device_bytes / 1e9]))
    if "deepmind" in spent:
        ours, theirs = (answers[role][-1] for role in ("native", "deepmind"))
        share = (ours.device_bytes or ours.host_bytes) / (theirs.device_bytes or theirs.host_bytes)
        figures.append(BenchmarkFigure("native / deepmind, peak memory", "share", [share], goal="<= 0.5"))
    return figures


def _largest_differences(place: Path) -> dict[str, float]:
    """Return the largest differences between the contestants' first and last frames, by lead time."""
    with np.load(place / "native.npz") as ours, np.load(place / "deepmind.npz") as theirs:
        return {lead: float(np.abs(ours[lead] - theirs[lead]).max()) for lead in ours.files}
