"""A run of an ensemble, opened once however many evaluators average over it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmjax.system import Variables
from mmjax.workdir.checksum import checksums


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


def digest_of(variables: Variables) -> str:
    """16 hex digits that change with any of the variables."""
    sums = {path: int(x) for path, x in checksums(variables).items()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()[:16]
