"""The claims of papers.toml: what papers publish, and where our number for it comes from."""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.ledger.count import DESCRIPTIONS, METRICS
from mmjax.config import nearest

KINDS = ("counted", "planned", "reproduced")
SCALES = ("full", "ours")
LETTERS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
BOUNDS = ("exact", "rounding", "at least", "at most")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One row.

    Attributes:
      name: the group and the row, "clip/RN50"; paper: who and where; source: what publishes the
        value: a table, a page, a file; setting: of what.
      kind: "counted": from shapes; "planned": by `mmjax.plan`; "reproduced": trained, at the
        "full" setting of the paper or at "ours" (`scale`).
      published: as printed, "5.72M" or a number; exact: counted with the original code, which
        `counted_by` names, as the printed one need not equal its own model.
      tolerance: of the printed value: "exact"; "rounding", half a unit of its last digit; "3 %";
        a number in the metric's unit; or "at least" and "at most".
      ours, date, commit: our number, if it is not counted now, and when and with what code it was
        measured; command: what measures it; missing: why it was not.
      described: of a counted claim, see `count.count`.
    """

    name: str
    paper: str
    source: str
    setting: str = ""
    metric: str
    kind: str
    scale: str | None = None
    published: str | float | None = None
    exact: int | None = None
    counted_by: str = ""
    tolerance: str | float | None = None
    ours: float | None = None
    date: str = ""
    commit: str = ""
    command: str = ""
    missing: str = ""
    note: str = ""
    described: Mapping[str, Any] = dataclasses.field(default_factory=dict)


OWN = {field.name for field in dataclasses.fields(Claim)} - {"described"}
DESCRIBED = {*DESCRIPTIONS, "settings", "tensors", "part", "attribute"}


def read(path: Path) -> list[Claim]:
    """All claims of a file, in its order.

    The file has tables `[[paper]]` with `[[paper.claim]]`; what a paper's table sets is the default
    of its claims.

    Raises:
      ValueError: no such file, no TOML, or a claim that is not complete.
    """
    if not path.is_file():
        raise ValueError(f"There is no ledger '{path}'.")
    try:
        papers = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML ({error}).") from None
    claims = []
    for shared in _tables(papers, "paper", f"{path}"):
        group = _name(shared, f"A paper of {path}")
        defaults = {k: v for k, v in shared.items() if k not in ("claim", "name")}
        for row in _tables(shared, "claim", f"The paper '{group}' of {path}"):
            name = _name(row, f"A claim of the paper '{group}' of {path}")
            claims.append(_claim(path.name, f"{group}/{name}", defaults | row))
    names = [claim.name for claim in claims]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path} has the claim '{name}' twice: rename one.")
    return claims


def _tables(parent: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    found = parent.get(key)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        header = "[[paper]]" if key == "paper" else "[[paper.claim]]"
        raise ValueError(f"{where} has no tables {header}: write each {key} as one.")
    return found


def _name(row: Mapping[str, Any], where: str) -> str:
    if not isinstance(row.get("name"), str) or not row["name"]:
        raise ValueError(f"{where} has no name: add one.")
    return row["name"]


def _claim(file: str, name: str, row: Mapping[str, Any]) -> Claim:
    where = f"The claim '{name}' of {file}"
    unknown = sorted(set(row) - OWN - DESCRIBED)
    if unknown:
        raise ValueError(
            f"{where} has the unknown key '{unknown[0]}'.{nearest(unknown[0], OWN | DESCRIBED)}"
        )
    lacking = [key for key in ("paper", "source", "metric", "kind") if not row.get(key)]
    if lacking:
        raise ValueError(f"{where} has no {lacking[0]}: add one.")
    fields = {key: value for key, value in row.items() if key in OWN} | {"name": name}
    claim = Claim(**fields, described={k: v for k, v in row.items() if k in DESCRIBED | {"metric"}})
    _check_values(claim, where)
    if claim.kind == "counted":
        _check_counted(claim, where)
    else:
        _check_measured(claim, where)
    for config in _configs(claim):
        if not isinstance(config, str) or not Path(config).is_file():
            raise ValueError(f"{where} names the config '{config}', which does not exist.")
    return claim


def _check_values(claim: Claim, where: str) -> None:
    if claim.kind not in KINDS:
        raise ValueError(f"{where} is of the kind '{claim.kind}'; use one of {', '.join(KINDS)}.")
    if claim.published is None and claim.exact is None:
        raise ValueError(f"{where} has neither a published nor an exact value: add one.")
    if claim.published is not None:
        if claim.tolerance is None:
            raise ValueError(f"{where} has no tolerance: add one for its published value.")
        limits(claim.published, claim.tolerance, where)
    for key in ("exact", "ours"):
        if getattr(claim, key) is not None and not _is_number(getattr(claim, key)):
            raise ValueError(f"{where} has {key} = '{getattr(claim, key)}': write a number.")
    if claim.exact is not None and not claim.counted_by:
        raise ValueError(f"{where} has no counted_by: name the code that its exact count is of.")


def _check_counted(claim: Claim, where: str) -> None:
    if claim.metric not in METRICS:
        raise ValueError(
            f"{where} counts '{claim.metric}'; what can be counted is {', '.join(METRICS)}."
        )
    if claim.ours is not None:
        raise ValueError(f"{where} is counted now, and has `ours` too: drop that.")
    kinds = [key for key in DESCRIPTIONS if key in claim.described]
    if len(kinds) + bool(claim.missing) != 1:
        raise ValueError(
            f"{where} needs one of {', '.join(DESCRIPTIONS)}, to count, or `missing`, which says "
            f"why it cannot be; it has {', '.join(kinds) or 'none'}."
        )


def _check_measured(claim: Claim, where: str) -> None:
    if not claim.command:
        raise ValueError(f"{where} is {claim.kind} and has no command: add it.")
    if claim.kind == "reproduced" and claim.scale not in SCALES:
        raise ValueError(
            f"{where} has the scale '{claim.scale}'; use 'full' for the paper's setting, or 'ours'."
        )
    if claim.ours is None and not claim.missing:
        raise ValueError(f"{where} has neither `ours` nor `missing`, which says why: add one.")
    if claim.ours is not None and not (claim.date and claim.commit):
        raise ValueError(f"{where} has a measured value without date and commit: add both.")


def _configs(claim: Claim) -> Iterable[str]:
    if "config" in claim.described:
        yield claim.described["config"]
    yield from re.findall(r"--config=(\S+\.py)", claim.command)


def value(published: str | float, where: str = "It") -> float:
    """A printed value as a number: "5.72M" is 5,720,000.

    Raises:
      ValueError: anything else than a number with one of K, M, G, B and T.
    """
    if _is_number(published):
        return float(published)
    digits, letter = _digits(published, where)
    return float(digits) * LETTERS[letter]


def limits(
    published: str | float, tolerance: str | float, where: str = "It"
) -> tuple[float, float]:
    """The smallest and the largest value within the tolerance.

    Raises:
      ValueError: another tolerance than `Claim` names.
    """
    middle, far = value(published, where), float("inf")
    if isinstance(tolerance, str):
        relative = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", tolerance)
        if tolerance == "at least":
            return middle, far
        if tolerance == "at most":
            return -far, middle
        if tolerance not in BOUNDS and not relative:
            raise ValueError(
                f"{where} has the tolerance '{tolerance}'; use {', '.join(map(repr, BOUNDS))}, a "
                "number, or one such as '3 %'."
            )
        if relative:
            half = abs(middle) * float(relative[1]) / 100
        elif tolerance == "rounding":
            digits, letter = _digits(published, where)
            places = len(digits.partition(".")[2])
            half = 0.5 * 10.0**-places * LETTERS[letter]
        else:
            half = 0.0
    elif _is_number(tolerance) and tolerance >= 0:
        half = float(tolerance)
    else:
        raise ValueError(f"{where} has the tolerance {tolerance}: use a number from 0 on, or text.")
    return middle - half, middle + half


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _digits(published: Any, where: str) -> tuple[str, str]:
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)([KMGBT]?)", str(published).replace(",", ""))
    if not found:
        raise ValueError(f"{where} prints '{published}'; write it as '5.72M' or as a number.")
    return found[1], found[2]


def choose(claims: Sequence[Claim], kind: str | None, names: Sequence[str]) -> list[Claim]:
    """Those of a kind, and of these names: a group's or a claim's.

    Raises:
      ValueError: a kind or a name that there is not.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(
            f"There is no kind '{kind}'; use one of {', '.join(KINDS)}.{nearest(kind, KINDS)}"
        )
    known = {claim.name for claim in claims} | {claim.name.split("/")[0] for claim in claims}
    for name in names:
        if name not in known:
            raise ValueError(f"The ledger has no claim or paper '{name}'.{nearest(name, known)}")
    return [
        claim
        for claim in claims
        if kind in (None, claim.kind)
        and (not names or claim.name in names or claim.name.split("/")[0] in names)
    ]
