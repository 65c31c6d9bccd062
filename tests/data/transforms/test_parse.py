"""Chains of transforms as text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import coordinates, noise, run
from PIL import Image

from mmjax.data.text.train_bpe import train_bpe
from mmjax.data.transforms.parse import parse


class Reverse:
    """A tokenizer to test with: the code points of the text, backwards."""

    def rows(self, texts, length):
        rows = [[ord(c) for c in reversed(text)][:length] for text in texts]
        text = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
        return text, text > 0, np.zeros(len(texts), bool)

    def count(self, texts, truncated):
        pass


def test_a_whole_chain():
    transform = parse(
        """decode
           | random_resized_crop(16, scale=(0.6, 1)) | flip | color_jitter(0.4, 0.4, 0.4, 0.1)
           | rand_augment(2, 9) | choose_caption("plain") | tokenize(4) | label""",
        tokenizer=Reverse(),
        class_names=["a", "b"],
    )
    example = {"image": noise(), "captions": ["abc"], "label": "b", "key": 3}
    before = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in example.items()}
    out = transform(example, np.random.default_rng(0))
    assert out["image"].shape == (16, 16, 3) and out["image"].dtype == np.uint8
    assert out["text"].tolist() == [99, 98, 97, 0]
    assert out["text_mask"].tolist() == [True, True, True, False]
    assert out["label"] == 1 and out["label"].dtype == np.int32 and out["key"] == 3
    np.testing.assert_array_equal(example.pop("image"), before.pop("image"))
    assert example == before


def test_a_question_and_one_of_its_answers():
    transform = parse("first_caption | tokenize(3) | answer(2)", tokenizer=Reverse())
    example = {"captions": ["abc"], "answers": ["x", b"yz"]}
    rows = [transform(example, np.random.default_rng(seed)) for seed in range(20)]
    for row in rows:
        assert row["question"].tolist() == [99, 98, 97] and row["question_mask"].all()
    assert {tuple(row["text"].tolist()) for row in rows} == {(120, 0), (122, 121)}
    assert {tuple(row["text_mask"].tolist()) for row in rows} == {(True, False), (True, True)}
    for alone in ("yz", b"yz"):  # a single text is not a list of letters
        row = transform({"captions": ["abc"], "answers": alone}, np.random.default_rng(0))
        assert row["text"].tolist() == [122, 121]
    with pytest.raises(ValueError, match="answer needs answers, and comes after tokenize"):
        transform({"captions": ["abc"]}, np.random.default_rng(0))


def test_the_empty_chain_changes_nothing():
    assert parse(" ")({"x": 1}, None) == {"x": 1}


def test_steps_run_in_the_order_written():
    image = coordinates(10, 20)
    a = run("center_crop((10, 10)) | resize((10, 20), 'nearest')", image)
    b = run("resize((10, 20), 'nearest') | center_crop((10, 10))", image)
    assert a.shape == (10, 20, 3) and b.shape == (10, 10, 3)


@pytest.mark.parametrize(
    "spec, words",
    [
        ("decod", "'decode'.*center_crop.*tokenize"),
        ("decode | flipp(0.3)", "'flip'"),
        ("flip(q=1)", r"flip\(p=0.5\).*'q'"),
        ("flip(0.1, 0.2)", "too many"),
        ("resize", "size"),
        ("resize(-3)", "-3"),
        ("resize(2.5)", "2.5"),
        ("resize(8, 'bicubi')", "bicubic"),
        ("random_resized_crop(8, scale=(0.5, 0.2))", "scale"),
        ("color_jitter(hue=0.7)", "0.7"),
        ("tokenize(3)", "tokenizer"),
        ("decode | ", "cannot be read"),
        ("decode decode", "cannot be read"),
        ("flip(__import__('os').getcwd())", "plain"),
        ("flip(p=x)", "plain"),
        ("flip(**{'p': 1})", r"\*\*"),
        ("a.b(3)", "no step"),
        ("1 + 2", "no step"),
        ("choose_caption('fotos')", "photo"),
        ("mixup(0.2, 3)", "mixup"),
    ],
)
def test_bad_chains(spec, words):
    with pytest.raises(ValueError, match=words):
        parse(spec)


def test_errors_name_the_example_and_the_order():
    with pytest.raises(ValueError, match="'image' of example 'p/7.jpg'"):
        parse("decode")({"image": b"\xff\xd8\xff junk", "key": "p/7.jpg"}, None)
    with pytest.raises(ValueError, match="NoneType"):
        parse("decode")({}, None)
    with pytest.raises(ValueError, match="decode first"):
        parse("flip")({"image": b"..."}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="after choose_caption"):
        parse("tokenize(4)", tokenizer=Reverse())({}, None)


IMAGE_STEPS = [
    "resize(9)",
    "resize_short(9)",
    "center_crop((9, 12))",
    "random_crop(9, padding=2)",
    "random_resized_crop(9)",
    "flip",
    "random_affine(20, 0.1, (0.8, 1.2))",
    "color_jitter(0.4, 0.4, 0.4, 0.1)",
    "random_grayscale(0.5)",
    "rand_augment(2, 9)",
    "random_erasing(1.0)",
]


CHAINS = {
    "steps": st.lists(st.sampled_from(IMAGE_STEPS), min_size=1, max_size=4),
    "h": st.integers(9, 30),
    "w": st.integers(9, 30),
    "seed": st.integers(0, 99),
}


@settings(max_examples=60)
@given(**CHAINS)
def test_every_chain_gives_uint8_and_depends_on_the_seed_alone(steps, h, w, seed):
    image = noise(h, w, seed)
    before = image.copy()
    out = run(" | ".join(steps), image, seed)
    assert out.dtype == np.uint8 and out.ndim == 3 and out.shape[2] == 3
    np.testing.assert_array_equal(out, run(" | ".join(steps), image, seed))
    np.testing.assert_array_equal(image, before)


@settings(max_examples=60)
@given(**CHAINS)
def test_a_chain_does_what_its_steps_do_one_by_one(steps, h, w, seed):
    """One by one every step is given an array; in a chain most get a Pillow image."""
    image, rng = noise(h, w, seed), np.random.default_rng(seed)
    for step in steps:
        image = parse(step)({"image": image}, rng)["image"]
        assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(run(" | ".join(steps), noise(h, w, seed), seed), image)


def test_tokens_come_with_the_number_of_their_word():
    tokenizer = train_bpe(["low lower lowest"] * 3, vocab_size=262)
    out = parse("first_caption | tokenize(12, words=True)", tokenizer=tokenizer)(
        {"captions": ["low, lowest  x"]}, None
    )
    tokens = [tokenizer.decode_raw([i]) for i in out["text"][out["text_mask"]]]
    found = {}
    for token, word in zip(tokens, out["text_word"].tolist()):
        found[word] = found.get(word, "") + token
    assert found == {-1: "", 0: " low", 1: ",", 2: " lowest", 3: " x"}
    assert out["text_word"].dtype == np.int32 and (out["text_word"][~out["text_mask"]] == -1).all()
    short = parse("first_caption | tokenize(4, words=True)", tokenizer=tokenizer)(
        {"captions": ["low, lowest  x"]}, None
    )
    assert short["text_word"].tolist() == [-1, *out["text_word"][1:3].tolist(), -1]
    assert "text_word" not in parse("first_caption | tokenize(4)", tokenizer=tokenizer)(
        {"captions": ["low"]}, None
    )


def test_tokens_have_the_class_of_their_word():
    tokenizer = train_bpe(["low lower lowest"] * 3, vocab_size=262)
    chain = "first_caption | tokenize(12, words=True) | label_words(12)"
    given = {"captions": ["low, lowest  x"], "word_labels": [4, -1, 7, 2], "key": "a"}
    out = parse(chain, tokenizer=tokenizer)(given, None)
    words = out["text_word"]
    assert out["text_label"].dtype == np.int32
    np.testing.assert_array_equal(out["text_label"], np.array([4, -1, 7, 2, -1])[words])
    assert (out["text_label"][words < 0] == -1).all() and set(words) == {-1, 0, 1, 2, 3}
    short = parse("first_caption | label_words(4)", tokenizer=tokenizer)(given, None)
    assert short["text_label"].tolist() == [-1, *out["text_label"][1:3].tolist(), -1]
    with pytest.raises(ValueError, match="has 3 word_labels and its caption 4 words"):
        parse(chain, tokenizer=tokenizer)({**given, "word_labels": [1, 2, 3]}, None)


def test_tokens_that_are_kept_count_as_truncated_each_time():
    tokenizer, fresh = (train_bpe(["a b c d"], vocab_size=300) for _ in range(2))
    transform = parse("first_caption | tokenize(4)", tokenizer=tokenizer)
    for caption in ["a", "a b c d", "a b c d", "a b c d"]:
        out = transform({"captions": [caption]}, None)
        text, mask = fresh.encode([caption], 4)
        np.testing.assert_array_equal(out["text"], text[0])
        np.testing.assert_array_equal(out["text_mask"], mask[0])
    assert tokenizer.truncation_rate == 0.75
    with pytest.raises(ValueError, match="read-only"):
        out["text"][0] = 1  # another row may have the same array


def test_the_image_of_a_codebook_is_taken_where_the_step_stands():
    """By Pillow's Lanczos filter, from the image as it is there; later steps do not change it."""
    image = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    chain = "decode | center_crop(40) | codebook_image((12, 20)) | resize(16) | flip(1)"
    made = parse(chain)({"image": image}, np.random.default_rng(0))
    cropped = Image.fromarray(image[:40, 6:46])
    want = np.asarray(cropped.resize((20, 12), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(made["image_codebook"], want)
    assert made["image"].shape == (16, 16, 3) and made["image_codebook"].dtype == np.uint8
    with pytest.raises(ValueError, match="put decode first in the chain"):
        parse("codebook_image(8)")({"image": b""}, np.random.default_rng(0))
