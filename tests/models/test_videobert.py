"""VideoBERT: its sequence beside one made row by row and read by BERT, its draws, its blanks."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmjax.data.text.train_words import train_words
from mmjax.models.bert import BERT
from mmjax.models.systems import make_system
from mmjax.models.videobert import blank_text, blank_video, inner
from mmjax.system import Context, row_keys

WORDS, CODES, LENGTH, FRAMES = 30, 10, 6, 4
TEXT = {"vocab_size": WORDS, "width": 16, "depth": 2, "heads": 2, "mlp_dim": 24, "length": LENGTH}
MODEL = {"name": "videobert", "text": TEXT, "codes": CODES, "frames": FRAMES}
MODEL |= {"start": 1, "end": 2, "separator": 28, "mask": 29}


def system(batch_size=8, **loss):
    return make_system({"model": MODEL, "loss": loss, "batch_size": batch_size})


def batch(rows=8, seed=0):
    """Rows of every kind: the first has no text, the second no video."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, LENGTH + 1, rows)
    mask = np.arange(LENGTH)[None] < lengths[:, None]
    text = rng.integers(3, WORDS - 2, mask.shape, np.int32) * mask
    text[:, 0] = 1
    text[np.arange(rows), lengths - 1] = 2
    shown = np.arange(FRAMES)[None] < rng.integers(1, FRAMES + 1, rows)[:, None]
    shown[1] = False
    tokens = rng.integers(0, CODES, shown.shape, np.int32) * shown
    found = {"text": text, "text_mask": mask, "text_present": np.arange(rows) != 0}
    return found | {"video_tokens": tokens, "video_tokens_mask": shown}


@pytest.fixture(scope="module")
def model():
    found = system().model
    params = drawn.parameters(found, batch())
    return found, params, jax.jit(found.apply)


def packed(row):
    """The sequence of a row without padding: ids, segments, and where words and tokens are."""
    words = row["text"][row["text_mask"]][:-1].tolist() if row["text_present"] else [1]
    tokens = (row["video_tokens"][row["video_tokens_mask"]] + WORDS).tolist()
    ids = [*words, 28, *tokens, 2] if tokens else [*words, 2]
    return ids, [0] * (len(words) + 1) + [1] * (len(ids) - len(words) - 1), len(words)


def test_it_is_bert_on_the_sequence_of_each_row(model):
    module, params, apply = model
    given, data = jax.device_get(apply({"params": params}, batch())), batch()
    bert = BERT(
        vocab_size=WORDS + CODES,
        width=16,
        depth=2,
        heads=2,
        mlp_dim=24,
        length=LENGTH + FRAMES + 1,
        pool="cls",
        pooler=False,
    )
    shared = {**params["embed"], "encoder": params["encoder"]}
    size = LENGTH + FRAMES + 1
    rows = [packed({k: v[i] for k, v in data.items()}) for i in range(8)]
    ids = np.stack([np.pad(row[0], (0, size - len(row[0]))) for row in rows]).astype(np.int32)
    segment = np.stack([np.pad(row[1], (0, size - len(row[1]))) for row in rows]).astype(np.int32)
    mask = np.stack([np.arange(size) < len(row[0]) for row in rows])
    read = {"text": ids, "text_segment": segment, "text_mask": mask}
    x = np.asarray(jax.jit(bert.apply)({"params": shared}, read)["text_tokens"], np.float64)
    head = jax.tree.map(lambda p: np.asarray(p, np.float64), params["head"])
    y = x @ head["transform"]["kernel"] + head["transform"]["bias"]
    y = np.asarray(jax.nn.gelu(y, approximate=False), np.float64)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-12)
    y = y * head["norm"]["scale"] + head["norm"]["bias"]
    logits = y @ np.asarray(params["embed"]["embedding"], np.float64).T + head["bias"]
    for i, (sequence, _, words) in enumerate(rows):
        found = given["text_prediction"][i, :words]
        np.testing.assert_allclose(found, logits[i, :words, :WORDS], atol=2e-5)
        tokens = len(sequence) - words - 2
        if tokens > 0:
            want = logits[i, words + 1 : words + 1 + tokens, WORDS:]
            np.testing.assert_allclose(given["video_prediction"][i, :tokens], want, atol=2e-5)
    pooler, match = jax.device_get((params["pooler"], params["match"]))
    pooled = np.tanh(x[:, 0] @ pooler["kernel"] + pooler["bias"])
    np.testing.assert_allclose(
        given["match_logits"], pooled @ match["kernel"] + match["bias"], atol=2e-5
    )


def test_padding_has_no_influence(model):
    _, params, apply = model
    data, other = batch(), batch()
    rng = np.random.default_rng(5)
    for name, mask in (("text", "text_mask"), ("video_tokens", "video_tokens_mask")):
        noise = rng.integers(0, CODES, data[name].shape, np.int32)
        other[name] = np.where(data[mask], data[name], noise)
    one, two = (apply({"params": params}, x) for x in (data, other))
    valid = data["video_tokens_mask"]
    np.testing.assert_array_equal(one["match_logits"], two["match_logits"])
    np.testing.assert_array_equal(
        np.asarray(one["video_prediction"])[valid], np.asarray(two["video_prediction"])[valid]
    )


def corrupted(rows, seed=0, **loss):
    data = batch(rows)
    context = Context(
        jnp.zeros((), jnp.int32), row_keys(jax.random.key(seed), jnp.arange(rows)), None, {}
    )
    made = jax.jit(system(rows, **loss).corrupt)(data, context)
    return data, jax.tree.map(np.asarray, made)


def test_the_regimes_the_pairs_and_the_masks():
    rows = 4000
    data, found = corrupted(rows, mask_ratio=0.3, text_only=1.0, video_only=2.0, both=1.0)
    free = np.arange(rows) > 1
    text, video = found["text_used"], found["video_used"]
    assert (text | video).all() and text[1] and not video[1] and video[0] and not text[0]
    rates = [np.mean(x[free]) for x in (text & ~video, video & ~text, text & video)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.25], atol=0.03)
    swapped = ~found["match_label"]
    assert (
        not swapped[~found["match_valid"]].any() and (found["match_valid"] <= (text & video)).all()
    )
    assert 0.45 < swapped[found["match_valid"]].mean() < 0.55
    before = np.roll(data["video_tokens"], 1, axis=0)
    want = np.where(swapped[:, None], before, data["video_tokens"])
    np.testing.assert_array_equal(found["video_tokens"], want)
    for name, used in (("text_masked", text), ("video_masked", video)):
        assert not found[name][~used | swapped].any()
    can = inner(data) & (text & ~swapped)[:, None]
    assert (found["text_masked"] <= can).all()
    assert 0.28 < found["text_masked"][can].mean() < 0.32
    chosen = found["video_masked"]
    masked = found["video_corrupted"][chosen] == CODES
    assert 0.75 < masked.mean() < 0.85
    kept = found["video_corrupted"][chosen] == found["video_tokens"][chosen]
    assert 0.08 < kept.mean() < 0.14  # a tenth stays, and a hundredth is drawn by chance
    assert (found["video_corrupted"] == found["video_tokens"])[
        ~chosen & ~swapped[:, None] & video[:, None]
    ].all()


def test_the_terms_are_means_over_masked_tokens(model):
    _, params, apply = model
    data, found = corrupted(64, mask_ratio=0.5)
    given = apply({"params": params}, found)
    terms = toy.means(system(64).loss, given, found)
    for name, key, target in (
        ("text", "text_masked", "text"),
        ("video", "video_masked", "video_tokens"),
    ):
        logits = np.asarray(given[f"{name}_prediction"], np.float64)[found[key]]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        ids = found[target][found[key]]
        loss = -log_p[np.arange(len(ids)), ids].mean()
        np.testing.assert_allclose(terms[f"masked_{name}"], loss, rtol=1e-4)
        right = (logits.argmax(-1) == ids).mean()
        np.testing.assert_allclose(terms[f"masked_{name}_accuracy"], right, rtol=1e-5)
    valid, label = found["match_valid"], found["match_label"].astype(int)
    logits = np.asarray(given["match_logits"], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    want = -log_p[np.arange(64), label][valid].mean()
    np.testing.assert_allclose(terms["matching"], want, rtol=1e-5)


def test_blanks_are_scored_by_their_words_probabilities(model):
    module, params, apply = model
    tokenizer = train_words(["fry the egg", "cut the bread now"], 20)
    data = {k: v for k, v in batch(3).items() if k.startswith("video")}
    texts = ["fry the egg", "[cut] the [bread]", "cut the [egg]"]
    scores = system().score(tokenizer, texts)({"params": params}, data)
    assert scores.shape == (3, 3)
    blanks = [(1, 2, 3), (1, 3), (3,)]
    for column, (text, places) in enumerate(zip(texts, blanks)):
        plain = text.replace("[", "").replace("]", "")
        ids, mask = tokenizer.encode([plain], LENGTH)
        masked = ids.copy()
        masked[0, list(places)] = 29
        row = {"text": np.repeat(masked, 3, 0), "text_mask": np.repeat(mask, 3, 0), **data}
        log_p = jax.nn.log_softmax(apply({"params": params}, row)["text_prediction"])
        want = sum(np.asarray(log_p[:, p, ids[0, p]]) for p in places)
        np.testing.assert_allclose(scores[:, column], want, rtol=1e-5)
    with pytest.raises(ValueError, match="'cut the bread cut the' has 5 tokens"):
        system().score(tokenizer, ["cut the bread cut the"])
    with pytest.raises(ValueError, match="no texts to choose from"):
        system().score(tokenizer, [])


def test_one_modality_from_the_other(model):
    module, params, apply = model
    data = batch()
    found = apply({"params": params}, blank_video(module, data, 3))["video_prediction"]
    assert found.shape == (8, FRAMES, CODES)
    changed = {**data, "video_tokens": (data["video_tokens"] + 1) % CODES}
    again = apply({"params": params}, blank_video(module, changed, 3))["video_prediction"]
    np.testing.assert_array_equal(found, again)  # it follows from the text alone
    blank = blank_text(module, data)
    other = {**blank, "text": np.where(inner(data), 5, data["text"]).astype(np.int32)}
    one, two = (apply({"params": params}, x)["text_prediction"] for x in (blank, other))
    np.testing.assert_array_equal(one, two)


def test_wrong_settings_are_said():
    with pytest.raises(ValueError, match="config.model.mask is 30: set it to the id"):
        make_system({"model": MODEL | {"mask": 30}, "loss": {}, "batch_size": 8})
    with pytest.raises(ValueError, match="batch of one example has no video"):
        system(1)
    with pytest.raises(ValueError, match="mask_ratio is 0"):
        system(mask_ratio=0)
    with pytest.raises(ValueError, match="text_only, video_only and both"):
        system(both=-1.0)
    empty = {k: np.zeros_like(v) for k, v in batch().items()}
    with pytest.raises(ValueError, match="No example of the batch has a text or video tokens"):
        system().check_batch(empty)
