"""A run of an ensemble, opened once however many evaluators average over it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmjax.system import Variables


class Member(NamedTuple):
    """What evaluators of an ensemble need of another run.

    Attributes:
      runner: its `Runner`; variables: of its newest checkpoint when it was opened; step: of that.
      digest: 16 hex digits that change with any of the variables.
    """

    runner: Any
    variables: Variables
    step: int
    digest: str

    @property
    def identity(self) -> Mapping[str, int | str]:
        """What makes results of an ensemble those of other members: not the path, which may hold
        another run tomorrow."""
        return {"step": self.step, "digest": self.digest}
