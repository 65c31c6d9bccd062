"""The steps of a sampler, reported while its compiled loop runs."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

OnStep = Callable[[int, int], None]
_current: contextvars.ContextVar[OnStep | None] = contextvars.ContextVar("on step", default=None)


@contextlib.contextmanager
def reported(on_step: OnStep) -> Iterator[None]:
    """Samplers that are traced inside the context call `on_step(step, steps)` on the host, with the
    number of each step that is computed, from 0, and that of all."""
    before = _current.set(on_step)
    try:
        yield
    finally:
        _current.reset(before)


def current() -> OnStep | None:
    """What samplers that are traced now report to."""
    return _current.get()


def report(step: jax.Array, steps: int) -> None:
    """Called by a sampler in the body of its loop."""
    on_step = _current.get()
    if on_step is not None:
        jax.debug.callback(lambda step: on_step(int(step), steps), step)
