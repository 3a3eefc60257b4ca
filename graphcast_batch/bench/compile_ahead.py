"""Compile GraphCast's step for an accelerator that is absent; tell its memory, its kernels and a bound on its speed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from graphcast_batch.bench.compile_process import Compiled, Request
from graphcast_batch.bench.kernels import Kernel
from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.errors import BenchError, PackageError
from graphcast_batch.models.absent_devices import environment
from graphcast_batch.models.accelerators import ACCELERATORS
from graphcast_batch.models.model_kinds import MODELS

_COSTLIEST: Final = 10
_CALL_GOAL: Final = "< 6 GB with 13 levels, < 10 GB with 37, lean"


def measure(request: Request) -> BenchmarkResult:
    """Compile a call of the forecast, or an update of the weights, for an absent accelerator.

    Returns:
        XLA's peak memory beside the predicted one; seconds to compile; number of kernels and of their runs; and a
        roofline: for each kernel the larger of the times that its bytes and its operations take at the published
        rates, whose sum is a lower bound of the seconds of a step. The costliest kernels are named with the line of
        code that they come from.

    Raises:
        PackageError: the plugin of the accelerator's platform is not installed.
        BenchError: XLA does not compile the step, as for want of memory.
    """
    device = ACCELERATORS[request.target]
    compiled = _compiled(request)
    bandwidth, rate = device.bandwidth, device.rates[request.precision]
    seconds = [(kernel.seconds(bandwidth, rate), kernel) for kernel in compiled.kernels]
    products = sum(kernel.runs * kernel.operations for kernel in compiled.kernels)
    moved = sum(kernel.runs * (kernel.read + kernel.written) for kernel in compiled.kernels)
    steps = request.steps * request.batch_size  # of all Cases together
    kind, goal = ("update", "< 60 GB for 1 step with 13 levels") if request.training else ("call", _CALL_GOAL)
    figures = [
        BenchmarkFigure(
            "peak memory by XLA", "GB", [compiled.peak_bytes / 1e9], limit=device.memory_bytes / 1e9, goal=goal
        ),
        *([] if request.training else _prediction(request, compiled)),
        BenchmarkFigure("to compile", "s", [compiled.seconds]),
        BenchmarkFigure("kernels", "", [len(compiled.kernels)]),
        BenchmarkFigure("runs of kernels, a step", "", [sum(k.runs for k in compiled.kernels) / steps]),
        BenchmarkFigure("bytes moved, a step", "GB", [moved / steps / 1e9]),
        BenchmarkFigure("matrix products, a step", "TFLOP", [products / steps / 1e12]),
        BenchmarkFigure(
            "least time of all kernels, a step",
            "ms",
            [sum(least for least, _ in seconds) / steps * 1e3],
            limit=products / rate / steps * 1e3,
            goal="" if request.training else "< 60 ms on an H100 with 13 levels",
        ),
        *_costliest(seconds, steps),
    ]
    if compiled.unknown_loops:
        figures.append(BenchmarkFigure("loops of unknown length, counted once", "", [compiled.unknown_loops]))
    name = [request.target, request.size, request.precision, "update" if request.training else request.memory]
    options = "--training" if request.training else f"--memory {request.memory}"
    batch = request.batch_size
    name += [str(request.steps), *([f"batch-{batch}"] if batch > 1 else [])]
    return BenchmarkResult(
        bench="-".join(("compile", *name)),
        what=f"{kind} of {request.size}, {request.precision}, {request.memory}, {request.steps} steps"
        f"{f' of {batch} Cases' if batch > 1 else ''}, compiled for an absent {device.title}",
        command=f"graphcast-batch bench compile --for {request.target} --size {request.size} --precision "
        f"{request.precision} {options} --steps {request.steps}{f' --batch-size {batch}' if batch > 1 else ''}",
        figures=figures,
        settings=asdict(request),
    )


def _prediction(request: Request, compiled: Compiled) -> list[BenchmarkFigure]:
    predicted = MODELS["native"].predicted_bytes(request.call, request.memory)
    ratio = predicted / compiled.peak_bytes
    return [
        BenchmarkFigure("peak memory as predicted", "GB", [predicted / 1e9]),
        BenchmarkFigure("predicted / XLA's, peak memory", "times", [ratio], goal="0.9 to 1.1"),
    ]


def _compiled(request: Request) -> Compiled:
    command = [sys.executable, "-m", "graphcast_batch.bench.compile_process", json.dumps(asdict(request))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(
            f"XLA must compile the step for {ACCELERATORS[request.target].title}, but the process that compiles it "
            f"ended with code {done.returncode}:\n{done.stderr.strip()[-2000:]}"
        )
    answer = json.loads(done.stdout)
    if answer["refusal"]:
        raise PackageError(answer["refusal"])
    if answer["fault"]:
        first = " ".join(answer["fault"].splitlines()[:2])
        raise BenchError(
            f"XLA must compile the step for {ACCELERATORS[request.target].title}, but does not: {first[:500]}; where "
            "it lacks memory, take --memory lean or fewer steps"
        )
    return Compiled(**{**answer, "kernels": [Kernel(**kernel) for kernel in answer["kernels"]]})


def _costliest(seconds: Sequence[tuple[float, Kernel]], steps: int) -> Sequence[BenchmarkFigure]:
    """Return the least times of the costliest kernels."""
    return [
        BenchmarkFigure(
            f"{kernel.name} of {kernel.place or 'no line'}, {kernel.runs / steps:.4g} times "
            f"{(kernel.read + kernel.written) / 1e6:.4g} MB and {kernel.operations / 1e9:.3g} GFLOP",
            "ms",
            [least / steps * 1e3],
        )
        for least, kernel in sorted(seconds, key=lambda pair: pair[0], reverse=True)[:_COSTLIEST]
    ]
