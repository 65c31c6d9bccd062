"""Labels in the arguments of a call."""

MOST = 50  # labels of a call


def read_labels(arguments: str) -> list[str]:
    """The labels between commas, each once.

    Raises:
      ValueError: more than `MOST`.
    """
    labels = list(dict.fromkeys(filter(None, (part.strip() for part in arguments.split(",")))))
    if len(labels) > MOST:
        raise ValueError(f"there are {len(labels)} labels, and at most {MOST} fit")
    return labels
