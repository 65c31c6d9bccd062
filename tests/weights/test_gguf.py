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
    """Value i of a block of bytes, from the structs of ggml's ggml-common.h and their comments."""
    if kind in SIMPLE:
        return SIMPLE[kind](block, i)
    run, within = divmod(i, 128)
    quarter, column = divmod(within, 32)
    if kind == 14:  # Q6_K: a signed scale for each 16 values
        low = block[run * 64 + column + (32 if quarter in (1, 3) else 0)]
        low = low >> 4 if quarter >= 2 else low & 15
        high = block[128 + run * 32 + column] >> (2 * quarter) & 3
        scale = signed(block, 192 + run * 8 + 2 * quarter + column // 16)
        return half(block, 208) * scale * ((low | high << 4) - 32)
    if kind == 10:  # Q2_K: 4 bits of scale and 4 of minimum for each 16 values
        both = block[i // 16]
        level = block[16 + run * 32 + column] >> (2 * quarter) & 3
        return half(block, 80) * (both & 15) * level - half(block, 82) * (both >> 4)
    if kind == 11:  # Q3_K: 16 scales of 6 bits, 4 low ones in 8 bytes and 2 high ones in 4
        group = i // 16
        low = block[96 + group % 8] >> (4 if group >= 8 else 0) & 15
        high = block[104 + group % 4] >> (2 * (group // 4)) & 3
        level = block[32 + run * 32 + column] >> (2 * quarter) & 3
        level -= 0 if block[column] >> (4 * run + quarter) & 1 else 4
        return half(block, 108) * ((low | high << 4) - 32) * level
    part, column = divmod(i, 32)  # Q4_K, Q5_K: 8 scales and minima of 6 bits in 12 bytes
    scales = block[4:16]
    if part < 4:
        scale, least = scales[part] & 63, scales[part + 4] & 63
    else:
        scale = scales[part + 4] & 15 | scales[part - 4] >> 6 << 4
        least = scales[part + 4] >> 4 | scales[part] >> 6 << 4
    at = (16 if kind == 12 else 48) + part // 2 * 32 + column
    level = block[at] >> (4 * (part % 2)) & 15
    if kind == 13:
        level |= (block[16 + column] >> part & 1) << 4
    return half(block, 0) * scale * level - half(block, 2) * least


def signed(block, at):
    return struct.unpack_from("<b", block, at)[0]


def nibble(block, at, i):
    byte = block[at + i % 16]
    return byte & 15 if i < 16 else byte >> 4


def fifth_bit(block, at, i):
    return (struct.unpack_from("<I", block, at)[0] >> i & 1) << 4


SIMPLE = {
    0: lambda b, i: struct.unpack("<f", b)[0],
    1: lambda b, i: half(b, 0),
    2: lambda b, i: half(b, 0) * (nibble(b, 2, i) - 8),
    3: lambda b, i: half(b, 0) * nibble(b, 4, i) + half(b, 2),
    6: lambda b, i: half(b, 0) * ((nibble(b, 6, i) | fifth_bit(b, 2, i)) - 16),
    7: lambda b, i: half(b, 0) * (nibble(b, 8, i) | fifth_bit(b, 4, i)) + half(b, 2),
    8: lambda b, i: half(b, 0) * signed(b, 2 + i),
    30: lambda b, i: struct.unpack("<f", b"\0\0" + b)[0],
}
# ggml's number of a type -> values and bytes of a block, and where its float16 scales are
KINDS = {
    0: (1, 4, ()),
    1: (1, 2, (0,)),
    2: (32, 18, (0,)),
    3: (32, 20, (0, 2)),
    6: (32, 22, (0,)),
    7: (32, 24, (0, 2)),
    8: (32, 34, (0,)),
    10: (256, 84, (80, 82)),
    11: (256, 110, (108,)),
    12: (256, 144, (0, 2)),
    13: (256, 176, (0, 2)),
    14: (256, 210, (208,)),
    30: (1, 2, ()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_of_every_kind(kind, tmp_path):
    values, size, scales = KINDS[kind]
    shape = (3, 2 * values)
    blocks = [bytearray(RNG.integers(0, 256, size, np.uint8)) for _ in range(6)]
    for block in blocks:  # scales are ordinary numbers
        for at in scales:
            struct.pack_into("<e", block, at, RNG.normal())
        if kind in (0, 30):
            block[:] = struct.pack("<f", RNG.normal())[-size:]
    tensors = {"first": np.ones((1, 5), np.float32), "x": (shape, kind, b"".join(blocks))}
    file = GGUF(write(tmp_path / "x.gguf", {"a.b": [1, 2], "c": "ü", "d": ["x", "y"]}, tensors))
    expected = [value_of(kind, bytes(b), i) for b in blocks for i in range(values)]
    found = file.read("x")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.reshape(expected, shape), rtol=2e-6, atol=1e-6)
    assert file.metadata == {"a.b": [1, 2], "c": "ü", "d": ["x", "y"]}
    np.testing.assert_array_equal(file.read("first"), np.ones((1, 5)))


def test_wrong_and_truncated_files_are_refused(tmp_path):
    path = tmp_path / "x.gguf"
    with pytest.raises(ValueError, match="There is no GGUF file"):
        GGUF(path)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="is not a GGUF file: it begins with b'shor'"):
        GGUF(path)
    path.write_bytes(b"PK\3\4" + b"\0" * 100)
    with pytest.raises(ValueError, match="is not a GGUF file: it begins with"):
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
    write(path, {}, {"x": ((32,), 27, b"\0" * 256)})  # int64
    with pytest.raises(ValueError, match="'x' of .* has type I64, which .* cannot dequantize"):
        GGUF(path)
    write(path, {}, {"x": ((33,), 2, b"\0" * 64)})
    with pytest.raises(ValueError, match="damaged .*'x' has rows of 33 values in blocks of 32"):
        GGUF(path)


@pytest.mark.parametrize("at", [8, 16, 24, 44, 73])
def test_a_damaged_length_ends_at_once(at, tmp_path):
    """Counts of tensors, of pairs, of letters of a name, of an array's values, of a string's."""
    path = write(tmp_path / "x.gguf", {"a.bc": [1, 2], "d": "x"}, {"x": np.ones(3, np.float32)})
    data = bytearray(path.read_bytes())
    data[at : at + 8] = struct.pack("<Q", 2**60)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="truncated or damaged"):
        GGUF(path)


def test_the_files_of_a_split_model_are_one(tmp_path):
    parts = [{"x": np.ones((2, 3), np.float32)}, {"y": np.full((1, 2), 7, np.float32)}, {}]
    paths = [tmp_path / f"toy-{i + 1:05}-of-00003.gguf" for i in range(3)]
    for i, (path, tensors) in enumerate(zip(paths, parts)):
        metadata = {"split.no": i, "split.count": 3, "split.tensors.count": 2}
        write(path, metadata | ({"general.name": "toy"} if i == 0 else {}), tensors)
    for path in paths:
        file = GGUF(path)
        assert file.shapes == {"x": (2, 3), "y": (1, 2)} and file.metadata["general.name"] == "toy"
        assert (file.read("y") == 7).all()
    renamed = tmp_path / "toy.gguf"
    renamed.write_bytes(paths[0].read_bytes())
    with pytest.raises(ValueError, match="one of 3 files of a split model"):
        GGUF(renamed)
    write(paths[2], {"split.no": 2, "split.count": 3}, {"x": np.ones(1, np.float32)})
    with pytest.raises(ValueError, match="3 tensors with 2 names, where the first file counts 2"):
        GGUF(paths[0])
    paths[2].unlink()
    with pytest.raises(ValueError, match="There is no GGUF file .*toy-00003-of-00003"):
        GGUF(paths[0])
