"""Questions about emoji: answers are the metadata, wordings tell nothing unless they are to."""

import collections
import itertools

import pytest

from mmjax.data.open_source import open_source
from mmjax.data.source import Source, without_media
from mmjax.data.sources import emoji_questions
from mmjax.data.sources.emoji_questions import ANSWERS, KINDS, LANGUAGES, ask, colored_part
from mmjax.evals.vqa import answer_prior, vqa_metrics

CATEGORIES = KINDS["category"].answers


def picture(n, style="twemoji", tone="", name=None):
    return {
        "image": b"png of %d" % n,
        "codepoints": f"{n:x}",
        "captions": [name or f"thing {n}"],
        "names": [f"{language}-{n % 90}" for language in LANGUAGES],
        "languages": list(LANGUAGES),
        "category": CATEGORIES[n % 9].title(),
        "skin_tone": tone,
        "group": f"{n % 90:x}",
        "style": style,
    }


@pytest.fixture(scope="module")
def pictures():
    colours = [picture(900 + i, name=f"{c} heart") for i, c in enumerate(emoji_questions.COLORS)]
    tones = [picture(1000, tone=f"{t} skin tone") for t in emoji_questions.TONES]
    two = [picture(1001, tone="light skin tone, dark skin tone")]
    styles = [picture(n, style) for n in range(200) for style in emoji_questions.STYLES]
    return [*styles, *colours, *tones, *two]


def test_answers_are_the_metadata(pictures):
    questions = ask(pictures)
    of = collections.defaultdict(dict)
    for q in questions:
        about = pictures[q.image]
        named = dict(zip(about["languages"], about["names"]))
        assert q.answer in KINDS[q.type].answers and "{}" not in q.text
        if q.type == "category":
            assert q.answer == about["category"].lower()
        if q.type == "style":
            assert q.answer == about["style"]
        if q.type == "skin_tone":
            assert f"{q.answer} skin tone" == about["skin_tone"]
        if q.type == "colour":
            assert f"{q.answer} heart" == about["captions"][0] and "heart" in q.text
        if q.type == "language":
            (code,) = [c for c, name in LANGUAGES.items() if name == q.answer]
            assert named[code] in q.text
        if q.type == "is_category":
            assert (q.answer == "yes") == (about["category"].lower() in q.text)
        if q.type == "is_name":
            words = q.text.rstrip("?").split()
            assert (q.answer == "yes") == any(name in words for name in named.values())
        of[q.image].setdefault(q.type, []).append(q)
    for i, about in enumerate(pictures):
        if about["skin_tone"]:
            tones = ["skin_tone"] if "," not in about["skin_tone"] else []
            assert sorted(of.get(i, {})) == tones
        else:
            assert {"category", "style", "language", "is_category", "is_name"} <= set(of[i])


def test_yes_and_no_are_asked_in_the_same_words(pictures):
    pairs = collections.Counter(
        (q.type, q.text, q.answer) for q in ask(pictures) if q.type.startswith("is_")
    )
    assert len(pairs) > 100
    for (kind, text, answer), count in pairs.items():
        assert pairs[kind, text, {"yes": "no", "no": "yes"}[answer]] == count


def told_by_words(questions):
    """Accuracy of the most frequent answer to each wording of a type, over that of the type."""
    asked = [(q.type, next(w for w in KINDS[q.type].wordings if matches(w, q))) for q in questions]
    answers = [q.answer for q in questions]
    human = [[a] for a in answers]
    types = [q.type for q in questions]
    by = {
        p: vqa_metrics(answer_prior(p, asked, answers, asked), human, types)
        for p in ("type", "question")
    }
    return {k: by["question"][k] - by["type"][k] for k in by["type"] if k.startswith("type_")}


def matches(wording, question):
    start, _, end = wording.partition("{}")
    return question.text.startswith(start) and question.text.endswith(end)


def test_bias_moves_the_wordings_alone(pictures):
    fair, biased = ask(pictures), ask(pictures, 0.9)
    assert fair == ask(pictures) and biased == ask(pictures, 0.9)
    strip = [[(q.image, q.type, q.answer) for q in asked] for asked in (fair, biased)]
    assert sorted(strip[0]) == sorted(strip[1])
    few = {"type_colour", "type_skin_tone"}  # a dozen questions tell anything about themselves
    for kind, gain in told_by_words(fair).items():
        assert gain < 0.1 or kind in few
    for kind, gain in told_by_words(biased).items():
        # 9 or 13 answers to 4 wordings: at best 4 of them are told apart.
        assert gain > (0.15 if kind in ("type_category", "type_language") else 0.35) or kind in few


def test_every_answer_has_wordings_of_its_own_as_far_as_they_go(pictures):
    words = collections.defaultdict(set)
    for q in ask(pictures, 1.0):
        words[q.type, q.answer].add(next(w for w in KINDS[q.type].wordings if matches(w, q)))
    for kind in KINDS:
        for a, b in itertools.combinations(KINDS[kind].answers, 2):
            mine, theirs = words[kind, a], words[kind, b]
            n = min(4, len(KINDS[kind].answers))
            same = KINDS[kind].answers.index(a) % n == KINDS[kind].answers.index(b) % n
            assert bool(mine & theirs) == same


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("red heart", ("red", "heart")),
        ("large orange diamond", ("orange", "diamond")),
        ("man with white cane facing right", ("white", "cane")),
        ("black medium-small square", ("black", "medium-small square")),
        ("leafy green", None),
        ("orange", None),
        ("black and white cat", None),
        ("blackbird nest", None),
    ],
)
def test_colour_words(name, found):
    assert colored_part(name) == found


class Pictures(Source):
    """A list of pictures that counts the images read."""

    name, read = "pictures", 0

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        self.read += 1
        return self.rows[i]

    def meta(self, i):
        return without_media(self.rows[i])


@pytest.fixture
def few(pictures, monkeypatch):
    parts = {"unseen_test": pictures[:30], "unseen_test_openmoji": pictures[-20:]}
    parts = {split: Pictures(rows) for split, rows in parts.items()}
    monkeypatch.setattr(emoji_questions, "open_tfds", lambda name, split, _: parts[split])
    return parts


def test_the_source(few):
    source = open_source({"kind": "emoji_questions", "split": "test"})
    meta = [source.meta(i) for i in range(len(source))]
    assert not few["unseen_test"].read  # no image is read before it is asked for
    everything = [source[i] for i in range(len(source))]
    assert source.count() == collections.Counter(e["question_type"] for e in everything)
    assert source.class_names == ANSWERS == sorted(set(ANSWERS))
    assert meta == [without_media(example) for example in everything]
    pictures = [*few["unseen_test"].rows, *few["unseen_test_openmoji"].rows]
    for example, question in zip(everything, source.questions):
        about = pictures[question.image]
        assert example["image"] == about["image"] and example["style"] == about["style"]
        assert example["captions"] == [question.text]
        assert ANSWERS[example["label"]] == example["answer"] == question.answer
        assert example["answers"] == [question.answer]
    assert len({e["key"] for e in everything}) == len(source)
    only = open_source({"kind": "emoji_questions", "split": "test", "types": ["style"]})
    assert set(only.count()) == {"style"}


def test_wrong_settings_are_one_clear_sentence():
    with pytest.raises(ValueError, match="no split 'unseen_test'.*'train', 'validation', 'test'"):
        open_source({"kind": "emoji_questions", "split": "unseen_test"})
    with pytest.raises(ValueError, match="split 'test' is 0.9: it is 0 to 1 for 'train'"):
        open_source({"kind": "emoji_questions", "split": "test", "bias": 0.9})
    with pytest.raises(ValueError, match=r"bias of .* is 1.5"):
        open_source({"kind": "emoji_questions", "split": "train", "bias": 1.5})
    with pytest.raises(ValueError, match=r"types are \['colors'\]: use"):
        open_source({"kind": "emoji_questions", "split": "test", "types": ["colors"]})
    with pytest.raises(ValueError, match="no setting 'baised'"):
        open_source({"kind": "emoji_questions", "split": "train", "baised": 1.0})
