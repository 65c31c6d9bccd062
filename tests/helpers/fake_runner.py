"""A stand-in for `mmjax.run.evaluation.Runner`: a run whose model is a function of arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mmjax.decode.generate import Generated
from mmjax.run.kept import Kept
from mmjax.run.member import Member


@dataclasses.dataclass(frozen=True)
class FakeRunner:
    """The interface that evaluators and the report use, in one process. Variables are arbitrary.

    Attributes:
      embed: (variables, batch) -> all outputs of the model.
      open_source, batches, attention, match_gradients, progress: as of `Runner`.
      write: settings -> ((variables, batch) -> a text for each row); None: it generates none.
      choose: texts -> ((variables, batch) -> [B, C]).
      draw: settings -> ((variables, batch, seed) -> samples); None: it samples nothing.
      members: workdir -> variables, of the runs that `open_member` finds.
      samples, step, kept: as of `Runner`.
    """

    open_source: Callable[[Any], Any]
    batches: Callable[..., Any]
    embed: Callable[[Any, Any], dict] = lambda variables, batch: {}
    write: Callable[..., Any] | None = None
    choose: Callable[..., Any] | None = None
    draw: Callable[..., Any] | None = None
    members: dict = dataclasses.field(default_factory=dict)
    samples: Any = None
    step: int = 0
    kept: Kept = dataclasses.field(default_factory=Kept)
    attention: Callable[[Any, Any], Any] = lambda variables, batch: None
    match_gradients: Callable[[Any, Any], Any] = lambda variables, batch: None
    tokenizer: Any = None
    batch_size: int = 8
    text_length: int = 0
    window: int = 0
    codes: int = 0
    class_names: Any = None
    spec: Any = None
    progress: Callable[[str, int, int], None] = lambda *args: None

    @property
    def rows(self):
        return slice(0, self.batch_size)

    def open_member(self, workdir):
        value, step = self.members[workdir], len(self.members)
        return Member(self, value, step, str(value))

    def apply(self, variables, batch, outputs):
        found = self.embed(variables, batch)
        return {name: found[name] for name in outputs if name in found}

    def output_names(self, batch, modalities):
        return sorted(self.embed(1.0, batch))

    def generate(self, settings, seed=0):
        write = self._has(self.write)(settings)
        return lambda variables, batch: Generated(write(variables, batch), None, None, None)

    def score(self, texts):
        return self._has(self.choose)(texts)

    def sample(self, settings):
        return self._has(self.draw)(settings)

    def gather(self, batch):
        return batch

    def _has(self, function):
        if function is None:
            raise ValueError("The system generates no text")
        return function
