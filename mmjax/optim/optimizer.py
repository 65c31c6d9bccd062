"""Optimizers and schedules from a config, with rules by parameter path.

A parameter's path is its keys joined by '/', such as `image/encoder/block/mlp/up/kernel`. Every
pattern is a Python regular expression which must match the whole path (`re.fullmatch`), so
`image/.*` is the image tower and `.*/bias` every bias. A pattern that matches nothing is an error.

The update is decoupled in all four optimizers, lr being the schedule times the part's multiplier:

    p ← p − lr · (direction + weight_decay · p)
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview

from mmjax import schedule as schedules
from mmjax.config import check_kwargs
from mmjax.optim import lora, tree_paths, update_rules

Schedule = Callable[[int | np.ndarray], float | np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every field of `config.optim`; `learning_rate` alone has no default.

    Patterns are one or several regular expressions over parameter paths.
    """

    learning_rate: float | tuple  # the peak; or, of a constant schedule, ((step, rate), ...)
    name: str = "adamw"  # adamw, adafactor, lion or sgd
    schedule: str = "cosine"  # cosine, linear, rsqrt or constant
    warmup_steps: int | float = 0  # steps, or below 1 a fraction of the run
    end_learning_rate_fraction: float = 0.0  # where cosine, linear and the cooldown end
    timescale: float = 10_000  # of rsqrt
    cooldown_steps: int = 0  # last steps of rsqrt and constant, linear to the end
    b1: float = 0.9
    b2: float | None = None  # None: 0.99 for lion, 0.999 for the others; adafactor's upper bound
    eps: float = 1e-8
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.0
    weight_decay_include: str | tuple = ()  # patterns, beyond the kernels
    weight_decay_exclude: str | tuple = ()  # patterns; stronger than include
    grad_clip_norm: float | None = None  # None: no clipping
    moment_dtype: str = "float32"  # of the first moment
    learning_rate_multipliers: tuple = ()  # (pattern, factor) pairs; the first match counts
    freeze: str | tuple = ()  # patterns; with LoRA's additions, () freezes all but them


@dataclasses.dataclass(frozen=True)
class Part:
    """What the rules say about one parameter."""

    multiplier: float
    decay: bool
    frozen: bool


def make_optimizer(
    config: Mapping[str, Any], params: Any, total_steps: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimizer of a run, and the schedule of its base learning rate.

    The optimizer's `update` takes `learning_rate` and `weight_decay` as further arguments, so that
    they are no constants of the compiled step.

    Frozen parameters get zero updates, have no optimizer state, and do not count in the norm that
    is clipped.

    Args:
      config: fields as in `Settings`.
      params: the unboxed parameters, concrete or abstract; only paths and shapes are read.
      total_steps: length of the run, in updates.

    Raises:
      ValueError: an unknown field, name or schedule; a pattern that matches no parameter.
    """
    settings = _settings(config)
    parts = match_parts(config, params)
    schedule = make_schedule(config, total_steps)
    decays = float(settings.weight_decay) != 0
    steps = [update_rules.direction(settings), _descend(parts, decays)]
    if settings.grad_clip_norm is not None:
        steps.insert(0, update_rules.clip_by_global_norm(float(settings.grad_clip_norm)))
    optimizer = optax.chain(*steps)
    if any(part.frozen for part in parts.values()):
        labels = tree_paths.map_paths(
            lambda path, _: "frozen" if parts[path].frozen else "trained", params
        )
        optimizer = optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
    return optimizer, schedule


def make_schedule(config: Mapping[str, Any], total_steps: int) -> Schedule:
    """The base learning rate as a function of the step, a number or NumPy array on the host.

    Linear warm-up, (step + 1) / warmup_steps as in open_clip, then from the peak: `cosine` or
    `linear` down to the end fraction at `total_steps`; `constant`; or `rsqrt`, with
    sqrt(timescale / (timescale + step − warmup_steps)) (Zhai et al. 2022, "Scaling Vision
    Transformers", §3.5). The last `cooldown_steps` of the latter two go linearly to the end.
    A `learning_rate` of points ((step, rate), ...) is interpolated linearly; warm-up and cooldown
    still multiply it.

    Raises:
      ValueError: a learning rate, warm-up, cooldown or end fraction that is out of range.
    """
    settings = _settings(config)
    kind, rate = settings.schedule, settings.learning_rate
    warmup, end = settings.warmup_steps, float(settings.end_learning_rate_fraction)
    cooldown, timescale = settings.cooldown_steps, float(settings.timescale)
    if 0 < warmup < 1:
        warmup = round(warmup * total_steps)
    _check_schedule(settings, total_steps, warmup)

    def schedule(step: int | np.ndarray) -> float | np.ndarray:
        after = np.clip(step - warmup, 0, total_steps - warmup)
        progress = after / max(total_steps - warmup, 1)
        if kind == "cosine":
            factor = end + (1.0 - end) * 0.5 * (1.0 + np.cos(math.pi * progress))
        elif kind == "linear":
            factor = end + (1.0 - end) * (1.0 - progress)
        elif kind == "rsqrt":
            factor = 1.0 / np.sqrt(1.0 + after / timescale)
        else:
            factor = 1.0
        if cooldown:
            factor = end + (factor - end) * np.clip((total_steps - step) / cooldown, 0.0, 1.0)
        return (
            schedules.schedule(rate, step) * factor * np.minimum(1.0, (step + 1.0) / max(warmup, 1))
        )

    return schedule


def _check_schedule(settings: Any, total_steps: int, warmup: float) -> None:
    """Raise ValueError for settings of the learning rate that are out of range or do not fit.

    Args:
      warmup: its steps, of a fraction too.
    """
    kind, rate, cooldown = settings.schedule, settings.learning_rate, settings.cooldown_steps
    end, timescale = float(settings.end_learning_rate_fraction), float(settings.timescale)
    if kind not in ("cosine", "linear", "rsqrt", "constant"):
        raise ValueError(
            f"config.optim.schedule is '{kind}': use 'cosine', 'linear', 'rsqrt' or 'constant'."
        )
    if total_steps < 1:
        raise ValueError(f"The run has {total_steps} steps: it needs at least 1.")
    if not 0 <= warmup <= total_steps or warmup != int(warmup):
        raise ValueError(
            f"config.optim.warmup_steps is {settings.warmup_steps} in a run of {total_steps} "
            "steps: use a whole number up to that, or a fraction below 1."
        )
    if cooldown and kind in ("cosine", "linear"):
        raise ValueError(
            f"config.optim.cooldown_steps is {cooldown}, but '{kind}' decays by itself: "
            "set it to 0, or use 'rsqrt' or 'constant'."
        )
    if not 0 <= cooldown <= total_steps - warmup:
        raise ValueError(
            f"config.optim.cooldown_steps is {cooldown}: after the warm-up there are "
            f"{total_steps - warmup} steps."
        )
    schedules.check_schedule(rate, "config.optim.learning_rate", low=0.0)
    if not schedules.is_number(rate) and kind != "constant":
        raise ValueError(
            f"config.optim.learning_rate has points, and config.optim.schedule is '{kind}': with "
            "points, which are the whole schedule, set it to 'constant'."
        )
    if not 0 <= end <= 1 or timescale <= 0:
        raise ValueError(
            f"config.optim has end_learning_rate_fraction {end}, timescale {timescale}: use a "
            "fraction from 0 to 1 and a timescale > 0."
        )


def match_parts(config: Mapping[str, Any], params: Any) -> dict[str, Part]:
    """The rules resolved for each parameter, by path.

    Decay applies to kernels (`kernel` or `..._kernel`, of two dimensions or more) and to what
    `weight_decay_include` adds; it is decided by name, because a stack of layers gives biases a
    second dimension. A logit scale or bias never decays.

    Raises:
      ValueError: a bad pattern, one that matches no parameter, a negative multiplier, or a kernel
        that LoRA adapts and that is not frozen.
    """
    settings = _settings(config)
    shapes = tree_paths.shapes(params)
    multipliers = _pairs(settings.learning_rate_multipliers)
    adapted = lora.adapted(shapes)
    matched = {}  # field -> the paths that each of its patterns matches
    for field in ("weight_decay_include", "weight_decay_exclude", "freeze"):
        where, patterns = f"config.optim.{field}", _patterns(getattr(settings, field))
        if field == "freeze" and not patterns and adapted:
            patterns = (lora.BASE,)
        paths = [tree_paths.matching(p, shapes, where) for p in patterns]
        matched[field] = set().union(*paths)
    not_frozen = sorted(adapted - matched["freeze"])
    if not_frozen:
        raise ValueError(
            f"config.lora adds to {', '.join(not_frozen)}, which config.optim.freeze does not "
            f"freeze: leave freeze empty, or add '{lora.BASE}' to it."
        )
    scaled: dict[str, float] = {}
    for pattern, factor in multipliers:
        where = "config.optim.learning_rate_multipliers"
        for path in tree_paths.matching(pattern, shapes, where):
            scaled.setdefault(path, factor)

    def decays(path: str) -> bool:
        name = path.rsplit("/", 1)[-1]
        if name in ("logit_scale", "logit_bias") or path in matched["weight_decay_exclude"]:
            return False
        is_kernel = (name == "kernel" or name.endswith("_kernel")) and len(shapes[path]) >= 2
        return is_kernel or path in matched["weight_decay_include"]

    return {
        path: Part(scaled.get(path, 1.0), decays(path), path in matched["freeze"])
        for path in shapes
    }


def frozen_mask(config: Mapping[str, Any], params: Any) -> Any:
    """Tree like `params`, True where a parameter is frozen."""
    parts = match_parts(config, params)
    return tree_paths.map_paths(lambda path, _: parts[path].frozen, params)


def learning_rates(config: Mapping[str, Any], schedule: Schedule, step: int) -> dict[str, float]:
    """Learning rates at a step, for the log: the base rate, and one per multiplier pattern."""
    base = float(schedule(step))
    pairs = _pairs(_settings(config).learning_rate_multipliers)
    return {"learning_rate": base} | {f"learning_rate/{p}": base * f for p, f in pairs}


def describe(params: Any, config: Mapping[str, Any]) -> str:
    """A table of the parameters: path, shape, size, learning-rate multiplier, decay or not."""
    shapes, parts = tree_paths.shapes(params), match_parts(config, params)
    rows = [
        _Row(
            parameter=path,
            shape="×".join(map(str, shape)) or "scalar",
            size=math.prod(shape),
            lr="frozen" if parts[path].frozen else f"× {parts[path].multiplier:g}",
            decay="yes" if parts[path].decay and not parts[path].frozen else "",
        )
        for path, shape in shapes.items()
    ]
    total = sum(row.size for row in rows)
    trained = sum(row.size for row in rows if row.lr != "frozen")
    table = parameter_overview.make_table(rows)
    return f"{table}\n{total:,} parameters, {trained:,} trained"


@dataclasses.dataclass
class _Row:
    parameter: str
    shape: str
    size: int
    lr: str
    decay: str


def _descend(parts: Mapping[str, Part], decays: bool) -> optax.GradientTransformationExtraArgs:
    """The update from a direction, by each parameter's rules."""

    def init(params):
        del params
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))  # as in earlier checkpoints

    def update(updates, state, params, *, learning_rate, weight_decay, **_):
        def one(path, u, p):
            if decays and parts[path].decay:
                u = u + weight_decay * p
            return (-parts[path].multiplier * learning_rate).astype(u.dtype) * u

        count = optax.safe_increment(state.count)
        return tree_paths.map_paths(one, updates, params), optax.ScaleByScheduleState(count)

    return optax.GradientTransformationExtraArgs(init, update)


def _settings(config: Mapping[str, Any]) -> Settings:
    if config.get("learning_rate") is None:
        raise ValueError("config.optim.learning_rate is not set: give the peak learning rate.")
    return Settings(**check_kwargs(Settings, config, "config.optim"))


def _patterns(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _pairs(rules: Iterable) -> list[tuple[str, float]]:
    pairs = []
    for rule in rules:
        try:
            pattern, factor = rule
            pattern, factor = str(pattern), float(factor)
        except (TypeError, ValueError):
            raise ValueError(
                f"config.optim.learning_rate_multipliers has {rule!r}: each rule is a pair "
                "(pattern, factor)."
            ) from None
        if not 0 <= factor < math.inf:
            raise ValueError(
                f"config.optim.learning_rate_multipliers has the factor {factor} for '{pattern}': "
                "use a number ≥ 0."
            )
        pairs.append((pattern, factor))
    return pairs
