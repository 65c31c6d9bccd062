"""A writer of GGUF files, for the tests: version 3, little-endian."""

import struct

import numpy as np


def _string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value):
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, _string(value)
    kind = _value(value[0])[0]
    return 9, struct.pack("<IQ", kind, len(value)) + b"".join(_value(v)[1] for v in value)


def write(path, metadata, tensors, version=3):
    """`tensors`: name -> float32 array, or (shape, kind, bytes)."""
    header = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))
    for name, value in metadata.items():
        kind, data = _value(value)
        header += _string(name) + struct.pack("<I", kind) + data
    body = b""
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            tensor = (tensor.shape, 0, tensor.astype("<f4").tobytes())
        shape, kind, data = tensor
        header += _string(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}Q", *shape[::-1])
        header += struct.pack("<IQ", kind, len(body))
        body += data + b"\0" * (-len(data) % 32)
    path.write_bytes(header + b"\0" * (-len(header) % 32) + body)
    return path
