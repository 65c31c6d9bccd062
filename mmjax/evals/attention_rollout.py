"""Attention maps of an image tower, per head and rolled out through all layers."""

import numpy as np
from einops import rearrange


def rollout(weights: np.ndarray) -> np.ndarray:
    """Attention rollout: flow from each token of the last layer to each token of the input.

    Heads are averaged, the residual connection has weight 1/2, A = (mean + I) / 2, and the layers
    are multiplied. Source: Abnar & Zuidema 2020 (arXiv:2005.00928), section 3.

    Args:
      weights: `[layers, B, heads, L, L]`, rows sum to 1.

    Returns:
      `[B, L, L]`, rows sum to 1.
    """
    layers = np.asarray(weights, np.float32).mean(axis=2)
    length = layers.shape[-1]
    layers = 0.5 * layers + 0.5 * np.eye(length, dtype=np.float32)[None, None]
    flow = layers[0]
    for layer in layers[1:]:
        flow = layer @ flow
    return flow


def patch_grid(tokens: int, height: int, width: int) -> tuple[int, int, int]:
    """(extra tokens, rows, columns) of a sequence of square patches with 0 or 1 leading token.

    Raises:
      ValueError: no such grid has the image's shape.
    """
    for extra in (0, 1):
        rows = round(((tokens - extra) * height / width) ** 0.5)
        if rows and (tokens - extra) % rows == 0:
            columns = (tokens - extra) // rows
            if rows * width == columns * height:
                return extra, rows, columns
    raise ValueError(
        f"{tokens} tokens are no grid of square patches of a {height} x {width} image, with or "
        "without one class token."
    )


def attention_maps(weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fraction of the rollout that each patch contributes, `[B, rows, columns]`.

    Taken at the class token if there is one, otherwise averaged over all tokens (exact for mean
    pooling; for an attention-pooling head it shows the tower below the head).

    Args:
      weights: `[layers, B, heads, L, L]`; height, width: of the image in pixels.
    """
    return _read_off(rollout(weights), height, width)


def head_maps(weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Attention map of each head of each layer, `[layers, B, heads, rows, columns]`; sums to 1.

    Args:
      weights, height, width: as for `attention_maps`, with the same pooling.
    """
    return _read_off(np.asarray(weights, np.float32), height, width)


def _read_off(flow: np.ndarray, height: int, width: int) -> np.ndarray:
    """The class token's row, or the mean row, of `[..., L, L]` as a map that sums to 1."""
    extra, rows, columns = patch_grid(flow.shape[-1], height, width)
    pooled = flow[..., 0, :] if extra else flow.mean(axis=-2)
    patches = pooled[..., extra:]
    patches = patches / patches.sum(axis=-1, keepdims=True)
    return rearrange(patches, "... (row column) -> ... row column", row=rows)
