"""Scaled rotary positions in config.json, and in our decoder's `rope_scaling`."""

import math
from collections.abc import Mapping
from typing import Any

from mmjax.weights import schema

ORIGINAL = "original_max_position_embeddings"
# rope_type -> settings that it needs, and others that change the computation; ours are the same
NEEDED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
    "yarn": ("factor", ORIGINAL),
    "longrope": ("short_factor", "long_factor"),
}
SETTINGS = {
    **dict.fromkeys(("rope_type", "type"), "linear"),
    **dict.fromkeys(("rope_theta", "partial_rotary_factor", "factor", "attention_factor"), 1.0),
    **dict.fromkeys(("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"), 1.0),
    **dict.fromkeys(("mscale", "mscale_all_dim"), 1.0),
    **dict.fromkeys(("short_factor", "long_factor"), (1.0,)),
    ORIGINAL: 4096,
    "truncate": True,
}
OPTIONAL = {"yarn": ("beta_fast", "beta_slow", "attention_factor", "truncate")}


def read(settings: Mapping[str, Any], where: str) -> tuple[float, dict[str, Any] | None]:
    """Our `rope_base` and `rope_scaling`, from the settings of config.json.

    As in transformers 5, `rope_scaling` comes before `rope_parameters`.

    Raises:
      ValueError: a scaling that our decoder does not have, or an incomplete one.
    """
    given = settings.get("rope_scaling") or settings.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"'{where}' has the rotary positions {given!r}: they must be an object.")
    rope = dict(given)
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ValueError(f"'{where}' has other rotary positions in some layers than in others.")
    for name, default in SETTINGS.items():
        value = schema.check(name, rope.get(name), schema.Maybe(default), where)
        if value is not None and isinstance(default, float) and value <= 0:
            raise ValueError(f"'{where}' has {name} {value}: it must be positive.")
    base = float(rope.get("rope_theta") or settings["rope_theta"])
    kind = rope.get("rope_type") or rope.get("type") or "default"
    length, part = settings["max_position_embeddings"], rope.get("partial_rotary_factor")
    if (part or settings.get("partial_rotary_factor") or 1) != 1:
        raise ValueError(f"'{where}' rotates a part of each head; only whole heads are supported.")
    if kind == "dynamic":
        raise ValueError(
            f"'{where}' scales its rotary positions by 'dynamic', which depends on the length of "
            "each text; linear, llama3 and yarn are supported."
        )
    if kind == "default":
        return base, None
    if kind not in NEEDED:
        raise ValueError(
            f"'{where}' scales its rotary positions by '{kind}'; linear, llama3 and yarn are "
            "supported."
        )
    rope[ORIGINAL] = settings.get(ORIGINAL) or rope.get(ORIGINAL) or length
    if kind == "yarn":
        rope["factor"] = rope.get("factor") or length / rope[ORIGINAL]
        rope["attention_factor"] = _yarn_magnitude(rope)
    rope = {name: value for name, value in rope.items() if value is not None}
    missing = [name for name in NEEDED[kind] if name not in rope]
    if missing:
        raise ValueError(
            f"'{where}' scales its rotary positions by '{kind}' without {', '.join(missing)}."
        )
    if kind == "longrope":
        return base, _longrope(rope, length, where)
    names = (*NEEDED[kind], *OPTIONAL.get(kind, ()))
    return base, {"rope_type": kind, **{name: rope[name] for name in names if name in rope}}


def _yarn_magnitude(rope: Mapping[str, Any]) -> float | None:
    """The magnitude of queries and keys; None: what follows from the factor."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    scales = [rope.get(name) for name in ("mscale", "mscale_all_dim")]
    if not all(scales):
        return None
    log = math.log(max(rope["factor"], 1))
    above, below = (0.1 * scale * log + 1 for scale in scales)
    return above / below


def _longrope(rope: Mapping[str, Any], length: int, where: str) -> dict[str, Any]:
    """LongRoPE that has one set of divisors for all texts."""
    short, long = rope["short_factor"], rope["long_factor"]
    if rope[ORIGINAL] < 2:
        raise ValueError(f"'{where}' has {ORIGINAL} {rope[ORIGINAL]}: it must be 2 or more.")
    if short != long and length > rope[ORIGINAL]:
        raise ValueError(
            f"'{where}' scales its rotary positions by 'longrope', with other factors for texts of "
            f"more than {rope[ORIGINAL]} tokens; only one set of factors is supported."
        )
    factor = max(rope.get("factor") or length / rope[ORIGINAL], 1.0)
    default = math.sqrt(1 + math.log(factor) / math.log(rope[ORIGINAL]))
    magnitude = float(rope.get("attention_factor", default))
    scaling = {"rope_type": "factors", "factors": tuple(short)}
    return scaling if magnitude == 1 else scaling | {"attention_factor": magnitude}


def write(base: float, scaling: Mapping[str, Any] | None, length: int) -> dict[str, Any]:
    """The settings of config.json: for newer versions of transformers, and for older ones."""
    theta = {"rope_theta": base}
    if scaling is None:
        return theta | {"rope_parameters": {"rope_type": "default", **theta}}
    published = {k: v for k, v in scaling.items() if v is not None}
    if published["rope_type"] == "factors":
        factors = list(published["factors"])
        published = {
            "rope_type": "longrope",
            "factor": 1.0,
            "attention_factor": published.get("attention_factor", 1.0),
            "short_factor": factors,
            "long_factor": factors,
            ORIGINAL: length,
        }
    return theta | {"rope_scaling": published, "rope_parameters": {**published, **theta}}
