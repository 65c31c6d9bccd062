"""Whether our number for a claim is the published one."""

import dataclasses
from collections.abc import Sequence

from experiments.ledger.claims import Claim, limits, value
from experiments.ledger.count import count

PASS, FAIL, NOT_RUN = "pass", "fail", "not run"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A claim and our number.

    Attributes:
      exact, printed: whether it is the original code's count, and the printed value within its
        tolerance; None: the claim has no such value, or there is no number of ours.
      ratio: ours over the published value, or over the exact one where none is printed.
    """

    claim: Claim
    ours: float | None
    exact: bool | None = None
    printed: bool | None = None
    ratio: float | None = None

    @property
    def status(self) -> str:
        """PASS, FAIL or NOT_RUN."""
        if self.ours is None:
            return NOT_RUN
        return FAIL if False in (self.exact, self.printed) else PASS


def outcome(claim: Claim) -> Outcome:
    """The outcome of a claim; counts it if it can be counted.

    Raises:
      ValueError: a model that cannot be built, with the claim's name.
    """
    ours = claim.ours
    if claim.kind == "counted" and not claim.missing:
        try:
            ours = count(claim.described)
        except ValueError as error:
            raise ValueError(f"The claim '{claim.name}' cannot be counted: {error}") from None
    if ours is None:
        return Outcome(claim, None)
    exact = None if claim.exact is None else ours == claim.exact
    printed = None
    if claim.published is not None:
        low, high = limits(claim.published, claim.tolerance)
        printed = low <= ours <= high
    reference = claim.exact if claim.published is None else value(claim.published)
    return Outcome(claim, ours, exact, printed, ours / reference if reference else None)


def summary(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many there are of each status."""
    return {
        status: sum(one.status == status for one in outcomes) for status in (PASS, FAIL, NOT_RUN)
    }
