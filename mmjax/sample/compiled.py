"""`System.sample` of a function that can be traced."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mmjax.sample import progress

Sample = Callable[[Any, Mapping[str, Any], Any, Mapping[str, Any]], Mapping[str, Any]]


def compiled(sample: Sample) -> Sample:
    """The same `(variables, batch, rng, settings) -> arrays`, compiled once for equal settings."""

    @functools.cache
    def program(settings: tuple, on_step: progress.OnStep | None) -> Callable:
        del on_step  # a part of the program, which calls it
        return jax.jit(lambda *arrays: sample(*arrays, dict(settings)))

    def run(variables, batch, rng, settings):
        given = tuple(sorted(settings.items()))
        return program(given, progress.current())(variables, dict(batch), rng)

    return run
