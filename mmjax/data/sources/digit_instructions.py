"""Instructions about handwritten digits: counting, comparing and adding those in an image.

An image has one to four digits of MNIST. Which digits occur together decides the split: no set of
digits of a test image is in a training image, and no handwriting either.

A response may be the answer alone, or a rationale that ends with it, for chain of thought (Wei et
al. 2022, arXiv 2201.11903): the digits in reading order and, of a sum, its steps or a call of a
calculator.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.builders.emoji_names import fraction_of
from mmjax.data.draws import PLACES, row_rng
from mmjax.data.source import Source
from mmjax.data.sources.phrasings import ANSWER, Task, check, conversation
from mmjax.data.text.calls import Call
from mmjax.data.transforms.decode import decode_image

TASKS = {
    "count": Task(
        (
            "How many digits are there?",
            "Count the digits.",
            "What is the number of digits in the image?",
            "How many digits do you see?",
            "Tell me how many digits are drawn.",
            "Give the count of digits.",
        ),
        ("How many numerals are shown?", "The image has how many digits?"),
    ),
    "sum": Task(
        (
            "What is the sum of the digits?",
            "Add the digits.",
            "Add up all digits in the image.",
            "What do the digits sum to?",
            "Compute the total of the digits.",
            "How much are the digits together?",
        ),
        ("Sum all numerals shown.", "What total do the digits give?"),
    ),
    "largest": Task(
        (
            "What is the largest digit?",
            "Which digit is the largest?",
            "Name the biggest digit.",
            "Give the highest digit in the image.",
            "Find the maximum of the digits.",
            "Which of the digits is greatest?",
        ),
        ("What is the maximum shown?", "Tell me the highest numeral."),
    ),
    "contains": Task(
        (
            "Is there a {} in the image?",
            "Do you see a {}?",
            "Does the image show a {}?",
            "Is one of the digits a {}?",
            "Can you find a {}?",
            "Is a {} drawn here?",
        ),
        ("Is any digit a {}?", "Does a {} occur?"),
    ),
}
SIDE = 28  # pixels of a digit
TEST = 0.2  # of the sets of digits
TARGETS = ("answer", "steps", "tool")


def held_out(digits: Sequence[int]) -> bool:
    """Whether images with these digits, in any order, are in the test split."""
    if len(digits) == 1:  # each digit has to be learned
        return False
    key = ",".join(map(str, sorted(digits)))
    return fraction_of(key, "mmjax digit instructions") < TEST


class DigitInstructions(Source):
    """See `open_digit_instructions`."""

    def __init__(
        self,
        source: Source,
        name: str,
        test: bool,
        phrasings: str,
        tasks: Sequence[str],
        targets: str,
        seed: int,
    ):
        self.name, self._source, self._test, self._seed = name, source, test, seed
        self._targets = targets
        self._phrasings, self._tasks = phrasings, tuple(tasks)
        labels = [source.meta(i)["label"] for i in range(len(source))]
        self._of_digit = [np.flatnonzero(np.asarray(labels) == d) for d in range(10)]
        self._length = len(source)
        known = [q for task in tasks for q in TASKS[task].known]
        self.corpus = [*known, *(f"{n} {answer}" for n in range(37) for answer in ("yes", "no"))]
        if targets != "answer":
            rows = [self.meta(i)["messages"] for i in range(min(self._length, 500))]
            self.corpus += [m["content"] for row in rows for m in row if m["role"] != "user"]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, digits, _ = self._drawn(index)
        image = np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8)
        places = rng.permutation(4)[: len(digits)]  # the same as in `_reading`
        for digit, place in zip(digits, places):
            chosen = rng.choice(self._of_digit[digit])
            top, left = SIDE * (place // 2), SIDE * (place % 2)
            image[top : top + SIDE, left : left + SIDE] = _pixels(self._source[int(chosen)])
        return {**self.meta(index), "image": image}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        rng, digits, task = self._drawn(index)
        thing = ""
        if task == "contains":
            has = rng.random() < 0.5
            others = [d for d in range(10) if d not in digits]
            thing = str(rng.choice(digits if has else others))
            answer = "yes" if has else "no"
        else:
            numbers = {"count": len(digits), "sum": sum(digits), "largest": max(digits)}
            answer = str(numbers[task])
        question = TASKS[task].worded(self._phrasings, f"{self.name}[{index}]", thing)
        made = conversation(question, answer, task)
        if self._targets != "answer":
            made["messages"] = [made["messages"][0], *self._rationale(index, task, answer)]
        calls = task == "sum" and len(digits) > 1
        known = {"digits": digits, "steps": len(digits), "tool": "calculator" if calls else ""}
        return {"key": f"{self.name}[{index}]", **known, **made}

    def _rationale(self, index: int, task: str, answer: str) -> list[dict[str, str]]:
        """The messages of a response with its rationale."""
        read = self._reading(index)
        text = " ".join(map(str, read)) + "."
        last = f"{ANSWER} {answer}"
        if task != "sum" or len(read) == 1:
            return [{"role": "assistant", "content": f"{text} {last}"}]
        if self._targets == "tool":
            call = Call("calculator", " + ".join(map(str, read)))
            return [
                {"role": "assistant", "content": f"{text} {call}"},
                {"role": "tool", "content": answer},
                {"role": "assistant", "content": last},
            ]
        totals = np.cumsum(read)
        steps = [f"{a} + {b} = {a + b}." for a, b in zip(totals, read[1:])]
        return [{"role": "assistant", "content": " ".join([text, *steps, last])}]

    def _reading(self, index: int) -> list[int]:
        """The digits of an image in reading order."""
        rng, digits, _ = self._drawn(index)
        places = rng.permutation(4)[: len(digits)]
        return [digits[i] for i in np.argsort(places)]

    def _drawn(self, index: int) -> tuple[np.random.Generator, list[int], str]:
        """The digits of an image and its task, and the generator of all else."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        rng = row_rng(self._seed, index, PLACES)
        while True:
            digits = rng.integers(10, size=1 + rng.integers(4)).tolist()
            if held_out(digits) == self._test:
                return rng, digits, self._tasks[rng.integers(len(self._tasks))]


def _pixels(example: dict[str, Any]) -> np.ndarray:
    image = example["image"]
    image = decode_image(image) if isinstance(image, bytes) else np.asarray(image)
    return np.broadcast_to(image.reshape(SIDE, SIDE, -1), (SIDE, SIDE, 3))


def open_digit_instructions(
    source: Source,
    test: bool = False,
    phrasings: str = "known",
    tasks: Sequence[str] = tuple(TASKS),
    targets: str = "answer",
    seed: int = 0,
) -> DigitInstructions:
    """As many instructions as a source of single digits has images: see `open_emoji_instructions`.

    Args:
      source: images of 28 x 28 pixels with labels 0 to 9, such as a split of `mnist_digits`.
      test: images with the sets of digits that are held out, else with the others.
      targets: responses are the 'answer', or 'steps' that end with "Answer: " and it; with 'tool'
        the digits of a sum are added by a call of the calculator.

    Raises:
      ValueError: an unknown task, kind of phrasings or targets, or a source of other labels.
    """
    check(phrasings, tasks, TASKS, "the digit instructions")
    if targets not in TARGETS:
        raise ValueError(f"The targets of the digit instructions are '{targets}': use {TARGETS}.")
    if source.class_names is None or len(source.class_names) != 10:
        raise ValueError(f"{source.name} has no labels of ten digits: use mnist_digits.")
    name = f"digit_instructions/{'test' if test else 'train'}/{phrasings}"
    return DigitInstructions(source, name, test, phrasings, tasks, targets, seed)
