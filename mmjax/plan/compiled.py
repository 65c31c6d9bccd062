"""Costs of one run of a compiled program, read from its HLO text: collectives and cycles.

The text has the body of a loop once, and XLA's own cost analysis counts it once; here it counts as
often as it runs. Importable without jax.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(|\{).*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')

_GRID = re.compile(r'"grid":"(\d+)"')
_BODY = re.compile(r'"body":"([^"]*)"')

_COPIES = ("copy", "copy-start", "copy-done", "bitcast")

# Bytes that each of n chips in a ring sends, and bytes of the whole array, both as multiples of the
# operand. Source: Chan et al. 2007, "Collective communication: theory, practice, and experience",
# section 4.
COLLECTIVES = {
    "all-reduce": (lambda n: 2 * (n - 1) / n, lambda n: 1),
    "all-gather": (lambda n: n - 1, lambda n: n),
    "reduce-scatter": (lambda n: (n - 1) / n, lambda n: 1),
    "all-to-all": (lambda n: (n - 1) / n, lambda n: 1),
    "collective-permute": (lambda n: 1, lambda n: 1),
}


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one run, per chip.

    Attributes:
      count: how many run; payload: bytes of the whole arrays; sent: bytes that leave the chip in a
        ring.
    """

    count: int = 0
    payload: float = 0.0
    sent: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.count + other.count, self.payload + other.payload, self.sent + other.sent
        )

    def __mul__(self, times: int) -> "Traffic":
        return Traffic(self.count * times, self.payload * times, self.sent * times)


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of one run of a program, per chip.

    Attributes:
      cycles: the TPU compiler's estimate, summed; 0 where the text has none. Kernels (Pallas) have
        no estimate: they count the instructions (bundles) of their schedule times their grid.
      kernel_cycles: the part of `cycles` that is in kernels.
      collectives: kind -> traffic.
      unknown_loops: names of loops whose trip count is not in the text; they count once.
      unknown_kernels: names of kernels without a schedule or a grid; they count as 0.
    """

    cycles: int = 0
    collectives: dict[str, Traffic] = dataclasses.field(default_factory=dict)
    unknown_loops: tuple[str, ...] = ()
    kernel_cycles: int = 0
    unknown_kernels: tuple[str, ...] = ()

    def __add__(self, other: "Costs") -> "Costs":
        kinds = [*self.collectives, *(k for k in other.collectives if k not in self.collectives)]
        none = Traffic()
        return Costs(
            self.cycles + other.cycles,
            {k: self.collectives.get(k, none) + other.collectives.get(k, none) for k in kinds},
            self.unknown_loops + other.unknown_loops,
            self.kernel_cycles + other.kernel_cycles,
            self.unknown_kernels + other.unknown_kernels,
        )

    def __mul__(self, times: int) -> "Costs":
        traffic = {k: v * times for k, v in self.collectives.items()}
        return Costs(
            self.cycles * times,
            traffic,
            self.unknown_loops,
            self.kernel_cycles * times,
            self.unknown_kernels,
        )

    @property
    def sent(self) -> float:
        """Bytes that leave a chip, over all kinds."""
        return sum(t.sent for t in self.collectives.values())


class _Instruction(NamedTuple):
    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    rest: str  # all that comes after the opcode

    def called(self, attribute: str) -> list[str]:
        """Names of the computations in an attribute: one, or several in braces."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.rest)
        return re.findall(r"[\w.\-]+", found[1]) if found else []


def costs(text: str, bundles: Mapping[str, int] | None = None, cores: int = 1) -> Costs:
    """The costs of one run of a program.

    A loop's body counts as often as the loop runs; of a conditional, the branch that costs most.

    Args:
      text: `compiled.as_text()`.
      bundles: kernel -> bundles for one point of its grid, from `schedule`.
      cores: number of cores that share a kernel's grid.
    """
    entry, computations = parse(text)
    devices = 1
    for found in re.finditer(
        r"(?:num_partitions|replica_count)=(\d+)", text.lstrip().partition("\n")[0]
    ):
        devices *= int(found[1])
    kernels = {}  # kernels with the same body share a schedule, under the name of one of them
    for it in (it for scope in computations.values() for it in scope.values() if _is_kernel(it)):
        if bundles and it.name in bundles:
            kernels[_body(it)] = bundles[it.name]

    # A collective that is spread over several fusions, to overlap with their computation, appears
    # in each of them with the same channel, also in those of a loop. It counts in the last one, of
    # the outermost computation: the text lists called computations first.
    homes = {}
    for scope in computations.values():
        for it in scope.values():
            if it.opcode == "fusion":
                channels = _channels(computations[it.called("calls")[0]])
                homes |= dict.fromkeys(channels, it.name)

    @functools.cache
    def of(name: str) -> Costs:
        total = Costs()
        for instruction in computations[name].values():
            cost = one(instruction, computations[name])
            if instruction.opcode == "fusion" and cost.collectives:
                channels = _channels(computations[instruction.called("calls")[0]])
                if channels and all(homes[c] != instruction.name for c in channels):
                    cost = dataclasses.replace(cost, collectives={})
            total += cost
        return total

    def one(it: _Instruction, scope: dict[str, _Instruction]) -> Costs:
        found = _CYCLES.search(it.rest)
        own = Costs(int(found[1]) if found else 0)
        if it.opcode == "while":
            body, condition = it.called("body")[0], it.called("condition")[0]
            trips = _trips(it, scope, computations[condition], computations[body])
            inside = of(body) + of(condition)
            return inside * trips if trips is not None else inside + Costs(0, {}, (it.name,))
        if it.opcode == "conditional":
            branches = it.called("branch_computations") or [
                *it.called("true_computation"),
                *it.called("false_computation"),
            ]
            return max((of(b) for b in branches), key=lambda c: (c.cycles, c.sent))
        if _is_kernel(it):
            grid, each = _GRID.search(it.rest), kernels.get(_body(it))
            if grid is None or each is None:
                return Costs(unknown_kernels=(it.name,))
            cycles = each * math.ceil(int(grid[1]) / cores)
            return Costs(cycles, kernel_cycles=cycles)
        kind = it.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            return own + Costs(0, {kind: _traffic(kind, it, scope, devices)})
        if it.opcode in ("call", "async-start"):
            return own + sum((of(n) for n in it.called("(?:calls|to_apply)")), Costs())
        if it.opcode == "fusion":  # its cycles are those of what is fused
            inside = sum((of(n) for n in it.called("calls")), Costs())
            return dataclasses.replace(inside, cycles=own.cycles)
        return own

    return of(entry)


def _channels(scope: dict[str, _Instruction]) -> set[str]:
    """Channels of the collectives of a computation."""
    found = (
        re.search(r"\bchannel_id=(\d+)", it.rest)
        for it in scope.values()
        if it.opcode.removesuffix("-start") in COLLECTIVES
    )
    return {channel[1] for channel in found if channel}


def _is_kernel(it: _Instruction) -> bool:
    return it.opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in it.rest


def _body(it: _Instruction) -> str:
    found = _BODY.search(it.rest)
    return found[1] if found else it.name


def schedule(profile: str) -> dict[str, int]:
    """Instruction name -> bundles, from libtpu's dump "hlo-static-bundle-profile" of a program.

    A bundle is what a core issues in one cycle. Each has one slot for transcendental functions.
    """
    found: Counter[str] = Counter()
    name = ""
    for line in profile.splitlines():
        if head := re.match(r"HLO: %?([\w.\-]+)", line):
            name = head[1]
        elif slots := re.match(r" - VECTOR_EUP: \(\d+/(\d+)\)", line):
            found[name] += int(slots[1])
    return dict(found)


def parse(text: str) -> tuple[str, dict[str, dict[str, _Instruction]]]:
    """The entry's name, and computation -> name -> instruction."""
    computations, entry, current = {}, "", {}
    # Only the metadata of a kernel span several lines.
    text = re.sub(r"kernel_metadata=\{\s*([^}]*?)\s*\}", r"kernel_metadata={\1}", text)
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            current[found[1]] = _instruction(found[1], found[2])
        elif found := _COMPUTATION.match(line):
            current = computations[found[2]] = {}
            entry = found[2] if found[1] else entry
    if not entry:
        raise ValueError("This is no HLO text: it has no ENTRY computation.")
    return entry, computations


def _instruction(name: str, text: str) -> _Instruction:
    end = _closing(text) if text.startswith("(") else text.index(" ")
    type_, rest = text[:end], text[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    close = _closing("(" + rest) - 1
    return _Instruction(name, opcode, type_, tuple(_OPERAND.findall(rest[:close])), rest)


def _closing(text: str) -> int:
    """The position after the parenthesis that closes the one at the start."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    return len(text)


def array_bytes(type_: str) -> int:
    """Bytes of an HLO type, "f32[8,128]{1,0}" or a tuple of such."""
    return sum(
        math.ceil(_bits(kind) * math.prod(int(n) for n in dims.split(",") if n) / 8)
        for kind, dims in _ARRAY.findall(type_)
    )


def _bits(kind: str) -> int:
    return _BITS[kind] if kind in _BITS else int(re.match(r"[a-z]+(\d+)", kind)[1])


def _traffic(kind: str, it: _Instruction, scope: dict[str, _Instruction], devices: int) -> Traffic:
    operand = sum(array_bytes(scope[o].type) for o in it.operands)
    chips = _group_size(it.rest, devices)
    if kind != "collective-permute" and chips == 1:
        return Traffic()
    sent, whole = COLLECTIVES[kind]
    return Traffic(1, operand * whole(chips), operand * sent(chips))


def _group_size(rest: str, devices: int) -> int:
    """How many chips take part, from any of three notations of groups; missing or empty: all.

    {{0,1},{2,3}} and [2,2]<=[4] are groups of two; mesh['a'=4,'b'=2] {'b'} too, and so is
    mesh['a'=4], device_ids=(..) {'a':(1)2}, a part of an axis.
    """
    _, _, groups = rest.partition("replica_groups=")
    if found := re.match(r"\[(?:\d+,)*(\d+)\]<=", groups):
        return int(found[1])
    if found := re.match(r"\{\{([\d,]*)\}", groups):
        return found[1].count(",") + 1
    if found := re.match(r"mesh\[(.*?)\][^{]*\{(.*?)\}", groups):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        used = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[axis]) for axis, part in used)
    return devices


def _trips(
    loop: _Instruction,
    scope: dict[str, _Instruction],
    condition: dict[str, _Instruction],
    body: dict[str, _Instruction],
) -> int | None:
    """How often a loop runs: noted by XLA, or read from `i < limit`; None: unknown."""
    if found := _TRIPS.search(loop.rest):
        return int(found[1])
    *_, last = condition.values()
    if last.opcode != "compare" or "direction=LT" not in last.rest:
        return None
    counter, limit = condition[last.operands[0]], _constant(last.operands[1], condition)
    found = re.search(r"index=(\d+)", counter.rest)
    if counter.opcode != "get-tuple-element" or limit is None:
        return None
    start = _constant(_element(scope[loop.operands[0]], int(found[1])), scope)
    *_, results = body.values()
    step = _step(_element(results, int(found[1])), body)
    if start is None or step is None or step < 1:
        return None
    return max(0, math.ceil((limit - start) / step))


def _element(tuple_: _Instruction, index: int) -> str:
    return tuple_.operands[index] if tuple_.opcode == "tuple" else ""


def _original(name: str, scope: dict[str, _Instruction]) -> _Instruction | None:
    """The instruction of a name, looking through copies."""
    it = scope.get(name)
    while it is not None and it.opcode in _COPIES:
        it = scope.get(it.operands[0])
    return it


def _constant(name: str, scope: dict[str, _Instruction]) -> int | None:
    """The value of a name that is an integer constant, else None."""
    it = _original(name, scope)
    if it is None or it.opcode != "constant":
        return None
    found = re.match(r"(-?\d+)\)", it.rest)
    return int(found[1]) if found else None


def _step(name: str, body: dict[str, _Instruction]) -> int | None:
    """What a loop's body adds to its counter."""
    it = _original(name, body)
    if it is None or it.opcode != "add":
        return None
    found = [_constant(o, body) for o in it.operands]
    return next((n for n in found if n is not None), None)
