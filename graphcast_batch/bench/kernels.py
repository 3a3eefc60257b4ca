"""Count what each kernel of an optimized program moves and computes, and how often it runs.

XLA's own cost analysis tells nothing of a program for a GPU, and counts the body of a loop once. Counted here are the
bytes that a kernel reads and writes in the device's main memory, where of an array that it slices, gathers from or
updates in place only the part that it touches, and the floating point operations of matrix products.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from graphcast_batch.bench.program_text import Computation, Instruction, ProgramText

_FREE: Final = frozenset(
    {
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "iota"),
        *("partition-id", "replica-id", "copy-done", "async-done", "slice-done"),
    }
)
"""Operations that take no time: they name what is there, or wait for what was begun."""
_RUNNING: Final = frozenset({"while", "call", "conditional"})
"""Operations that run the kernels of other computations."""
_PARTIAL: Final = frozenset({"dynamic-slice", "gather", "slice"})
"""Operations that read a part of their first operand, as large as their result."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a program.

    Attributes:
        name: of its instruction.
        runs: how often it runs in one call of the program.
        read: bytes that one run reads.
        written: bytes that one run writes.
        operations: floating point operations of matrix products in one run, each multiplication counted as two.
        place: ``file:line`` of the code that it comes from; empty if the program does not tell.
    """

    name: str
    runs: int
    read: int
    written: int
    operations: int
    place: str

    def seconds(self, bandwidth: float, rate: float) -> float:
        """Return the least seconds of all its runs.

        Args:
            bandwidth: of the device's memory, bytes a second.
            rate: of the device's matrix products, floating point operations a second.
        """
        return self.runs * max((self.read + self.written) / bandwidth, self.operations / rate)


def kernels(program: ProgramText) -> list[Kernel]:
    """Return all kernels that a call of a program runs."""
    count = _Counts(program)

    def kernel(each: Instruction, computation: Computation, runs: int) -> Kernel:
        read, written = count.moved(each, computation)
        return Kernel(each.name, runs, read, written, count.operations(each, computation), program.place(each))

    return [kernel(*found) for found in _running(program, program.entry, 1)]


def unknown_loops(program: ProgramText) -> int:
    """Return the number of loops of which the program does not tell how often they run; `kernels` counts them once."""
    loops = [each for found in program.computations.values() for each in found.values() if each.opcode == "while"]
    return sum(program.trips(loop) is None for loop in loops)


def _running(program: ProgramText, name: str, runs: int) -> Iterator[tuple[Instruction, Computation, int]]:
    """Yield each instruction that is a kernel, with its computation and how often it runs."""
    computation = program.computations[name]
    for instruction in computation.values():
        if instruction.opcode in _RUNNING:
            if instruction.called:
                trips = program.trips(instruction) if instruction.opcode == "while" else 1
                yield from _running(program, instruction.called, runs * (trips or 1))
        elif instruction.opcode not in _FREE:
            yield instruction, computation, runs


class _Counts:
    """Bytes and operations of instructions, looking into the computations that they fuse."""

    def __init__(self, program: ProgramText) -> None:
        self._program = program
        self._read = cache(self._read_uncached)

    def moved(self, kernel: Instruction, computation: Computation) -> tuple[int, int]:
        """Return the bytes that one run of a kernel reads and writes."""
        if kernel.opcode == "fusion":
            inner = self._program.computations[kernel.called]
            sources = [each.name for each in inner.values() if each.opcode == "parameter"]
            return sum(self._read(kernel.called, name) for name in sources), self._written(inner)
        known = {name: each for name, each in computation.items() if name in kernel.operands}
        if kernel.opcode.endswith("-start"):  # the result holds the source as well
            return sum(each.bytes for each in known.values()), kernel.arrays[0].bytes
        alone = Instruction(kernel.name, kernel.opcode, kernel.arrays, kernel.operands, kernel.text, is_root=True)
        read = sum(self._used(source, [alone], known) for source in known.values())
        return read, _changed(alone, known)

    def operations(self, instruction: Instruction, computation: Computation) -> int:
        """Return the floating point operations of the matrix products in an instruction."""
        if instruction.opcode in ("fusion", "call"):
            inner = self._program.computations[instruction.called]
            return sum(self.operations(each, inner) for each in inner.values())
        return _operations_of_product(instruction, computation)

    def _read_uncached(self, computation: str, name: str) -> int:
        """Return the bytes that a computation reads of the result of one of its instructions."""
        inner = self._program.computations[computation]
        source = inner[name]
        if source.is_root:
            return source.bytes
        return self._used(source, [each for each in inner.values() if name in each.operands], inner, computation)

    def _used(self, source: Instruction, users: list[Instruction], known: Computation, computation: str = "") -> int:
        used = sum(self._used_by(user, source, known, computation) for user in users)
        return min(source.bytes, used)

    def _used_by(self, user: Instruction, source: Instruction, known: Computation, computation: str) -> int:
        first = user.operands[:1] == (source.name,)
        if user.opcode in _PARTIAL and first:
            return user.count * source.bytes // max(1, source.count)
        if user.opcode == "dynamic-update-slice" and first:
            return 0
        if user.opcode == "scatter" and first:
            return _changed(user, known)
        if user.opcode == "fusion" and computation:
            inner = list(self._program.computations[user.called].values())
            places = [place for place, name in enumerate(user.operands) if name == source.name]
            taken = [each.name for each in inner if each.opcode == "parameter" and _place(each) in places]
            return sum(self._read(user.called, name) for name in taken)
        # Number by number, in another order or beside others: what is read of the result is read of the source.
        if computation and (user.count == source.count or user.opcode == "concatenate"):
            return self._read(computation, user.name) * source.bytes // max(1, user.bytes)
        return source.bytes

    def _written(self, computation: Computation) -> int:
        return sum(_changed(each, computation) for each in computation.values() if each.is_root)


def _changed(root: Instruction, known: Computation) -> int:
    """Return the bytes that are written for a result, parts of which may be updated in place."""
    if root.opcode in ("tuple", "bitcast", "reshape", "get-tuple-element"):
        sources = [known[name] for name in root.operands if name in known]
        return min(root.bytes, sum(_changed(each, known) for each in sources)) if sources else root.bytes
    if root.opcode == "dynamic-update-slice":
        update = known.get(root.operands[1])
        return min(root.bytes, update.bytes) if update else root.bytes
    if root.opcode == "scatter":
        updates = [known[name].bytes for name in root.operands[2:] if name in known]
        return min(root.bytes, sum(updates)) if updates else root.bytes
    return root.bytes


def _operations_of_product(instruction: Instruction, computation: Computation) -> int:
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    result = math.prod(instruction.arrays[0].sizes)
    left, right = (computation[name].arrays[0].sizes for name in instruction.operands[:2])
    if instruction.opcode == "dot":
        return 2 * result * math.prod(left[axis] for axis in instruction.axes("lhs_contracting_dims"))
    labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.text)  # for a TPU products are convolutions
    return 2 * result * math.prod(right) // right[labels[1].index("o")] if labels else 0


def _place(parameter: Instruction) -> int:
    found = re.search(r"parameter\((\d+)\)", parameter.text)
    return int(found[1]) if found else -1
