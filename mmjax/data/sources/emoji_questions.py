"""Questions about the images of the emoji set, generated from human-written metadata.

Answers come from Unicode's category, the skin tone and the color word in the name, the drawing
style, and the names in 13 languages. Each question has one answer, so VQA's soft accuracy is exact
match. Splits are by concept, as in the emoji set; both drawing styles are in every split.

The wording of a question is independent of its answer, unless the training split is opened with
`bias`: then that fraction of the questions is worded according to the answer, so that a model can
answer them without the image, but not on splits without this bias. (VQA-CP, Agrawal et al. 2018,
arXiv:1712.00377, changes the answer distribution of each question type between training and test;
here the answers stay and the wordings change, so the biased and unbiased training splits ask the
same questions.)

Even without bias the text alone predicts a type's most frequent answer (`category`, `colour`), and
everything in `language`, which asks about a name and serves as a control. The questions of
`is_category` and `is_name` come in pairs: one text for two images, with the answers yes and no.
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
COLORS = (
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
    """A question type: its wordings, and all of its answers in order."""

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
        COLORS,
    ),
}
# One list of answers for all question types, for a single classification head.
ANSWERS = sorted({answer for kind in KINDS.values() for answer in kind.answers})


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about one image; `image` is the image's index, `thing` what it asks about."""

    image: int
    type: str
    text: str
    answer: str
    thing: str = ""


def colored_part(name: str) -> tuple[str, str] | None:
    """('red', 'heart') of 'red heart'; None unless the name has exactly one color word and a noun.

    For names of Unicode's CLDR, which describe the drawing; older names do not ('black' stood for
    filled and 'white' for outlined).
    """
    words = name.casefold().split()
    places = [i for i, word in enumerate(words) if word in COLORS]
    if len(places) != 1:
        return None
    part = re.sub(r" (?:facing|pointed|with)\b.*|[:,].*", "", " ".join(words[places[0] + 1 :]))
    return (words[places[0]], part) if part else None


def _pick(items: Sequence[Any], key: str, salt: str) -> Any:
    return items[int(fraction_of(key, f"mmjax emoji questions: {salt}") * len(items))]


def _worded(kind: str, key: str, thing: str, answer: str, bias: float) -> str:
    """The question's text: any wording, or with probability `bias` one assigned to the answer.

    Wordings are assigned to answers round-robin: with more answers than wordings, the k-th answer
    gets wording k modulo their number; with fewer, each answer gets several.
    """
    wordings, answers = KINDS[kind].wordings, KINDS[kind].answers
    if fraction_of(f"{key}:{answer}", "mmjax emoji questions: biased") < bias:
        turn = min(len(wordings), len(answers))
        place = answers.index(answer) % turn
        wordings = wordings[place::turn]
        key = f"{key}:{answer}"
    return _pick(wordings, key, "wording").replace("{}", thing)


def ask(images: Sequence[Mapping[str, Any]], bias: float = 0.0) -> list[Question]:
    """All questions about these images, in their order.

    Args:
      images: `codepoints`, `captions`, `names`, `languages`, `category`, `skin_tone`, `group` and
        `style` of each.
      bias: fraction of questions whose wording depends on the answer, 0 to 1.

    For an image with a skin tone only the tone is asked (with two tones, nothing), because the
    other answers are the same as for the image without one.
    """
    asked: list[Question] = []

    def add(i: int, kind: str, answer: str, thing: str = "", key: str = "") -> None:
        key = key or f"{images[i]['codepoints']}:{images[i]['style']}:{kind}"
        asked.append(Question(i, kind, _worded(kind, key, thing, answer, bias), answer, thing))

    plain = [i for i, image in enumerate(images) if not image["skin_tone"]]
    for i, image in enumerate(images):
        tone = image["skin_tone"].removesuffix(" skin tone")
        if tone:
            if tone in TONES:
                add(i, "skin_tone", tone)
            continue
        key = f"{image['codepoints']}:{image['style']}"
        category = image["category"].lower()
        named = dict(zip(image["languages"], image["names"], strict=True))
        add(i, "category", category)
        add(i, "style", image["style"])
        language = _pick(sorted(LANGUAGES.keys() & named), key, "language")
        add(i, "language", LANGUAGES[language], named[language])
        part = colored_part(image["captions"][0])
        if part:
            add(i, "colour", *part)
        # The same text for another image of the style, where the answer is no.
        language = _pick(sorted(LANGUAGES.keys() & named), key, "name")
        for kind, thing, differs in (
            ("is_category", category, functools.partial(_category_differs, image)),
            ("is_name", named[language], functools.partial(_name_differs, image, language)),
        ):
            other = _other(images, plain, image, f"{key}:{kind}", differs)
            if other is not None:
                add(i, kind, "yes", thing, f"{key}:{kind}")
                add(other, kind, "no", thing, f"{key}:{kind}")
    return sorted(asked, key=lambda q: q.image)


def _category_differs(image: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return other["category"] != image["category"]


def _name_differs(image: Mapping[str, Any], language: str, other: Mapping[str, Any]) -> bool:
    mine, theirs = (dict(zip(x["languages"], x["names"])).get(language) for x in (image, other))
    return other["group"] != image["group"] and theirs not in (None, mine)


def _other(
    images: Sequence[Mapping[str, Any]],
    among: Sequence[int],
    image: Mapping[str, Any],
    key: str,
    differs: Callable[[Mapping], bool],
) -> int | None:
    """An image of the same style for which `differs` is true: random candidates, then the first."""
    tries = [_pick(among, f"{key}:{n}", "other") for n in range(16)]
    fits = (j for j in (*tries, *among) if images[j]["style"] == image["style"])
    return next((j for j in fits if differs(images[j])), None)


class EmojiQuestions(Source):
    """The questions of a split as a source; `captions` holds the question, `label` its answer.

    An example also has `answer`, `answers` (that one answer, in a list), `question_type`, and the
    image's `codepoints`, `group` and `style`. `class_names` are `ANSWERS`.
    """

    class_names = ANSWERS

    def __init__(self, name: str, sources: Sequence[Source], bias: float, types: Sequence[str]):
        self.name, self.inputs = name, sources
        # Encoded images take a few MB, and each has several questions.
        self._images = InMemory(Joined(sources), lambda example, rng: example)
        self._meta = [self._images.meta(i) for i in range(len(self._images))]
        self.questions = [q for q in ask(self._meta, bias) if q.type in types]

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._images[self.questions[index].image]["image"]
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
            **{key: self._meta[question.image][key] for key in ("codepoints", "group", "style")},
        }

    def count(self) -> dict[str, int]:
        """The number of questions of each type."""
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
      bias: fraction of questions whose wording depends on the answer, 0 to 1; 'train' only.
      types: the question types to include, of `KINDS`.

    Raises:
      ValueError: an unknown split or type, or a bias for a split other than 'train'.
    """
    if split not in SPLITS:
        raise ValueError(f"The emoji questions have no split '{split}'; they have {[*SPLITS]}.")
    if not 0 <= bias <= 1 or (bias and split != "train"):
        raise ValueError(
            f"The bias of the emoji questions' split '{split}' is {bias}: it is 0 to 1 for 'train' "
            "and 0 for the others, whose wordings do not depend on the answer."
        )
    unknown = sorted(set(types) - set(KINDS))
    if unknown or not types:
        raise ValueError(f"The emoji questions' types are {unknown or 'none'}: use {[*KINDS]}.")
    sources = [open_tfds("emoji", part, data_dir) for part in SPLITS[split]]
    return EmojiQuestions(f"emoji_questions/{split}", sources, bias, types)
