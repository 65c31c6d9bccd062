"""Storage formats of vectors: float32, float16 and int8."""

import numpy as np

KINDS = ("float32", "float16", "int8")


def encode(vectors: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Vectors `[N, D]` as they are stored, and `[N]` float32 scales (int8 only).

    int8 stores round(127 x / max |x|) of each row, and max |x| / 127 as its scale.
    """
    vectors = np.asarray(vectors, np.float32)
    if kind != "int8":
        return vectors.astype(kind), None
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-12) / 127
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32)
