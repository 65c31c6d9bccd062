"""Deterministic mutations of a valid file: of its bytes, and of the tree of a JSON file."""

import copy
import json
import random
import struct
from collections.abc import Sequence

SIZES = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**16, 10**8, 2**31 - 1, 2**31, 2**32 - 1)
SIZES += (2**40, 2**60, 2**63 - 1, 2**63, 2**64 - 1)
ODD = (None, True, False, 0, -1, 1, 2, 3, 7, 10**8, 2**31, 2**63, 10**30, 0.5, -0.5, 1e300)
ODD += (float("nan"), float("inf"), "", "a", "0", "../a", "a\0b", "\ud800", "x" * 5000)
ODD += ([], {}, [[]], [0], [1, 2], [1, 2, 3], ["a"], [None], [{}], {"a": 1}, {"size": [1, 1]})


def mutated_bytes(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """The file with one to four changes."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        draw.choice(_CHANGES)(changed, draw, other)
    return bytes(changed)


def _bit(data: bytearray, draw: random.Random, other: bytes) -> None:
    if data:
        data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _byte(data: bytearray, draw: random.Random, other: bytes) -> None:
    if data:
        data[_place(data, draw)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x30, 0x2F))


def _number(data: bytearray, draw: random.Random, other: bytes) -> None:
    width, code = draw.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    if len(data) >= width:
        at = min(_place(data, draw), len(data) - width)
        value = draw.choice(SIZES) % 2 ** (8 * width)
        data[at : at + width] = struct.pack(draw.choice("<>") + code, value)


def _digits(data: bytearray, draw: random.Random, other: bytes) -> None:
    """A number written in digits, as in the headers of tar and PPM."""
    at = _place(data, draw) if data else 0
    text = str(draw.choice(SIZES)).encode() if draw.random() < 0.5 else b"7" * draw.randrange(1, 12)
    data[at : at + len(text)] = text


def _cut(data: bytearray, draw: random.Random, other: bytes) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _remove(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = _place(data, draw) if data else 0
    del data[at : at + draw.choice((1, 2, 4, 16, 512))]


def _repeat(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = _place(data, draw) if data else 0
    data[at:at] = data[at : at + draw.choice((1, 4, 16, 64, 512))]


def _insert(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = _place(data, draw) if data else 0
    data[at:at] = draw.randbytes(draw.choice((1, 2, 4, 16)))


def _splice(data: bytearray, draw: random.Random, other: bytes) -> None:
    if data and other:
        at, start = _place(data, draw), draw.randrange(len(other))
        part = other[start : start + draw.choice((4, 16, 64, 512))]
        data[at : at + len(part)] = part


def _place(data: bytearray, draw: random.Random) -> int:
    """Half of the places are near the start, where most formats have their headers."""
    return draw.randrange(min(len(data), 512) if draw.random() < 0.5 else len(data))


_CHANGES = (_bit, _byte, _number, _number, _digits, _cut, _remove, _repeat, _insert, _splice)


def with_pieces(data: bytes, draw: random.Random, pieces: Sequence[bytes]) -> bytes:
    """The file with one to four texts inserted, some of them in place of what follows."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(changed) + 1)
        changed[at : at + draw.choice((0, 0, 1, 8))] = draw.choice(pieces)
    return bytes(changed)


def mutated_json(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """The file with one to three values of its tree replaced, removed or nested; one in ten as
    bytes."""
    choice = draw.random()
    if choice < 0.1:
        return mutated_bytes(data, draw, other)
    if choice < 0.12:
        depth = draw.choice((50, 1000, 100_000))
        return draw.choice((b"[", b'{"a":')) * depth
    tree = json.loads(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        tree = _changed_tree(tree, draw)
    # Deep nesting within a valid file: the encoder could not write it.
    text = json.dumps(tree)
    if draw.random() < 0.02:
        depth = draw.choice((100, 5000))
        text = text.replace(draw.choice(("1", "true", '"a"', "0")), "[" * depth + "]" * depth, 1)
    return text.encode("utf-8", "surrogatepass")


def _changed_tree(tree, draw: random.Random):
    places = list(_places(tree))
    if not places:
        return draw.choice(ODD)
    parent, key = draw.choice(places)
    value, kind = parent[key], draw.random()
    if kind < 0.1 and isinstance(parent, dict):
        del parent[key]
    elif kind < 0.15 and isinstance(parent, list):
        parent.append(copy.deepcopy(value))
    elif kind < 0.3 and isinstance(value, int | float) and not isinstance(value, bool):
        parent[key] = draw.choice(
            (-value, value + 1, value - 1, value * 1000, value / 2, value * 3)
        )
    elif kind < 0.4:
        parent[key] = copy.deepcopy(draw.choice(places)[0])
    else:
        parent[key] = copy.deepcopy(draw.choice(ODD))
    return tree


def _places(tree):
    """(container, key) of every value of a tree, small and large lists alike by their first 50."""
    if not isinstance(tree, dict | list):
        return
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree[:50])):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
