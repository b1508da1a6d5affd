"""Reads what cuobjdump prints: functions, instructions, loops, resources."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FUNCTION = re.compile(r"^\s*Function : (\S+)", re.MULTILINE)
# /*0050*/   @!P0 BRA 0xae0 ;   /* 0x0000000800a08947 */
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);", re.MULTILINE)
_TARGET = re.compile(r"(?:^|[\s,])0x([0-9a-f]+)\s*$")
_RESOURCES = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)")


@dataclass(frozen=True)
class Instruction:
    """One line of the listing."""

    address: int
    name: str
    """With its suffixes: ``LDS.128``."""
    target: int | None
    """Where a branch goes."""
    conditional: bool

    @property
    def kind(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Loop:
    """The addresses from a branch's target to the branch that goes back to it, both included."""

    first: int
    last: int
    length: int
    """Instructions."""


@dataclass(frozen=True)
class Resources:
    """What a function asks for, without what a launch adds."""

    registers: int
    """Of a thread."""
    stack_bytes: int
    shared_bytes: int


def functions(listing: str) -> dict[str, list[Instruction]]:
    """Every function of a listing and its instructions, in order."""
    starts = list(_FUNCTION.finditer(listing))
    ends = [match.start() for match in starts[1:]] + [len(listing)]
    return {
        match[1]: [_instruction(line) for line in _INSTRUCTION.finditer(listing, match.end(), end)]
        for match, end in zip(starts, ends, strict=True)
    }


def _instruction(line: re.Match[str]) -> Instruction:
    address, predicate, name, operands = line.groups()
    target = _TARGET.search(operands) if name.startswith("BRA") else None
    # `BRA.U UP0, 0x40` and `BRA P1, 0x40` name their predicate among the operands.
    conditional = predicate is not None or "P" in operands.partition("0x")[0]
    return Instruction(int(address, 16), name, int(target[1], 16) if target else None, conditional)


def reachable(instructions: Sequence[Instruction]) -> list[Instruction]:
    """Those that can run without a call: no padding, and no slow path of a division (it lies behind a call)."""
    index = {instruction.address: position for position, instruction in enumerate(instructions)}
    seen: set[int] = set()
    waiting = [0] if instructions else []
    while waiting:
        position = waiting.pop()
        if position in seen or position >= len(instructions):
            continue
        seen.add(position)
        instruction = instructions[position]
        if instruction.target is not None and instruction.target in index:
            waiting.append(index[instruction.target])
        if instruction.conditional or instruction.kind not in ("BRA", "EXIT", "RET"):
            waiting.append(position + 1)
    return [instructions[position] for position in sorted(seen)]


def loops(instructions: Sequence[Instruction]) -> list[Loop]:
    """In the order in which they begin. Branches back to one place make one loop."""
    ends: dict[int, int] = {}
    for instruction in instructions:
        target = instruction.target
        if target is not None and target < instruction.address:
            ends[target] = max(instruction.address, ends.get(target, 0))
    return [
        Loop(first, last, sum(first <= instruction.address <= last for instruction in instructions))
        for first, last in sorted(ends.items())
    ]


def executed(instructions: Sequence[Instruction], turns: Sequence[float]) -> Mapping[str, float]:
    """How often a thread runs each kind of instruction, by name.

    Code outside loops counts once, a loop's body as often as ``turns`` says. Where code is branched over, it is counted
    as if it were not.
    """
    found = loops(instructions)
    times = [*turns, *[1.0] * len(found)]
    total: dict[str, float] = {}
    for instruction in instructions:
        weight = 1.0
        for loop, repeated in zip(found, times, strict=False):
            if loop.first <= instruction.address <= loop.last:
                weight *= repeated
        total[instruction.name] = total.get(instruction.name, 0.0) + weight
    return total


def resources(listing: str) -> dict[str, Resources]:
    """What each function of a ``--dump-resource-usage`` listing asks for."""
    return {
        name: Resources(int(registers), int(stack), int(shared))
        for name, registers, stack, shared in _RESOURCES.findall(listing)
    }
