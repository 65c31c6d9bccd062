"""Instructions about emoji, made from human-written metadata, in many phrasings.

Concepts are split as in the emoji set; of each task's phrasings some are only asked in evaluation,
so that a test can hold out the concept, the phrasing, or both.
"""

from collections.abc import Sequence
from typing import Any

from mmjax.data.builders.emoji_names import fraction_of
from mmjax.data.source import Source
from mmjax.data.sources.emoji_questions import SPLITS, ask
from mmjax.data.sources.joined import Joined
from mmjax.data.sources.memory import InMemory
from mmjax.data.sources.phrasings import Task, check, conversation
from mmjax.data.sources.tfds import open_tfds

TASKS = {
    "name": Task(
        (
            "What is this?",
            "Name what you see.",
            "What does the image show?",
            "Describe the image in a few words.",
            "Give this drawing a title.",
            "Which emoji is this?",
            "Tell me what is drawn here.",
            "What would you call this?",
        ),
        ("What am I looking at?", "Say what is in the image.", "Caption this."),
    ),
    "category": Task(
        (
            "What kind of thing is this?",
            "Which category does this belong to?",
            "Under what heading would you file this?",
            "What sort of emoji is this?",
            "Name the category of the drawing.",
            "In which group would you look for this?",
            "What is this, in general?",
            "Classify the image.",
        ),
        ("Where would this be listed?", "Which class is it in?", "What type of thing is drawn?"),
    ),
    "colour": Task(
        (
            "What colour is the {}?",
            "Which colour does the {} have?",
            "Name the colour of the {}.",
            "The {} is of what colour?",
            "Tell me the colour of the {}.",
            "In what colour is the {} drawn?",
        ),
        ("What is the {}'s colour?", "How is the {} coloured?"),
    ),
    "skin_tone": Task(
        (
            "What is the skin tone?",
            "Which tone does the skin have?",
            "How light is the skin?",
            "Name the tone of the skin.",
            "What tone of skin is drawn here?",
            "Describe the skin tone.",
        ),
        ("How dark is the skin?", "Which skin tone is this?"),
    ),
    "is_category": Task(
        (
            "Does this belong to {}?",
            "Would you file this under {}?",
            "Is this one of {}?",
            "Can this be found under {}?",
            "Is {} the right category?",
            "Would you look for this among {}?",
        ),
        ("Is this in the group {}?", "Does {} describe what this is?"),
    ),
    "shows": Task(
        (
            "Is this {}?",
            "Does the image show {}?",
            "Is {} drawn here?",
            "Do you see {}?",
            "Would you call this {}?",
            "Is {} in the image?",
        ),
        ("Can {} be seen here?", "Does this drawing depict {}?"),
    ),
}


class EmojiInstructions(Source):
    """See `open_emoji_instructions`."""

    def __init__(self, name: str, sources: Sequence[Source], phrasings: str, tasks: Sequence[str]):
        self.name, self.inputs = name, sources
        self._images = InMemory(Joined(sources), lambda example, rng: example)
        self._meta = [self._images.meta(i) for i in range(len(self._images))]
        self._rows = [row for row in self._asked(phrasings) if row[1] in tasks]
        self.corpus = [text for _, _, q, a in self._rows for text in (q, a)]

    def _asked(self, phrasings: str) -> list[tuple[int, str, str, str]]:
        """(image, task, question, answer) of each instruction, those of an image together."""
        rows = []

        def add(i: int, task: str, answer: str, thing: str = "") -> None:
            # The same phrasing whatever the answer is.
            key = f"{self._meta[i]['codepoints']}:{self._meta[i]['style']}:{task}"
            rows.append((i, task, TASKS[task].worded(phrasings, key, thing), answer))

        for question in ask(self._meta):
            if question.type in TASKS:
                add(question.image, question.type, question.answer, question.thing)
        plain = [i for i, meta in enumerate(self._meta) if not meta["skin_tone"]]
        for i in plain:
            name = self._meta[i]["captions"][0]
            add(i, "name", name)
            other = self._other(i, plain)
            if other is not None:  # the same question of an image that does not show it
                add(i, "shows", "yes", name)
                add(other, "shows", "no", name)
        return sorted(rows, key=lambda row: row[0])

    def _other(self, i: int, among: Sequence[int]) -> int | None:
        """An image of the same style and another group; None: there is none."""
        image = self._meta[i]
        for n in range(64):
            key = f"{image['codepoints']}:{image['style']}:{n}"
            j = among[int(fraction_of(key, "mmjax emoji instructions") * len(among))]
            other = self._meta[j]
            if other["style"] == image["style"] and other["group"] != image["group"]:
                return j
        return None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.meta(index), "image": self._images[self._rows[index][0]]["image"]}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        image, task, question, answer = self._rows[index]
        kept = {name: self._meta[image][name] for name in ("codepoints", "group", "style")}
        return {"key": f"{self.name}[{index}]", **conversation(question, answer, task), **kept}


def open_emoji_instructions(
    split: str,
    phrasings: str = "known",
    tasks: Sequence[str] = tuple(TASKS),
    data_dir: Any = None,
) -> EmojiInstructions:
    """The instructions of a split: examples with `messages` of one question and its answer.

    Yes/no questions come in pairs, about the same thing for two images, with both answers.

    Args:
      split: 'train', 'validation' or 'test'; no concept is in two of them.
      phrasings: 'known', those of training, or 'unseen'.
      tasks: of `TASKS`.

    Raises:
      ValueError: an unknown split, task or kind of phrasings.
    """
    if split not in SPLITS:
        raise ValueError(f"The emoji instructions have no split '{split}'; they have {[*SPLITS]}.")
    check(phrasings, tasks, TASKS, "the emoji instructions")
    sources = [open_tfds("emoji", part, data_dir) for part in SPLITS[split]]
    name = f"emoji_instructions/{split}/{phrasings}"
    return EmojiInstructions(name, sources, phrasings, tasks)
