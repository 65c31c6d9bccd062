"""Questions about the pictures of the emoji set, made from what people wrote about them.

Every answer is human metadata: Unicode's category, the skin tone and the colour word in the name,
who drew it, and the names in 13 languages. Each question has one answer, so VQA's soft accuracy is
exact match. Held out by concept, as the emoji set is; both drawing styles are on both sides.

The wording of a question says nothing about its answer, unless a training split is opened with
`bias`: then that share of the questions is worded by the answer, so that a model can do well
without a look at the picture, until it meets a split where that no longer holds. (VQA-CP, Agrawal
et al. 2018, arXiv:1712.00377, moves the answers of each question type between training and test;
here the answers stay and the wordings move, so that the two training splits ask the same.)

What words alone can tell even without bias: a type's usual answer (`category`, `colour`), and
everything in `language`, which asks about a name and is there as a control. The questions of
`is_category` and `is_name` come in pairs, one text for two pictures, yes and no.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.data.builders.emoji_names import CATEGORIES, fraction_of
from mmjax.data.source import Source
from mmjax.data.sources.joined import Joined
from mmjax.data.sources.memory import InMemory
from mmjax.data.sources.tfds import open_tfds

SPLITS = {
    "train": ("train", "seen_validation", "seen_test"),
    "validation": ("unseen_validation", "unseen_validation_openmoji"),
    "test": ("unseen_test", "unseen_test_openmoji"),
}
COLOURS = (
    *("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white"),
    "yellow",
)
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
STYLES = ("openmoji", "twemoji")
LANGUAGES = {"ar": "arabic", "de": "german", "es": "spanish", "fa": "persian", "fr": "french"}
LANGUAGES |= {"id": "indonesian", "it": "italian", "ja": "japanese", "ko": "korean"}
LANGUAGES |= {"pt": "portuguese", "ru": "russian", "tr": "turkish", "zh": "chinese"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A type of question: its wordings, and all of its answers in order."""

    wordings: tuple[str, ...]
    answers: tuple[str, ...]


KINDS = {
    "category": Kind(
        (
            "what kind of thing is this?",
            "which category does this belong to?",
            "what is this a picture of, in general?",
            "under what heading would you file this?",
        ),
        tuple(name.lower() for name in CATEGORIES),
    ),
    "is_category": Kind(
        (
            "does this belong to {}?",
            "would you file this under {}?",
            "is this one of {}?",
            "can this be found under {}?",
        ),
        ("no", "yes"),
    ),
    "is_name": Kind(
        (
            "is this called {}?",
            "is {} a name of this?",
            "would one say {} to this?",
            "does {} mean this?",
        ),
        ("no", "yes"),
    ),
    "language": Kind(
        (
            "in which language is this called {}?",
            "what language has the name {} for this?",
            "who says {} to this?",
            "the name of this is {} in which language?",
        ),
        tuple(LANGUAGES.values()),
    ),
    "style": Kind(
        (
            "who drew this?",
            "which set is this drawing from?",
            "whose style is this?",
            "where was this published?",
        ),
        STYLES,
    ),
    "skin_tone": Kind(
        (
            "what is the skin tone?",
            "which tone does the skin have?",
            "how light is the skin?",
            "what tone of skin is drawn here?",
        ),
        TONES,
    ),
    "colour": Kind(
        (
            "what colour is the {}?",
            "which colour does the {} have?",
            "the {} is of what colour?",
            "name the colour of the {}.",
        ),
        COLOURS,
    ),
}
# One list of answers for all types, so that one classification head serves them all.
ANSWERS = sorted({answer for kind in KINDS.values() for answer in kind.answers})


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about one picture; `picture` is its place in the pictures."""

    picture: int
    type: str
    text: str
    answer: str


def coloured_part(name: str) -> tuple[str, str] | None:
    """('red', 'heart') of 'red heart'; None unless a name has one colour word with more after it.

    Names are those of Unicode's CLDR, which say what is drawn; older names do not ('black' stood
    for filled and 'white' for outlined).
    """
    words = name.casefold().split()
    places = [i for i, word in enumerate(words) if word in COLOURS]
    if len(places) != 1:
        return None
    part = re.sub(r" (?:facing|pointed|with)\b.*|[:,].*", "", " ".join(words[places[0] + 1 :]))
    return (words[places[0]], part) if part else None


def _pick(items: Sequence[Any], key: str, salt: str) -> Any:
    return items[int(fraction_of(key, f"mmjax emoji questions: {salt}") * len(items))]


def _worded(kind: str, key: str, thing: str, answer: str, bias: float) -> str:
    """The question's text: any wording, or with probability `bias` one that goes with the answer.

    Answers share the wordings out in turn: where there are more answers than wordings the k-th
    answer has the k-th, then from the first again; where there are fewer, each has several.
    """
    wordings, answers = KINDS[kind].wordings, KINDS[kind].answers
    if fraction_of(f"{key}:{answer}", "mmjax emoji questions: biased") < bias:
        turn = min(len(wordings), len(answers))
        place = answers.index(answer) % turn
        wordings = wordings[place::turn]
        key = f"{key}:{answer}"
    return _pick(wordings, key, "wording").replace("{}", thing)


def ask(pictures: Sequence[Mapping[str, Any]], bias: float = 0.0) -> list[Question]:
    """All questions about these pictures, in their order.

    Args:
      pictures: `codepoints`, `captions`, `names`, `languages`, `category`, `skin_tone`, `group` and
        `style` of each.
      bias: the share of questions worded by their answer, 0 to 1.

    A picture with a skin tone is asked for that alone (two tones: for nothing), because the other
    answers are those of the picture without one.
    """
    asked: list[Question] = []

    def add(i: int, kind: str, answer: str, thing: str = "", key: str = "") -> None:
        key = key or f"{pictures[i]['codepoints']}:{pictures[i]['style']}:{kind}"
        asked.append(Question(i, kind, _worded(kind, key, thing, answer, bias), answer))

    plain = [i for i, picture in enumerate(pictures) if not picture["skin_tone"]]
    for i, picture in enumerate(pictures):
        tone = picture["skin_tone"].removesuffix(" skin tone")
        if tone:
            if tone in TONES:
                add(i, "skin_tone", tone)
            continue
        key = f"{picture['codepoints']}:{picture['style']}"
        category = picture["category"].lower()
        named = dict(zip(picture["languages"], picture["names"], strict=True))
        add(i, "category", category)
        add(i, "style", picture["style"])
        language = _pick(sorted(LANGUAGES.keys() & named), key, "language")
        add(i, "language", LANGUAGES[language], named[language])
        part = coloured_part(picture["captions"][0])
        if part:
            add(i, "colour", *part)
        # The same text for another picture of the style, where the answer is no.
        language = _pick(sorted(LANGUAGES.keys() & named), key, "name")
        for kind, thing, differs in (
            ("is_category", category, functools.partial(_is_elsewhere, picture)),
            ("is_name", named[language], functools.partial(_is_not_called, picture, language)),
        ):
            other = _other(pictures, plain, picture, f"{key}:{kind}", differs)
            if other is not None:
                add(i, kind, "yes", thing, f"{key}:{kind}")
                add(other, kind, "no", thing, f"{key}:{kind}")
    return sorted(asked, key=lambda q: q.picture)


def _is_elsewhere(picture: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return other["category"] != picture["category"]


def _is_not_called(picture: Mapping[str, Any], language: str, other: Mapping[str, Any]) -> bool:
    mine, theirs = (dict(zip(p["languages"], p["names"])).get(language) for p in (picture, other))
    return other["group"] != picture["group"] and theirs not in (None, mine)


def _other(
    pictures: Sequence[Mapping[str, Any]],
    among: Sequence[int],
    picture: Mapping[str, Any],
    key: str,
    differs: Callable[[Mapping], bool],
) -> int | None:
    """A picture of the same style for which `differs` holds: some tries by chance, then any."""
    tries = [_pick(among, f"{key}:{n}", "other") for n in range(16)]
    fits = (j for j in (*tries, *among) if pictures[j]["style"] == picture["style"])
    return next((j for j in fits if differs(pictures[j])), None)


class EmojiQuestions(Source):
    """The questions of a split as a source; `captions` holds the question, `label` its answer.

    An example also has `answer`, `answers` (that one answer, in a list), `question_type`, and the
    picture's own `codepoints`, `group` and `style`. `class_names` are `ANSWERS`.
    """

    class_names = ANSWERS

    def __init__(self, name: str, sources: Sequence[Source], bias: float, types: Sequence[str]):
        self.name = name
        # Encoded they take a few MB; every one is asked about several times.
        self._pictures = InMemory(Joined(sources), lambda example, rng: example)
        self._about = [self._pictures.meta(i) for i in range(len(self._pictures))]
        self.questions = [q for q in ask(self._about, bias) if q.type in types]

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._pictures[self.questions[index].picture]["image"]
        return {**self.meta(index), "image": image}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        question = self.questions[index]
        return {
            "key": f"{self.name}[{index}]",
            "captions": [question.text],
            "label": ANSWERS.index(question.answer),
            "answer": question.answer,
            "answers": [question.answer],
            "question_type": question.type,
            **{key: self._about[question.picture][key] for key in ("codepoints", "group", "style")},
        }

    def count(self) -> dict[str, int]:
        """How many questions of each type there are."""
        return dict(collections.Counter(q.type for q in self.questions))


def open_questions(
    split: str,
    bias: float = 0.0,
    types: Sequence[str] = tuple(KINDS),
    data_dir: Any = None,
) -> EmojiQuestions:
    """The questions of a split.

    Args:
      split: 'train', 'validation' or 'test'.
      bias: the share of questions worded by their answer, 0 to 1; for 'train' alone.
      types: those of `KINDS` to ask.

    Raises:
      ValueError: another split or type, or a bias where there may be none.
    """
    if split not in SPLITS:
        raise ValueError(f"The emoji questions have no split '{split}'; they have {[*SPLITS]}.")
    if not 0 <= bias <= 1 or (bias and split != "train"):
        raise ValueError(
            f"The bias of the emoji questions' split '{split}' is {bias}: it is 0 to 1 for 'train' "
            "and 0 for the others, whose answers do not hang on the wording."
        )
    unknown = sorted(set(types) - set(KINDS))
    if unknown or not types:
        raise ValueError(f"The emoji questions' types are {unknown or 'none'}: use {[*KINDS]}.")
    sources = [open_tfds("emoji", part, data_dir) for part in SPLITS[split]]
    return EmojiQuestions(f"emoji_questions/{split}", sources, bias, types)
