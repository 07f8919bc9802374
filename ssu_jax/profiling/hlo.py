"""What a compiled program sends between chips, read from its HLO text.

Every collective counts as often as it is run: loops by the trip count that the compiler notes on them, once where it
notes none. Bytes are those of the result on one chip, so that figures of different meshes compare.
"""

import collections
import re
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
               "collective-broadcast")  # fmt: skip
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([a-z][\w-]*)\((.*)$")
_SHAPE = re.compile(r"\b(pred|token|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLS = re.compile(
    r"(body|calls|to_apply|condition|branch_computations|called_computations)=(?:\{([^}]*)\}|%?([\w.-]+))"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Collective(NamedTuple):
    """How often a kind of collective is run, and the bytes of its results on one chip."""

    count: int
    bytes: int


class _Computation(NamedTuple):
    own: list[tuple[str, int]]  # (kind, bytes) of each collective in it
    calls: list[tuple[str, int]]  # (computation, how often)


def collectives(text: str) -> dict[str, Collective]:
    """By kind, the most bytes first. `text` is that of `compiled.as_text()`."""
    computations, entry = _parsed(text)
    times: collections.Counter = collections.Counter({entry: 1})
    for name in _callers_first(computations, entry):
        for called, trips in computations[name].calls:
            times[called] += times[name] * trips
    counts, sizes = collections.Counter(), collections.Counter()
    for name, computation in computations.items():
        for kind, size in computation.own:
            counts[kind] += times[name]
            sizes[kind] += times[name] * size
    return {kind: Collective(counts[kind], sizes[kind]) for kind, _ in sizes.most_common() if counts[kind]}


def size_of(shape: str) -> int:
    """Bytes of a shape as HLO writes it, `bf16[8,128]{1,0}`; of a tuple, all its parts together."""
    return sum(_sizes(shape))


def _sizes(shape: str) -> list[int]:
    found = []
    for kind, dims in _SHAPE.findall(shape):
        bits = _BITS.get(kind) if kind in _BITS else int(re.search(r"\d+", kind)[0])
        count = 1
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        found.append((count * bits + 7) // 8)
    return found


def _parsed(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    current, entry = _Computation([], []), ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations[header[2]] = _Computation([], [])
            entry = header[2] if header[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            shape, opcode, rest = instruction.groups()
            kind = opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                current.own.append((kind, _result_size(shape, is_start=opcode != kind)))
            current.calls.extend(_calls(rest))
    return computations, entry


def _result_size(shape: str, is_start: bool) -> int:
    """A start returns its operands beside its results, and both may be several: the larger half is the results."""
    sizes = _sizes(shape)
    if not is_start or len(sizes) < 2:
        return sum(sizes)
    half = len(sizes) // 2
    return max(sum(sizes[:half]), sum(sizes[half : 2 * half]))


def _calls(rest: str) -> list[tuple[str, int]]:
    trips = _TRIPS.search(rest)
    found = []
    for kind, several, one in _CALLS.findall(rest):
        names = [name.strip().lstrip("%") for name in several.split(",")] if several else [one]
        found += [(name, int(trips[1]) if kind == "body" and trips else 1) for name in names]
    return found


def _callers_first(computations: dict[str, _Computation], entry: str) -> list[str]:
    """The computations that `entry` reaches, each after all that call it."""
    order, done = [], set()
    stack = [(entry, False)]
    while stack:
        name, is_finished = stack.pop()
        if is_finished:
            order.append(name)
        elif name in computations and name not in done:
            done.add(name)
            stack.append((name, True))
            stack.extend((called, False) for called, _ in computations[name].calls)
    return order[::-1]
