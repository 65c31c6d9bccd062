"""Audio-visual speech recognition: padding, missing modalities, losses, decoding."""

import functools

import jax
import numpy as np
import pytest
import toy
from drawn import parameters

from mmjax import config as configs
from mmjax.data.text.train_bpe import train_bpe
from mmjax.losses.ctc import ctc_labels
from mmjax.models import avsr
from mmjax.models.systems import make_system
from mmjax.system import Context, row_keys

ROWS = 4


def changed(**model):
    """A toy system with other settings of the model."""
    config = toy.shrink(configs.load("configs/avsr_digits.py"))
    with config.unlocked(), config.ignore_type():
        config.model.text.vocab_size = 270
        for name, value in model.items():
            config.model[name] = value
    return make_system(config)


@functools.cache
def system():
    return changed()


@functools.cache
def params():
    return parameters(system().model, batch())


def batch():
    config = toy.shrink(configs.load("configs/avsr_digits.py"))
    found = {k: v[:ROWS].copy() for k, v in toy.batch(config).items()}
    found["video_mask"] = np.arange(6)[None] < np.array([6, 4, 5, 3])[:, None]
    found["audio_mask"] = found["video_mask"].repeat(4, 1)
    found |= {f"{m}_present": np.ones(ROWS, bool) for m in ("audio", "video")}
    return found


@functools.cache
def applied():
    return jax.jit(system().model.apply)


def run(given):
    return jax.device_get(applied()({"params": params()}, given))


def test_shapes_and_their_spec():
    given, found = batch(), run(batch())
    assert found["ctc_logits"].shape == (ROWS, 6, 271) and found["ctc_logits"].dtype == np.float32
    assert found["text_logits"].shape == (ROWS, 8, 270)
    np.testing.assert_array_equal(found["ctc_frames"], given["video_mask"])
    for name, want in system().spec.items():
        assert given[name].shape[1:] == want.shape[1:] and given[name].dtype == want.dtype


def test_padding_has_no_influence():
    given, found = batch(), run(batch())
    other = {
        **given,
        "audio": np.where(given["audio_mask"][..., None], given["audio"], 50).astype(np.float32),
        "video": np.where(given["video_mask"][..., None, None, None], given["video"], 99),
    }
    other["video"] = other["video"].astype(np.uint8)
    other_found = run(other)
    mask = given["video_mask"]
    for name, where in (("ctc_logits", mask), ("text_logits", slice(None))):
        np.testing.assert_allclose(other_found[name][where], found[name][where], atol=1e-5)
    other["video"][0, 0] = 0  # nor have other rows
    np.testing.assert_allclose(run(other)["text_logits"][1:], found["text_logits"][1:], atol=1e-5)
    assert np.abs(run(other)["text_logits"][0] - found["text_logits"][0]).max() > 1e-4


@pytest.mark.parametrize("missing", ["audio", "video"])
def test_a_missing_modality_has_no_influence(missing):
    given = batch()
    given[f"{missing}_present"] = np.array([False, True, True, True])
    found = run(given)
    values = np.full_like(given[missing][0], 7 if missing == "video" else np.nan)
    given[missing][0] = values
    other_found = run(given)
    assert np.isfinite(found["ctc_logits"]).all()
    for name in ("ctc_logits", "text_logits"):
        np.testing.assert_allclose(other_found[name], found[name], atol=1e-5)
    # The other modality's frames alone are valid.
    other = {"audio": "video", "video": "audio"}[missing]
    given[f"{other}_mask"][0] = np.arange(len(given[f"{other}_mask"][0])) < (8, 2)[other == "video"]
    np.testing.assert_array_equal(run(given)["ctc_frames"][0], np.arange(6) < 2)


def test_each_modality_matters():
    given, found = batch(), run(batch())
    for name in ("audio", "video"):
        other = {**given, name: given[name][::-1].copy()}
        assert np.abs(run(other)["ctc_logits"][0, 0] - found["ctc_logits"][0, 0]).max() > 1e-3


def context(rows, seed=0):
    return Context(np.int32(0), row_keys(jax.random.key(seed), np.arange(rows)), None, {})


def test_modality_dropout_is_drawn_before_the_model():
    rows = 2000
    here = {"text": np.zeros((rows, 1)), "audio_present": np.arange(rows) % 10 > 0}
    kept = system().corrupt(here, context(rows))
    audio, video = (np.asarray(kept[f"{m}_present"]) for m in ("audio", "video"))
    assert (audio | video).all()  # never both
    assert not audio[::10].any() and video[::10].all()
    both = np.arange(rows) % 10 > 0
    # At 0.3: one dropped with 0.3 * 0.7, or both, of which one is kept: 0.3 * 0.3 / 2.
    for m in (audio, video):
        assert abs((~m)[both].mean() - 0.255) < 0.04
    half = system().corrupt({k: v[:7] for k, v in here.items()}, context(7))
    np.testing.assert_array_equal(half["audio_present"], audio[:7])  # by the row's own key
    other = system().corrupt(here, context(rows, seed=1))
    assert (np.asarray(other["audio_present"]) != audio).mean() > 0.1
    assert changed(modality_dropout=0.0).corrupt is None and changed(video=None).corrupt is None


def test_losses_leave_out_a_text_that_is_too_long():
    given = batch()
    given["text"][:] = np.array([1, 9, 9, 9, 2, 0, 0, 0])  # needs five frames
    given["text_mask"][:] = np.arange(8) < 5
    terms = system().loss(run(given), given, None)
    np.testing.assert_array_equal(terms["ctc_too_long"].value, [0, 1, 0, 1])
    np.testing.assert_array_equal(terms["ctc"].weight, [3, 0, 3, 0])
    np.testing.assert_array_equal(terms["captioning"].weight, [4] * 4)
    assert {"ctc", "ctc_too_long", "captioning", "token_accuracy"} == set(terms)
    system().check_batch(given)
    with pytest.raises(ValueError, match="No text of the batch fits its clip: the first has 5 tok"):
        given |= {"video_mask": np.arange(6) < np.full((ROWS, 1), 4)}
        avsr.check_batch(given | {"audio_mask": given["video_mask"].repeat(4, 1)})


def test_decoding_by_ctc_and_by_attention():
    tokenizer = train_bpe(["one two", "two one"], vocab_size=270)
    given = {k: v for k, v in batch().items() if not k.startswith("text")}
    variables = {"params": params()}
    greedy = system().generate(tokenizer, {"method": "ctc"})(variables, given)
    beams = system().generate(tokenizer, {"method": "ctc", "beams": 4})(variables, given)
    assert len(greedy.texts) == len(beams.texts) == ROWS
    assert (beams.scores >= greedy.scores - 1e-4).all()  # a sum is at least its largest path
    logits = run(batch())["ctc_logits"]
    path = logits[1, :4].argmax(-1)
    want = [t for t, before in zip(path, [-1, *path]) if t != before and t != 270]
    np.testing.assert_array_equal(greedy.tokens[1, 0, : greedy.lengths[1, 0]], want)
    spoken = system().generate(tokenizer, {"max_new_tokens": 3})(variables, given)
    text = np.zeros((ROWS, 8), np.int32)
    text[:, 0], text[:, 1] = 1, spoken.tokens[:, 0, 0]
    prompt = given | {"text": text, "text_mask": np.arange(8) < np.full((ROWS, 1), 2)}
    first = run(prompt)["text_logits"][:, :2].argmax(-1)
    np.testing.assert_array_equal(first, spoken.tokens[:, 0, :2])
    with pytest.raises(ValueError, match="decode.method is 'rnnt': use 'attention' or 'ctc'"):
        system().generate(tokenizer, {"method": "rnnt"})
    with pytest.raises(ValueError, match="decode.beans is not a setting of make_ctc. Did you mean"):
        system().generate(tokenizer, {"method": "ctc", "beans": 2})


@pytest.mark.parametrize(("absent", "kept"), [("audio", "video"), ("video", "audio")])
def test_a_model_of_one_modality(absent, kept):
    one = changed(**{absent: None})
    assert one.model.modalities == (kept,) and f"{absent}_mask" not in one.spec
    shapes = jax.eval_shape(lambda: one.model.init(jax.random.key(0), batch())["params"])
    assert not any(name.startswith((absent, "fusion")) for name in shapes)
    outputs = jax.eval_shape(lambda p: one.model.apply({"params": p}, batch()), shapes)
    assert outputs["ctc_logits"].shape == (ROWS, 6, 271)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="config.model has no modality: set audio, video, or"):
        changed(audio=None, video=None)
    with pytest.raises(ValueError, match="config.model.modality_dropout instead"):
        changed(fusion={"depth": 1, "heads": 2, "mlp_dim": 8, "modality_dropout": 0.1})
    with pytest.raises(ValueError, match="fusion.reconstruction is set, and no loss of this"):
        changed(fusion={"depth": 1, "heads": 2, "mlp_dim": 8, "reconstruction": 4})
    with pytest.raises(ValueError, match="video.channels are .10,.: give multiples of 8"):
        model = changed(video={"size": (8, 8), "channels": (10,)}).model
        jax.eval_shape(lambda: model.init(jax.random.key(0), batch()))
    with pytest.raises(ValueError, match="The batch has none of the model's modalities audio, vid"):
        jax.eval_shape(lambda: system().model.init(jax.random.key(0), {"text": batch()["text"]}))


def test_ctc_begins_with_blanks_of_probability_0_9():
    head = avsr.ctc_head(9, "float32")
    logits = head.apply(head.init(jax.random.key(0), np.ones((1, 4))), np.ones((1, 4)))
    np.testing.assert_allclose(jax.nn.softmax(logits)[0], [0.1 / 9] * 9 + [0.9], rtol=1e-5)


def test_labels_are_those_of_the_text():
    labels, mask = ctc_labels(batch())
    assert labels.shape == (ROWS, 6) and (mask.sum(1) == batch()["text_mask"].sum(1) - 2).all()
