"""Rotary position embeddings, and the scalings of their frequencies for long texts."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.config import check_kwargs, nearest


def rotary_angles(
    positions: jax.Array,
    head_dim: int,
    base: float,
    scaling: Mapping[str, Any] | None = None,
) -> jax.Array:
    """Rotation angles of the pairs of a head: [B, L] int -> [B, L, head_dim / 2] float32.

    Pair i is rotated by position · base^(-2i / head_dim), or by that frequency scaled (see
    `frequencies`).
    Source: RoFormer, Su et al. 2021 (arXiv 2104.09864), section 3.2.2.
    """
    rates = jnp.asarray(frequencies(head_dim, base, scaling)[0])
    return positions.astype(jnp.float32)[..., None] * rates[None, None]


def rotate(x: jax.Array, angles: jax.Array, magnitude: float = 1.0) -> jax.Array:
    """Rotate each pair (x[i], x[i + D/2]) of the last axis by its angle, in fp32.

    Pairs are formed across the two halves of a head, as in GPT-NeoX and in transformers' Llama; the
    paper's neighboring pairs are the same map with the head's dimensions permuted.

    Args:
      x: [B, L, ..., D]; angles: [B, L, D/2].
      magnitude: a factor on the result.
    """
    angles = angles.reshape(*angles.shape[:2], *(1,) * (x.ndim - 3), angles.shape[-1])
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if magnitude != 1.0:
        cos, sin = cos * magnitude, sin * magnitude
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def frequencies(
    head_dim: int, base: float, scaling: Mapping[str, Any] | None = None
) -> tuple[np.ndarray, float]:
    """Radians per position of each pair, [head_dim / 2] float32, and the magnitude of `rotate`.

    Args:
      scaling: `rope_type`, one of `SCALINGS`, and its settings, as in the `rope_parameters` of
        config.json in transformers; None: not scaled.

    Raises:
      ValueError: an odd head_dim, or an unknown type or setting.
    """
    if head_dim % 2:
        raise ValueError(f"Rotary positions need an even head_dim, not {head_dim}.")
    rates = float(base) ** (-np.arange(0, head_dim, 2) / head_dim)
    magnitude = 1.0
    if scaling is not None:
        scale, settings = _scaling(dict(scaling))
        rates, magnitude = scale(rates, float(base), **settings)
    return rates.astype(np.float32), magnitude


def _scaling(settings: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function of a `rope_type`, and its settings; raises ValueError for wrong ones."""
    where = "config.model.text.decoder.rope_scaling"
    kind = settings.pop("rope_type", None)
    if kind not in SCALINGS:
        raise ValueError(
            f"{where}.rope_type is {kind!r}; use one of {', '.join(SCALINGS)}."
            + nearest(str(kind), SCALINGS)
        )
    scale = SCALINGS[kind]
    settings = check_kwargs(scale, settings, where)
    needed = inspect.signature(scale).parameters.values()
    missing = [p.name for p in needed if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    missing = [name for name in missing if name not in settings]
    if missing:
        raise ValueError(f"{where} of type '{kind}' needs {', '.join(missing)}: set it.")
    return scale, settings


def _linear(rates: np.ndarray, base: float, /, *, factor: float) -> tuple[np.ndarray, float]:
    """Positions divided by `factor`. Source: Chen et al. 2023 (arXiv 2306.15595), eq. 4."""
    del base
    return rates / factor, 1.0


def _llama3(
    rates: np.ndarray,
    base: float,
    /,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: int,
) -> tuple[np.ndarray, float]:
    """Low frequencies divided by `factor`, high ones unchanged, a ramp in between.

    Source: apply_scaling in meta-llama/llama-models, models/llama3/model.py.
    """
    del base
    turns = original_max_position_embeddings * rates / (2 * math.pi)
    kept = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0.0, 1.0)
    return rates * (kept + (1 - kept) / factor), 1.0


def _yarn(
    rates: np.ndarray,
    base: float,
    /,
    *,
    factor: float,
    original_max_position_embeddings: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    attention_factor: float | None = None,
    truncate: bool = True,
) -> tuple[np.ndarray, float]:
    """YaRN: as `_llama3`, with a ramp over the pairs, and larger queries and keys.

    Args:
      beta_fast, beta_slow: rotations within the original length where the ramp begins and ends.
      attention_factor: the magnitude; None: 0.1 ln(factor) + 1.
      truncate: the ramp begins and ends at whole pairs.

    Source: Peng et al. 2023 (arXiv 2309.00071), section 3.2 and eq. 22; jquesnelle/yarn.
    """
    head_dim = 2 * len(rates)

    def pair(rotations: float) -> float:
        wavelength = original_max_position_embeddings / (rotations * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(base))

    first, last = pair(beta_fast), pair(beta_slow)
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first or 0.001  # no division by zero
    divided = np.clip((np.arange(len(rates)) - first) / width, 0.0, 1.0)
    if attention_factor is None:
        attention_factor = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    return rates * (1 - divided + divided / factor), float(attention_factor)


def _factors(
    rates: np.ndarray,
    base: float,
    /,
    *,
    factors: Sequence[float],
    attention_factor: float = 1.0,
) -> tuple[np.ndarray, float]:
    """A divisor for each pair, as in the `rope_freqs` of GGUF files.

    Source: LongRoPE, Ding et al. 2024 (arXiv 2402.13753), eq. 1.
    """
    del base
    if len(factors) != len(rates):
        raise ValueError(
            f"rope_scaling.factors has {len(factors)} values and a head {len(rates)} pairs: give "
            "one for each pair."
        )
    return rates / np.asarray(factors, np.float64), float(attention_factor)


SCALINGS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "factors": _factors}
