"""Reads from a compiled program what its devices send to each other.

XLA's cost analysis counts FLOPs and memory traffic and leaves communication out, so the optimised
HLO text is read: one instruction a line, each with the shapes of its result and the groups of
devices that take part. A device sends, by the ring algorithms that both NCCL and TPUs use,

    all-reduce          2 (n-1)/n x result        all-to-all          (n-1)/n x result
    all-gather            (n-1)/n x result        reduce-scatter      (n-1) x result
    collective-permute    the result, once

bytes, n being the size of the group. The CPU backend sends bfloat16 as float32; what was bfloat16
before is counted as two bytes. An all-reduce of which every device keeps its own slice alone is
counted as a reduce-scatter: the backends of GPU and TPU rewrite it so, the one of the CPU does not.
Instructions in a loop are counted once.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
          "u64": 8, "f64": 8}  # fmt: skip
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) \(.*\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?P<root>ROOT )?%(?P<name>\S+) = (?P<result>\(.*?\)|\S+) (?P<kind>[\w-]+)"
    r"\((?P<operands>.*?)\)(?:, (?P<rest>.*))?$"
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_PASSED_ON = ("bitcast", "copy", "transpose", "reshape", "convert")


@dataclass(frozen=True)
class Collective:
    """What one device takes part in, for one array.

    Attributes:
      kind: one of KINDS.
      bytes: of the result on one device, before the CPU widened its elements.
      group: the devices that take part together with device 0; of a permutation, one pair.
      source: what it was made for, as JAX names it.
    """

    kind: str
    bytes: float
    group: tuple[int, ...]
    source: str

    @property
    def sent(self) -> float:
        """Bytes that one device sends."""
        size = len(self.group)
        share = (size - 1) / size
        factor = {
            "all-reduce": 2 * share,
            "all-gather": share,
            "all-to-all": share,
            "reduce-scatter": size - 1,
            "collective-permute": 1,
        }
        return factor[self.kind] * self.bytes


@dataclass
class _Instruction:
    kind: str
    result: list[tuple[str, int]]  # dtype and number of elements of each array
    operands: list[str]
    rest: str
    computation: str
    users: list[str] = field(default_factory=list)

    @property
    def called(self) -> str:
        """The computation that a fusion computes, "" for other instructions."""
        found = re.search(r"calls=%([^\s,]+)", self.rest) if self.kind == "fusion" else None
        return found[1] if found else ""


@dataclass
class _Program:
    """A compiled program: names of instructions are unique in it, and so is a fusion's caller."""

    instructions: dict[str, _Instruction] = field(default_factory=dict)
    parameters: dict[tuple[str, int], str] = field(default_factory=dict)  # computation, place
    roots: dict[str, str] = field(default_factory=dict)  # computation -> instruction
    callers: dict[str, str] = field(default_factory=dict)  # computation -> fusion

    def readers(self, name: str, element: int | None = None) -> Iterator[str | None]:
        """Yields what reads an array, seen through tuples and the borders of fusions.

        The program's result is a reader too: None.
        """
        for user in self.instructions[name].users:
            instruction = self.instructions[user]
            if instruction.kind == "get-tuple-element" and element is not None:
                if f"index={element}," in f"{instruction.rest},":
                    yield from self.readers(user)
            elif called := instruction.called:
                for place, operand in enumerate(instruction.operands):
                    if operand == name:
                        yield from self.readers(self.parameters[called, place])
            else:
                yield user
        computation = self.instructions[name].computation
        if name == self.roots[computation]:
            caller = self.callers.get(computation)
            yield from self.readers(caller) if caller else (None,)

    def only_sliced(self, readers: Iterable[str | None], most: int) -> bool:
        """Returns whether nothing but slices of at most so many elements is ever read."""
        readers = list(readers)
        for reader in readers:
            if reader is None:
                return False
            instruction = self.instructions[reader]
            if instruction.kind == "dynamic-slice":
                if instruction.result[0][1] > most:
                    return False
            elif instruction.kind not in _PASSED_ON or not self.only_sliced(
                self.readers(reader), most
            ):
                return False
        return bool(readers)

    def narrowed(self, reader: str | None) -> bool:
        """Returns whether a reader begins by rounding to bfloat16."""
        if reader is None:
            return False
        instruction = self.instructions[reader]
        return instruction.kind == "convert" and instruction.result[0][0] == "bf16"

    def was_narrow(self, name: str) -> bool:
        """Returns whether an array was converted from bfloat16 just before it is sent."""
        instruction = self.instructions[name]
        if called := instruction.called:
            return self.was_narrow(self.roots[called])
        if instruction.kind == "convert":
            return self.instructions[instruction.operands[0]].result[0][0] == "bf16"
        return instruction.kind in _PASSED_ON and self.was_narrow(instruction.operands[0])


def collectives(hlo: str) -> list[Collective]:
    """Returns the communication of a compiled program, one entry for each array.

    Args:
      hlo: of one device, after optimisation for the CPU: ``compiled.as_text()``.
    """
    program = _parse(hlo)
    return [
        one
        for name, instruction in program.instructions.items()
        if instruction.kind in KINDS and len(group := _group(instruction.rest)) > 1
        for one in _arrays_sent(program, name, group)
    ]


def _arrays_sent(program: _Program, name: str, group: tuple[int, ...]) -> Iterator[Collective]:
    instruction = program.instructions[name]
    source = re.search(r'op_name="([^"]*)"', instruction.rest)
    for index, (dtype, elements) in enumerate(instruction.result):
        kind, size = instruction.kind, float(elements * _BYTES[dtype])
        widened = program.was_narrow(instruction.operands[index])
        if kind == "all-reduce":
            element = None if len(instruction.result) == 1 else index
            readers = list(program.readers(name, element))
            # Arrays of one instruction need not have been alike before it was widened.
            rounded = bool(readers) and all(map(program.narrowed, readers))
            widened = ("promoted" in instruction.rest and widened) or rounded
            part = elements // len(group)
            if part and program.only_sliced(readers, part):
                kind, size = "reduce-scatter", size / len(group)
        size = size / 2 if widened and dtype == "f32" else size
        yield Collective(kind, size, group, source[1] if source else "")


def _parse(hlo: str) -> _Program:
    program, computation = _Program(), ""
    for line in hlo.splitlines():
        if opened := _COMPUTATION.match(line):
            computation = opened[1]
        elif match := _INSTRUCTION.match(line):
            name, rest = match["name"], match["rest"] or ""
            if name in program.instructions:
                raise ValueError(f"two instructions are named {name}, which is not read.")
            result = [
                (dtype, math.prod(int(side) for side in sides.split(",") if side))
                for dtype, sides in _ARRAY.findall(match["result"])
            ]
            if match["kind"] == "parameter":
                program.parameters[computation, int(match["operands"])] = name
            operands = re.findall(r"%([^\s,)]+)", match["operands"])
            found = _Instruction(match["kind"], result, operands, rest, computation)
            program.instructions[name] = found
            if found.called:
                program.callers[found.called] = name
            if match["root"]:
                program.roots[computation] = name
    for name, instruction in program.instructions.items():
        for operand in set(instruction.operands):
            program.instructions[operand].users.append(name)
    return program


def _group(text: str) -> tuple[int, ...]:
    """Returns the devices of the first group: named mesh axes, a rearranged range, or a list."""
    arranged = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if mesh := re.search(
        rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({arranged}\))? \{{([^}}]*)\}}", text
    ):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        named = re.findall(r"'([^']+)'", mesh[4])
        if "':" in mesh[4]:
            raise ValueError(f"these groups take part of an axis, which is not read: {mesh[0]}")
        devices = _arranged(mesh[2] or str(np.prod(list(sizes.values()))), mesh[3])
        devices = devices.reshape(tuple(sizes.values()))
        others = tuple(slice(None) if name in named else 0 for name in sizes)
        return tuple(int(device) for device in np.sort(devices[others].ravel()))
    if iota := re.search(rf"replica_groups=\[([\d,]+)\]<={arranged}", text):
        groups = _arranged(iota[2], iota[3]).reshape([int(side) for side in iota[1].split(",")])
        return tuple(int(device) for device in groups[0])
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", text):
        for pair in re.findall(r"(\d+),(\d+)", pairs[1]):
            if pair[0] != pair[1]:
                return int(pair[0]), int(pair[1])
        return ()
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return tuple(int(device) for device in listed[1].split(","))
    raise ValueError(f"no device groups in: {text[:200]}")


def _arranged(sides: str, order: str | None) -> np.ndarray:
    """Returns device numbers as a block of these sides, its axes then put into this order."""
    shape = [int(side) for side in sides.split(",")]
    devices = np.arange(np.prod(shape)).reshape(shape)
    return devices.transpose([int(axis) for axis in order.split(",")] if order else None)
