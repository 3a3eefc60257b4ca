"""A size of the network becomes seconds a step of ours and of DeepMind's package, beside the machine's matrix product.

Each contestant is a process of its own, so that its memory is its own too, and does one rollout whenever it is asked;
they are asked in turn, so that whatever else the machine does meets all of them alike. Weights and fields are noise:
no speed depends on them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult, machine
from graphcast_batch.config.model_section import Implementation
from graphcast_batch.errors import BenchError, PackageError
from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.checkpoint import Checkpoint
from graphcast_batch.models.graphcast.device_memory import ALLOCATION
from graphcast_batch.models.graphcast.forecaster import Forecaster, Precision
from graphcast_batch.models.graphcast.parameters import random_parameters
from graphcast_batch.models.graphs import Graphs, build_graphs
from graphcast_batch.pipeline import Model, peak_memory_bytes
from graphcast_batch.spec import TASKS, Architecture

SizeName = Literal["tiny", "small", "operational"]
_Role = Literal["native", "deepmind", "product"]
_CHAIN: Final = 16
"""Matrix products one after the other in a call of the compiled program."""
_ROWS, _MANY_ROWS = 2**13, 2**17
"""Of the left matrix, on a CPU and on an accelerator, which fewer would leave idle."""
_PRODUCT_SECONDS: Final = 0.5
"""How long a measurement of the product takes at least."""


@dataclass(frozen=True)
class Size:
    """What is forecast, and by what.

    Attributes:
        architecture: of the network.
        task: name of a published one.
        resolution: of the grid, degrees.
    """

    architecture: Architecture
    task: str
    resolution: float

    @property
    def grid(self) -> Grid:
        """With both poles, as the published ones."""
        return regular_grid(self.resolution)

    @property
    def channels(self) -> Channels:
        """Of the task."""
        return Channels.of(TASKS[self.task], {})


SIZES: Final[Mapping[SizeName, Size]] = MappingProxyType(
    {
        "tiny": Size(Architecture(mesh_size=3, latent_size=64, gnn_msg_steps=4), "GraphCast_small", 5.0),
        "small": Size(Architecture(mesh_size=5, latent_size=512, gnn_msg_steps=16), "GraphCast_small", 1.0),
        "operational": Size(
            Architecture(mesh_size=6, latent_size=512, gnn_msg_steps=16), "GraphCast_operational", 0.25
        ),
    }
)
"""The last two are published (Lam et al. 2023)."""


def measure(
    size: SizeName,
    precision: Precision,
    steps: int,
    rounds: int,
    python: Path | None = None,
    against: Literal["deepmind", "none"] = "deepmind",
) -> BenchmarkResult:
    """Times our network and DeepMind's package in turn, one step a call, frames on the host.

    Args:
        size: of network and grid.
        precision: of the network.
        steps: of each rollout.
        rounds: how often each is measured, after a rollout that compiles.
        python: interpreter that DeepMind's package is installed for, beside this one; without it the running one.
        against: whether there is a contestant at all.

    Returns:
        Seconds a step of each, their ratio, what each achieves of the arithmetic that the network needs and of the
        rate of the machine's matrix product; seconds to the first frame, most memory, and how far frames differ. Only
        our part of it where DeepMind's package cannot be used, with the reason among the settings.

    Raises:
        BenchError: a contestant's process ended early.
    """
    roles: dict[_Role, str] = {"deepmind": str(python or sys.executable)} if against == "deepmind" else {}
    roles |= {"native": sys.executable, "product": sys.executable}
    with TemporaryDirectory() as place, ExitStack() as stack:
        teams, refusal = {}, ""
        for role, interpreter in roles.items():
            words = (role, size, precision, str(steps), f"{place}/{role}.npz")
            try:
                teams[role] = stack.enter_context(closing(_Contestant(interpreter, words)))
            except PackageError as error:
                refusal = str(error)
        answers = _in_turn(teams, rounds)
        apart = _largest_differences(Path(place)) if "deepmind" in teams else {}
    first = {role: team.first for role, team in teams.items()}
    device = first["native"].device
    command = f"graphcast-batch bench model --size {size} --precision {precision} --steps {steps} --rounds {rounds}"
    return BenchmarkResult(
        bench=f"model-{size}-{precision}",
        what=f"the network at the size {size}: seconds a step, beside {first['deepmind'].what if apart else 'nothing'}",
        command=command if apart else f"{command} --against none",
        figures=[
            *_figures(SIZES[size], steps, first, answers),
            *(BenchmarkFigure(f"largest difference, {when}", "diffs_stddev", [most]) for when, most in apart.items()),
        ],
        settings={
            "size": size,
            "precision": precision,
            "steps": steps,
            "against": first["deepmind"].what if apart else refusal or "none",
        },
        machine=machine(None if device == "cpu" else device),
    )


def operations(architecture: Architecture, inputs: int, outputs: int, graphs: Graphs) -> int:
    """Floating point operations of the matrix products that one step needs, each as two for every multiplication.

    That is after exact algebra: a linear layer of a concatenation is the sum of one for each part, so nodes are
    projected before their values are gathered along edges; and what depends on weights and graphs alone (embedded
    edges and mesh nodes, with all that is linear in them, and structural features) is computed once for all steps.
    Activation, normalisation, sums over edges and whatever moves data count nothing.

    Args:
        architecture: sizes of the network.
        inputs: values at a grid point that go in, without the structural features.
        outputs: values at a grid point that come out.
        graphs: that messages run along.
    """
    latent, hidden = architecture.latent_size, architecture.hidden_layers
    points, nodes = len(graphs.grid_nodes), len(graphs.mesh_nodes)
    to_mesh, along, to_grid = len(graphs.grid2mesh.senders), len(graphs.mesh.senders), 3 * points
    square = latent * latent
    inner = hidden * square
    """Of the layers after the first, for each row."""

    embedded = points * (inputs * latent + inner)
    encoder = points * square + to_mesh * inner + nodes * (square + inner) + points * (square + inner)
    message = nodes * 2 * square + along * inner
    update = nodes * (2 * square + inner)
    processor = architecture.gnn_msg_steps * (message + update) + (architecture.gnn_msg_steps - 1) * along * square
    decoder = (nodes + points) * square + to_grid * inner + points * (2 * square + inner)
    widths = [latent] * (hidden + 1) + [outputs]
    out = points * sum(above * below for above, below in pairwise(widths))
    return 2 * (embedded + encoder + processor + decoder + out)


@dataclass(frozen=True)
class _Answer:
    """What a contestant says when it is ready, and after each round.

    Attributes:
        seconds: until the first frame was there, graphs and compiling included; then of a rollout, or of 10**9
            operations of a matrix product.
        host_bytes: most memory of its process so far.
        device_bytes: most memory on its device so far; 0 where that is the host, or does not tell.
        device: kind of its device.
        what: it is.
        refusal: why it cannot take part, if so.
    """

    seconds: float = 0.0
    host_bytes: int = 0
    device_bytes: int = 0
    device: str = ""
    what: str = ""
    refusal: str = ""


class _Contestant:
    """A process that measures one thing whenever it is asked."""

    def __init__(self, python: str, words: tuple[str, ...]) -> None:
        """Waits until it is ready.

        Raises:
            PackageError: it cannot take part.
            BenchError: it ended.
        """
        # Several share a device, and what one has reserved would not tell what it needs.
        environment = os.environ | ALLOCATION | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        command = [python, "-m", "graphcast_batch.bench.step_speed", *words]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._role = words[0]
        self.first = self._heard()
        if self.first.refusal:
            self.close()
            raise PackageError(self.first.refusal)

    def close(self) -> None:
        """The end of its input is the end of its work."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ask(self) -> _Answer:
        """One more measurement."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended, as is found when it is to be heard
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> _Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise BenchError(
                f"the process that measures {self._role} must answer, but ended with code {self._process.returncode}; "
                "see what it wrote"
            )
        return _Answer(**json.loads(line))


def _in_turn(teams: Mapping[_Role, _Contestant], rounds: int) -> dict[_Role, list[_Answer]]:
    """Each one's answers; who is asked first changes from round to round."""
    answers: dict[_Role, list[_Answer]] = {role: [] for role in teams}
    for number in range(rounds):
        for role in list(teams)[:: 1 if number % 2 == 0 else -1]:
            answers[role].append(teams[role].ask())
    return answers


def _figures(
    size: Size, steps: int, first: Mapping[_Role, _Answer], answers: Mapping[_Role, list[_Answer]]
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
    """Of the contestants' first and last frames, by their lead time."""
    with np.load(place / "native.npz") as ours, np.load(place / "deepmind.npz") as theirs:
        return {lead: float(np.abs(ours[lead] - theirs[lead]).max()) for lead in ours.files}


def _take_part(role: _Role, size: SizeName, precision: Precision, steps: int, frames: Path) -> None:
    """Answers once when ready, and then whenever a line is read; in a process of its own."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    if role == "product":
        work = _products(SIZES[size].architecture.latent_size, precision)
    else:
        work = _rollouts(role, SIZES[size], precision, steps, frames)
    try:
        for answer in work:
            print(json.dumps(asdict(answer)), file=answers, flush=True)
            if not sys.stdin.readline():
                return
    except PackageError as error:
        print(json.dumps(asdict(_Answer(refusal=str(error)))), file=answers, flush=True)


def _rollouts(
    implementation: Implementation, size: Size, precision: Precision, steps: int, frames: Path
) -> Iterator[_Answer]:
    """Seconds to the first frame, then of each rollout; keeps the first and last frame of the first in a file."""
    checkpoint, inputs, statistics = _noise(size)
    start = perf_counter()
    forecaster, what = _built(implementation, (checkpoint, statistics, size.grid, size.channels, precision))
    del checkpoint  # as in a worker, which keeps no second copy of the weights
    kept: dict[str, Any] = {}
    first_seconds = 0.0
    for number, fields in enumerate(_on_host(forecaster, inputs, steps), start=1):
        first_seconds = first_seconds or perf_counter() - start
        if number in (1, steps):
            kept[f"{size.channels.step_hours * number} h"] = np.concatenate(
                [fields[name].ravel() for name in sorted(fields)]
            )
    np.savez(frames, **kept)
    yield _answer(first_seconds, what)
    while True:
        start = perf_counter()
        for _ in _on_host(forecaster, inputs, steps):
            pass
        yield _answer(perf_counter() - start, what)


def _built(implementation: Implementation, parts: tuple[Any, ...]) -> tuple[Model, str]:
    if implementation == "native":
        return Forecaster(*parts), "ours"
    from graphcast_batch.models.deepmind import DeepmindForecaster, installed_package

    return DeepmindForecaster(*parts), str(installed_package())


def _on_host(forecaster: Model, inputs: xr.Dataset, steps: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Frames one by one, each fetched while the next is computed, as a run does it."""
    before: Mapping[str, Any] | None = None
    for frames in forecaster.forecast(inputs, xr.Dataset(), steps):
        if before is not None:
            yield {name: np.asarray(values) for name, values in before.items()}
        before = frames
    assert before is not None
    yield {name: np.asarray(values) for name, values in before.items()}


def _noise(size: Size) -> tuple[Checkpoint, xr.Dataset, dict[str, xr.Dataset]]:
    """Random weights and inputs, and statistics in whose units the inputs are."""
    task, channels, grid = TASKS[size.task], size.channels, size.grid
    draw = np.random.default_rng(0)
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(task.input_frames) * task.step
    sizes = {"time": times.size, "level": len(channels.levels), "latitude": grid.shape[0], "longitude": grid.shape[1]}

    def field(name: str) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        absent = {*(("time",) if name in channels.static else ()), *(() if name in channels.on_levels else ("level",))}
        dims = tuple(dim for dim in sizes if dim not in absent)
        return dims, draw.standard_normal([sizes[dim] for dim in dims], np.float32)

    place = {"latitude": grid.latitude, "longitude": grid.longitude}
    inputs = xr.Dataset(
        {name: field(name) for name in channels.carried + channels.static},
        coords={"time": times, "level": list(channels.levels), **place},
    )

    def constant(name: str, value: float) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        levelled = name in channels.on_levels
        return ("level",) if levelled else (), np.full(sizes["level"] if levelled else (), value, np.float32)

    scales = {"mean": 0.0, "stddev": 1.0, "diffs_stddev": 1.0}
    names = {*task.input_variables, *task.target_variables, *task.forcing_variables}
    statistics = {
        kind: xr.Dataset({name: constant(name, value) for name in names}, coords={"level": list(channels.levels)})
        for kind, value in scales.items()
    }
    statistics["stddev"]["toa_incident_solar_radiation"] *= 1e6  # J m**-2, the only one that is no noise
    parameters = random_parameters(size.architecture, channels.inputs, channels.outputs, seed=0)
    return Checkpoint(parameters, size.architecture, task), inputs, statistics


def _products(width: int, precision: Precision) -> Iterator[_Answer]:
    """Seconds of 10**9 operations in products of (rows, width) and (width, width) matrices."""
    rows = _ROWS if jax.default_backend() == "cpu" else _MANY_ROWS
    draw = np.random.default_rng(0)
    left = jnp.asarray(draw.standard_normal((rows, width)), precision)
    right = jnp.asarray(draw.standard_normal((width, width)) / np.sqrt(width), precision)

    @jax.jit
    def chain(left: Array, right: Array) -> Array:
        product: Array = jax.lax.fori_loop(0, _CHAIN, lambda _, product: product @ right, left)
        return product

    what = f"({rows}, {width}) x ({width}, {width})"
    chain(left, right).block_until_ready()
    yield _answer(0.0, what)
    while True:
        done, start = 0, perf_counter()
        while perf_counter() - start < _PRODUCT_SECONDS:
            chain(left, right).block_until_ready()
            done += 2 * rows * width * width * _CHAIN
        yield _answer((perf_counter() - start) / done * 1e9, what)


def _answer(seconds: float, what: str) -> _Answer:
    device = jax.local_devices()[0]
    held = device.memory_stats() or {}
    return _Answer(seconds, peak_memory_bytes(), held.get("peak_bytes_in_use", 0), str(device.device_kind), what)


if __name__ == "__main__":
    _who = cast(tuple[_Role, SizeName, Precision], tuple(sys.argv[1:4]))
    _take_part(*_who, steps=int(sys.argv[4]), frames=Path(sys.argv[5]))
