"""Tasks that are asked in many ways, some of which are never used in training."""

import dataclasses
from collections.abc import Mapping, Sequence

from mmjax.data.builders.emoji_names import fraction_of

PHRASINGS = ("known", "unseen")
ANSWER = "Answer:"  # before the answer at the end of a rationale


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked: its phrasings of training, and those that are held out.

    A `{}` stands for what the question is about.
    """

    known: tuple[str, ...]
    unseen: tuple[str, ...]

    def worded(self, phrasings: str, key: str, thing: str = "") -> str:
        """One of the phrasings, chosen by the key, about a thing."""
        choices = getattr(self, phrasings)
        place = int(fraction_of(key, "mmjax phrasings") * len(choices))
        return choices[place].replace("{}", thing)


def check(phrasings: str, tasks: Sequence[str], known: Mapping[str, Task], what: str) -> None:
    """Raise ValueError for unknown phrasings or tasks."""
    if phrasings not in PHRASINGS:
        raise ValueError(f"The phrasings of {what} are '{phrasings}': use one of {PHRASINGS}.")
    wrong = sorted(set(tasks) - set(known))
    if wrong or not tasks:
        raise ValueError(f"The tasks of {what} are {wrong or 'none'}: use {[*known]}.")


def conversation(question: str, answer: str, task: str) -> dict:
    """The fields of an example with one question about its image.

    As for visual question answering, the question is also its caption.
    """
    messages = [
        {"role": "user", "content": f"<image>\n{question}"},
        {"role": "assistant", "content": answer},
    ]
    answered = {"answer": answer, "answers": [answer], "question_type": task}
    return {"messages": messages, "captions": [question], "images": 1, **answered}
