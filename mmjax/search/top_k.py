"""Exact top-k by inner product among millions of unit vectors, in two stages.

1. On the device every vector is scored in low precision (bf16 where that is fast), and only the
   maximum of each group of 32 vectors is kept.
2. On the host the groups that can contain a result, by a proven bound on the first stage's rounding
   error, are rescored in fp32.

So the result is exact despite the first stage's rounding. It is exact for the vectors as stored;
the error of fp16 or int8 storage is separate (see `storage.py`).
"""

import functools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

GROUP = 32  # vectors that share a maximum
BLOCK = 1024  # vectors scored at once: the scores of 1,000 queries stay in the processor's cache
CHUNK = 16 * BLOCK  # vectors per call
QUERIES = 1024  # per call; fewer are padded to one of SIZES, to limit compilations
SIZES = (1, 8, 64, QUERIES)


@functools.partial(jax.jit, static_argnames="dtype")
def group_maxima(
    vectors: jax.Array, scales: jax.Array | None, queries: jax.Array, dtype: str
) -> jax.Array:
    """`[Q, C / GROUP]`: the best score of each group of consecutive vectors.

    Args:
      vectors: `[C, D]` of any dtype; C a multiple of BLOCK; scales: `[C]`, factor of each vector.
      queries: `[Q, D]` float32; dtype: both are cast to it before multiplication.
    """
    # A query alone as a vector: XLA then converts the rows as it multiplies.
    transposed = queries.astype(dtype).T if len(queries) > 1 else queries[0].astype(dtype)
    # Accelerators would otherwise round fp32 factors.
    precision = "highest" if dtype == "float32" else None

    def block(part):
        rows, scale = part
        scores = jnp.dot(
            rows.astype(dtype), transposed, precision=precision, preferred_element_type=jnp.float32
        )
        if scores.ndim == 1:
            scores = scores[:, None]
        if scale is not None:
            scores = scores * scale[:, None]
        return rearrange(scores, "(group vector) q -> group vector q", vector=GROUP).max(axis=1)

    blocks = rearrange(vectors, "(block vector) d -> block vector d", vector=BLOCK)
    if scales is not None:
        scales = rearrange(scales, "(block vector) -> block vector", vector=BLOCK)
    found = jax.lax.map(block, (blocks, scales))
    return rearrange(found, "block group q -> q (block group)")


class Gallery:
    """Vectors to search in.

    Args:
      vectors: `[N, D]` float32, float16 or int8; may be memory-mapped. On CPU they are used in
        place; on an accelerator they are copied to its memory.
      scales: `[N]` float32, factor of each row; None: 1.
      dtype: of the first stage's products; None: bfloat16 if it is fast here, otherwise float32.

    Rows times scales must have at most unit length (to within 1 %).
    """

    def __init__(
        self, vectors: np.ndarray, scales: np.ndarray | None = None, dtype: str | None = None
    ):
        self.vectors, self.scales = vectors, scales
        self.dtype = dtype or ("bfloat16" if fast_bfloat16() else "float32")
        self._chunks = list(self._read()) if jax.default_backend() != "cpu" else None

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows of each query, best first; ties: the lower row first.

        Args:
          queries: `[Q, D]`, at most of unit length (to within 1 %).

        Returns:
          scores `[Q, min(k, N)]` float32 and rows `[Q, min(k, N)]` int64.

        Raises:
          ValueError: queries of another width, or not finite; k below 1.
        """
        queries = np.asarray(queries, np.float32)
        width = self.vectors.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width or not np.isfinite(queries).all():
            raise ValueError(
                f"The queries have shape {queries.shape} and must be finite vectors of {width}: "
                "embed them with the model that made the vectors."
            )
        if k < 1:
            raise ValueError(f"k is {k}: ask for 1 or more.")
        k = min(k, len(self.vectors))
        parts = [queries[i : i + QUERIES] for i in range(0, len(queries), QUERIES)]
        found = [self._search(part, k) for part in parts if k]
        if not found:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        scores, rows = zip(*found)
        return np.concatenate(scores), np.concatenate(rows)

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        single = len(queries) == 1 and self._chunks is None and self.vectors.dtype == np.float32
        maxima = self._maxima_of_one(queries[0]) if single else self._maxima(queries)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda q, m: self._winners(q, m, k), queries, maxima))
        return np.stack([scores for scores, _ in found]), np.stack([rows for _, rows in found])

    def _maxima_of_one(self, query: np.ndarray) -> np.ndarray:
        """`_maxima` of one query over float32 on CPU: BLAS is three times as fast."""
        scores = self.vectors @ query
        if self.scales is not None:
            scores *= self.scales
        starts = np.arange(0, len(scores), GROUP)
        return np.maximum.reduceat(scores, starts)[None]

    def _maxima(self, queries: np.ndarray) -> np.ndarray:
        """`[Q, groups]`: the first stage."""
        size = next(s for s in SIZES if s >= len(queries))
        padded = jnp.asarray(np.pad(queries, ((0, size - len(queries)), (0, 0))))
        # On CPU a query alone is bound by reading the rows, and bf16 would only add a conversion.
        alone = size == 1 and jax.default_backend() == "cpu"
        dtype = "float32" if alone else self.dtype
        groups = -(-len(self.vectors) // GROUP)
        maxima = np.empty((len(queries), groups), np.float32)
        start, pending = 0, None
        for vectors, scales in self._chunks or self._read():
            # The device computes one chunk while the previous one's maxima are copied.
            coming = group_maxima(vectors, scales, padded, dtype)
            if pending is not None:
                start = _copy(pending, maxima, start)
            pending = coming
        _copy(pending, maxima, start)
        return maxima

    def _winners(self, query: np.ndarray, maxima: np.ndarray, k: int) -> tuple:
        """The k best rows, from the groups that can contain them."""
        threshold = -np.inf
        if k < len(maxima):
            # k groups have an exact maximum of at least the k-th approximate one minus the error
            # bound; a group can reach that if its approximate maximum is within two bounds.
            threshold = np.partition(maxima, -k)[-k] - 2 * self._error_bound()
        groups = np.flatnonzero(maxima >= threshold)
        rows = (groups[:, None] * GROUP + np.arange(GROUP)[None]).ravel()
        rows = rows[rows < len(self.vectors)]
        # Not by BLAS: its threads would compete with this thread pool.
        scores = np.einsum("nd,d->n", self.vectors[rows].astype(np.float32, copy=False), query)
        if self.scales is not None:
            scores *= self.scales[rows]
        best = np.lexsort((rows, -scores))[:k]
        return scores[best], rows[best]

    def _error_bound(self) -> float:
        """Upper bound on the error of a first-stage score, for vectors of unit length.

        Rounding a factor to p bits changes it by at most 2^-p of its length, hence the score by at
        most 2^(1-p) (1 + 2^-p / 2) of |q| |x| (Cauchy-Schwarz inequality), where bf16 has p = 8; a
        sum of D products in fp32 by D 2^-24, in any order (Higham 2002, section 3.1).
        """
        factors = 2**-7 * (1 + 2**-9) if self.dtype == "bfloat16" else 0.0
        return 1.03 * (factors + self.vectors.shape[1] * 2**-23)

    def _read(self) -> Iterator[tuple[jax.Array, jax.Array | None]]:
        """Chunks of CHUNK rows on the device; the last one is padded."""
        whole = len(self.vectors) // CHUNK * CHUNK
        for start in range(0, whole, CHUNK):
            yield _put(
                x if x is None else x[start : start + CHUNK] for x in (self.vectors, self.scales)
            )
        if whole < len(self.vectors):
            yield self._end

    @functools.cached_property
    def _end(self) -> tuple[jax.Array, jax.Array | None]:
        """The rows after the last whole chunk, padded with the last row; copied once."""
        rest = len(self.vectors) % CHUNK
        rows = np.minimum(np.arange(CHUNK), rest - 1) + len(self.vectors) - rest
        return _put(x if x is None else x[rows] for x in (self.vectors, self.scales))


def _put(parts: Iterable[np.ndarray | None]) -> tuple[jax.Array | None, ...]:
    """On the device; on CPU, aligned memory (also of mapped files) is used in place."""
    return tuple(
        None if x is None else jax.device_put(np.asarray(x), may_alias=True) for x in parts
    )


def _copy(chunk: jax.Array, maxima: np.ndarray, start: int) -> int:
    """Copy a chunk's maxima `[Q, G]` to their columns; returns the start of the next chunk's."""
    end = min(start + chunk.shape[1], maxima.shape[1])
    maxima[:, start:end] = np.asarray(chunk)[: len(maxima), : end - start]
    return end


@functools.cache
def fast_bfloat16() -> bool:
    """Whether bf16 products are faster than fp32: on accelerators and CPUs with bf16 support."""
    if jax.default_backend() != "cpu":
        return True
    try:
        with open("/proc/cpuinfo") as file:
            return "bf16" in file.read()
    except OSError:
        return False
