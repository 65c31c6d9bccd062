"""Yes/no questions about what an image shows, as a detection of what is there."""

from collections.abc import Sequence


def yes_no_metrics(answers: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """`accuracy`, `precision`, `recall`, `f1` and `yes_ratio` of answers to yes/no questions.

    "yes" is the positive class. An answer that begins with neither word counts as no, as in the
    reference code, and the fraction of these is `other`. Precision without a yes, and F1 without
    either, are 0.

    Args:
      truth: "yes" or "no" for each.

    Source: POPE, Li et al. 2023 (arXiv 2305.10355), section 4.1; RUCAIBox/POPE, evaluate.py.
    """
    words = [answer.lower().replace(".", " ").replace(",", " ").split() for answer in answers]
    said = [bool(w) and w[0] == "yes" for w in words]
    other = [not w or w[0] not in ("yes", "no") for w in words]
    right = [answer == "yes" for answer in truth]
    hits = sum(a and b for a, b in zip(said, right))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(right) if any(right) else 0.0
    total = precision + recall
    return {
        "accuracy": sum(a == b for a, b in zip(said, right)) / len(right),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / total if total else 0.0,
        "yes_ratio": sum(said) / len(said),
        "other": sum(other) / len(other),
    }
