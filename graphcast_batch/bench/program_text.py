"""Read the text in which XLA writes an optimized program: computations, their instructions and where they come from."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from graphcast_batch.errors import BenchError

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>\(.*?\)|\S+) (?P<opcode>[a-z][\w-]*)\(")
_HEADER = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.-]+) \(.*\) -> .* \{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(r"\b(?:calls|body|to_apply)=%([\w.-]+)")
_CONDITION = re.compile(r"condition=%([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r" [su]32\[\]\S* constant\((\d+)\)")
_TABLE_ROW = re.compile(r"^(\d+) (.*)$")
_COMMENT = re.compile(r"/\*.*?\*/")
_ON_CHIP: Final = re.compile(r"S\([1-9]\)")
"""Mark of an array that is kept in the fast memory of a TPU."""


@dataclass(frozen=True)
class ArrayType:
    """Type of an array.

    Attributes:
        kind: of its numbers, such as ``bf16``.
        sizes: of its dimensions.
        on_chip: whether it is in a fast memory of the device, and not in its main one.
    """

    kind: str
    sizes: tuple[int, ...]
    on_chip: bool

    @property
    def bytes(self) -> int:
        """Number of bytes in the device's main memory."""
        bits = 8 if self.kind == "pred" else int(re.findall(r"\d+", self.kind)[0])
        return 0 if self.on_chip else math.prod(self.sizes) * bits // 8


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation.

    Attributes:
        name: unique in the program.
        opcode: what it does, such as ``fusion`` or ``dot``.
        arrays: of its result.
        operands: names of the instructions whose results it takes.
        text: the whole line.
        is_root: whether its result is that of its computation.
    """

    name: str
    opcode: str
    arrays: tuple[ArrayType, ...]
    operands: tuple[str, ...]
    text: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Number of bytes of the result in the device's main memory."""
        return sum(array.bytes for array in self.arrays)

    @property
    def count(self) -> int:
        """Number of numbers of the result."""
        return sum(math.prod(array.sizes) for array in self.arrays)

    @property
    def called(self) -> str:
        """Name of the computation that it runs; empty if it runs none."""
        found = _CALLED.search(self.text)
        return found[1] if found else ""

    def axes(self, key: str) -> list[int]:
        """Return the list of axes that its text gives for a key."""
        found = re.search(rf"{key}=\{{([0-9,]*)\}}", self.text)
        return [int(axis) for axis in found[1].split(",")] if found and found[1] else []


Computation = Mapping[str, Instruction]
"""The instructions of a computation, by name, in their order."""


class ProgramText:
    """An optimized program.

    Attributes:
        computations: by name.
        entry: name of the computation that a call of the program runs.
    """

    def __init__(self, text: str) -> None:
        """Read the text.

        Raises:
            BenchError: it is not the text of a program.
        """
        computations: dict[str, dict[str, Instruction]] = {}
        self._tables: dict[str, dict[int, str]] = {}
        self.entry = ""
        computation: dict[str, Instruction] = {}
        table: dict[int, str] = {}
        for line in text.splitlines():
            header, row = _HEADER.match(line), _TABLE_ROW.match(line)
            if header:
                computation = computations.setdefault(header["name"], {})
                self.entry = header["name"] if line.startswith("ENTRY") else self.entry
            elif row:
                table[int(row[1])] = row[2]
            elif line.isalpha():
                table = self._tables.setdefault(line, {})
            elif instruction := _instruction(line):
                computation[instruction.name] = instruction
        if not self.entry:
            raise BenchError("XLA's text of a program must have an entry, but has none: its notation has changed")
        self.computations: Mapping[str, Computation] = computations

    def trips(self, loop: Instruction) -> int | None:
        """Return how often the body of a loop runs: XLA says so, or it counts from 0 up to a constant; None if not."""
        known, condition = _TRIPS.search(loop.text), _CONDITION.search(loop.text)
        if known or condition is None:
            return int(known[1]) if known else None
        ends = (_CONSTANT.search(each.text) for each in self.computations[condition[1]].values())
        return max((int(end[1]) for end in ends if end), default=None)

    def place(self, instruction: Instruction) -> str:
        """Return ``file:line`` of the code that an instruction comes from; empty if the program does not tell."""
        direct = re.search(r'source_file="([^"]*)" source_line=(\d+)', instruction.text)
        if direct:
            return f"{_file_name(direct[1])}:{direct[2]}"
        frame = self._row("StackFrames", _number(instruction.text, "stack_frame_id"))
        location = self._row("FileLocations", _number(frame, "file_location_id"))
        path = self._row("FileNames", _number(location, "file_name_id")).strip('"')
        return f"{_file_name(path)}:{_number(location, 'line')}" if path else ""

    def _row(self, table: str, number: int) -> str:
        return self._tables.get(table, {}).get(number, "")


def _instruction(line: str) -> Instruction | None:
    line = _COMMENT.sub("", line)
    found = _INSTRUCTION.match(line)
    if not found:
        return None
    return Instruction(
        name=found["name"],
        opcode=found["opcode"],
        arrays=tuple(_arrays(found["type"])),
        operands=tuple(_NAME.findall(_arguments(line[found.end() :]))),
        text=line,
        is_root=line.lstrip().startswith("ROOT "),
    )


def _arguments(text: str) -> str:
    """Return the text up to the parenthesis that closes what is open at its start."""
    depth = 1
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[:place]
    return text


def _arrays(text: str) -> Iterator[ArrayType]:
    for kind, sizes, layout in _ARRAY.findall(text):
        shape = tuple(int(size) for size in sizes.split(",") if size)
        yield ArrayType(kind, shape, on_chip=bool(_ON_CHIP.search(layout)))


def _number(row: str, key: str) -> int:
    found = re.search(rf"\b{key}=(\d+)", row)
    return int(found[1]) if found else 0


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
