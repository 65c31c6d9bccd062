"""Blocks against one value at a time; and files that are not what they should be."""

import struct

import numpy as np
import pytest
from write_gguf import write

from mmjax.weights.gguf import GGUF

RNG = np.random.default_rng(0)


def half(data, at):
    return struct.unpack_from("<e", data, at)[0]


def value_of(kind, block, i):
    """Value i of a block of bytes, as ggml's documentation of the format says."""
    if kind == 0:
        return struct.unpack("<f", block)[0]
    if kind == 1:
        return half(block, 0)
    if kind == 30:
        return struct.unpack("<f", b"\0\0" + block)[0]
    if kind == 8:
        return half(block, 0) * struct.unpack_from("<b", block, 2 + i)[0]
    if kind in (2, 3):
        byte = block[(2 if kind == 2 else 4) + i % 16]
        nibble = byte & 15 if i < 16 else byte >> 4
        if kind == 2:
            return half(block, 0) * (nibble - 8)
        return half(block, 0) * nibble + half(block, 2)
    run, within = divmod(i, 128)  # Q6_K
    quarter, column = divmod(within, 32)
    low = block[run * 64 + column + (32 if quarter in (1, 3) else 0)]
    low = low >> 4 if quarter >= 2 else low & 15
    high = block[128 + run * 32 + column] >> (2 * quarter) & 3
    scale = struct.unpack_from("<b", block, 192 + run * 8 + 2 * quarter + column // 16)[0]
    return half(block, 208) * scale * ((low | high << 4) - 32)


KINDS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 14: (256, 210), 30: (1, 2)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_of_every_kind(kind, tmp_path):
    values, size = KINDS[kind]
    shape = (3, 2 * values)
    blocks = [bytearray(RNG.integers(0, 256, size, np.uint8)) for _ in range(6)]
    for block in blocks:  # scales are ordinary numbers
        places = {0: (), 1: (0,), 2: (0,), 3: (0, 2), 8: (0,), 14: (208,), 30: ()}[kind]
        for at in places:
            struct.pack_into("<e", block, at, RNG.normal())
        if kind in (0, 30):
            block[:] = struct.pack("<f", RNG.normal())[-size:]
    tensors = {"first": np.ones((1, 5), np.float32), "x": (shape, kind, b"".join(blocks))}
    file = GGUF(write(tmp_path / "x.gguf", {"a.b": [1, 2], "c": "ü", "d": ["x", "y"]}, tensors))
    expected = [value_of(kind, bytes(b), i) for b in blocks for i in range(values)]
    found = file.read("x")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.reshape(expected, shape), rtol=1e-6)
    assert file.metadata == {"a.b": [1, 2], "c": "ü", "d": ["x", "y"]}
    np.testing.assert_array_equal(file.read("first"), np.ones((1, 5)))


def test_wrong_and_truncated_files_are_refused(tmp_path):
    path = tmp_path / "x.gguf"
    with pytest.raises(ValueError, match="There is no GGUF file"):
        GGUF(path)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="it has 5 bytes"):
        GGUF(path)
    path.write_bytes(b"PK\3\4" + b"\0" * 100)
    with pytest.raises(ValueError, match="is no GGUF file: it begins with"):
        GGUF(path)
    write(path, {}, {}, version=1)
    with pytest.raises(ValueError, match="version 1 of GGUF"):
        GGUF(path)
    write(path, {"name": "a long enough value"}, {"x": np.ones((64, 64), np.float32)})
    whole = path.read_bytes()
    for size in (30, 60, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated or damaged"):
            GGUF(path)
    write(path, {}, {"x": ((32,), 12, b"\0" * 32)})
    with pytest.raises(ValueError, match="'x' of .* has ggml type 12"):
        GGUF(path)
