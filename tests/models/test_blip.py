"""BLIP in pretraining: what its parts share, its negatives, its queue, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.layers.sown import cross_gradients
from mmjax.losses.contrastive import contrastive_loss
from mmjax.losses.matching import hard_negatives
from mmjax.models.blip_objectives import with_draws
from mmjax.models.systems import make_system
from mmjax.system import Context, row_keys

B, L = 4, 7
SIZES = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 24}
MODEL = {
    "name": "blip",
    "embed_dim": 8,
    "image": {**SIZES, "image_size": 16, "patch_size": 8},
    "text": {**SIZES, "vocab_size": 40, "length": 12},
    "encode_token": 38,
    "decode_token": 39,
}
PARTS = {
    "captioner": {"encoder": False, "embed_dim": None},
    "retrieval": {"decoder": False},
    "answers": {"answers": True, "share": False, "embed_dim": None, "encode_token": None},
}


def batch_of(rows=B, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(L)[None] < rng.integers(3, L + 1, rows)[:, None]
    text = rng.integers(3, 38, (rows, L)).astype(np.int32)
    return {
        "image": rng.integers(0, 256, (rows, 16, 16, 3), np.uint8),
        "text": np.where(mask, text, 0).astype(np.int32),
        "text_mask": mask,
        "example_id": np.arange(rows, dtype=np.int32),
    }


def drawn(model, batch, seed=0):
    """Parameters none of which is zero."""
    shapes = jax.eval_shape(lambda: meta.unbox(model.init(jax.random.key(0), batch)["params"]))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def whole():
    """The pretraining model, its parameters, a batch with draws, and its outputs."""
    model, batch = make_system({"model": MODEL}).model, batch_of()
    params = drawn(model, batch)
    draws = np.random.default_rng(1).random((B, 2)).astype(np.float32)
    batch = {**batch, "negative_draws": draws}
    return model, params, batch, jax.jit(model.apply)({"params": params}, batch)


def part(name):
    return make_system({"model": MODEL | PARTS[name]}).model


def captioner_params(params):
    """The shared parameters where a captioner has them."""
    encoder, own = params["text_encoder"], params["text_decoder"]
    layers, attends = encoder["encoder"]["layers"], own["decoder"]["stack"]["layers"]
    stack = {
        "layers": {**attends, "mlp": layers["mlp"], "norm_mlp": layers["norm_mlp"]},
        "cross": layers["cross"],
    }
    decoder = {k: encoder[k] for k in ("position", "norm_embedding")} | {"stack": stack}
    text = {"embed": {"embedding": encoder["embedding"]}, "decoder": decoder, "head": own["head"]}
    return {"image": params["image"], "image_norm": params["image_norm"], "text_decoder": text}


def test_the_decoder_shares_all_but_self_attention(whole):
    model, params, batch, outputs = whole
    assert set(params["text_decoder"]["decoder"]["stack"]["layers"]) == {
        "attention",
        "norm_attention",
    }
    assert set(params["text_decoder"]) == {"decoder", "head"}
    alone, theirs = part("captioner"), captioner_params(params)
    found = jax.jit(alone.apply)({"params": theirs}, batch)["text_logits"]
    np.testing.assert_allclose(found, outputs["text_logits"], rtol=1e-5, atol=1e-5)

    def loss(params, batch):
        return jnp.sum(jnp.sin(model.apply({"params": params}, batch)["text_logits"]))

    grads = jax.jit(jax.grad(loss))(params, batch)
    for path in (("mlp", "up"), ("cross", "attention", "query")):
        grad = grads["text_encoder"]["encoder"]["layers"]
        for name in path:
            grad = grad[name]
        assert np.abs(grad["kernel"]).max() > 1e-3
    assert not np.any(grads["text_encoder"]["encoder"]["layers"]["attention"]["qkv"]["kernel"])


def test_it_generates_what_a_captioner_with_its_parameters_does(whole):
    _, params, batch, _ = whole
    images, words = {"image": batch["image"]}, Words()
    decode = {"max_new_tokens": 6, "beams": 2}
    found = [
        make_system({"model": config}).generate(words, decode)({"params": p}, images)
        for config, p in (
            (MODEL, params),
            (MODEL | PARTS["captioner"], captioner_params(params)),
        )
    ]
    np.testing.assert_array_equal(*(x.tokens for x in found))
    np.testing.assert_allclose(*(x.scores for x in found), rtol=1e-4)


class Words:
    bos_id, eos_id, pad_id, end_ids = 1, 2, 0, (2,)

    def decode(self, row):
        return " ".join(map(str, row))


def test_mismatched_pairs_are_those_of_the_negatives(whole):
    _, params, batch, outputs = whole
    text, image, exist = hard_negatives(
        outputs["image_embed"], outputs["text_embed"], outputs["logit_scale"],
        batch["negative_draws"],
    )  # fmt: skip
    assert exist.all() and outputs["negatives_exist"].all()
    model = part("retrieval")
    own = {k: params[k] for k in params if k != "text_decoder"}
    score = jax.jit(lambda b: model.apply({"params": own}, b)["match_logits"])

    def pairs(texts, images):
        given = {k: batch[k][texts] for k in ("text", "text_mask")}
        return score({**given, "image": batch["image"][images]})

    rows = np.arange(B)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(outputs["match_logits"], pairs(rows, rows), **close)
    np.testing.assert_allclose(outputs["mismatch_logits"][:, 0], pairs(text, rows), **close)
    np.testing.assert_allclose(outputs["mismatch_logits"][:, 1], pairs(rows, image), **close)
    assert np.ptp(outputs["match_logits"]) > 0.01


def test_duplicates_of_the_pair_and_missing_images_are_no_negatives(whole):
    model, params, batch, _ = whole
    same = {k: np.stack([batch[k][0]] * B) for k in ("text", "text_mask")}
    apply = jax.jit(model.apply)
    assert not apply({"params": params}, batch | same)["negatives_exist"].any()
    present = np.array([True, True, False, False])
    found = apply({"params": params}, batch | {"image_present": present})
    np.testing.assert_array_equal(found["negatives_exist"], present)


def run(settings, outputs, batch, **context):
    """Each term of the loss, and the system."""
    system = make_system({"model": MODEL, "loss": settings})
    given = Context(jnp.int32(10), None, context.get("teacher"), context.get("memory", {}))
    return system.loss(outputs, batch, given), system, given


def test_terms_without_a_teacher_are_those_of_clip_matching_and_captioning(whole):
    _, _, batch, outputs = whole
    terms, _, _ = run({"caption_smoothing": 0.0}, outputs, batch)
    wanted, _ = contrastive_loss(
        outputs["image_embed"], outputs["text_embed"], outputs["logit_scale"]
    )
    np.testing.assert_allclose(terms["contrastive"], wanted, rtol=1e-5)
    logits = np.concatenate([outputs["match_logits"][:, None], outputs["mismatch_logits"]], 1)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    wanted = -(log_p[:, 0, 1] + log_p[:, 1, 0] + log_p[:, 2, 0]) / 3
    np.testing.assert_allclose(terms["matching"].value, wanted, rtol=1e-4)
    log_p = np.asarray(jax.nn.log_softmax(outputs["text_logits"]))[:, :-1]
    log_p = np.take_along_axis(log_p, batch["text"][:, 1:, None], 2)[..., 0]
    mask = batch["text_mask"][:, 1:]
    wanted = -(log_p * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(terms["captioning"].value, wanted, rtol=1e-5)
    assert set(terms) == {
        *("contrastive", "image_to_text_accuracy", "text_to_image_accuracy", "logit_scale"),
        *("masked_pairs", "matching", "matching_accuracy", "captioning", "token_accuracy"),
    }


def test_the_queue_holds_the_teacher_s_pairs_and_adds_negatives(whole):
    model, params, batch, outputs = whole
    settings = {"alpha": ((0, 0.0), (20, 0.8)), "queue_size": 6}
    system = make_system({"model": MODEL, "loss": settings})
    later = batch_of(seed=5) | {"example_id": np.arange(10, 10 + B, dtype=np.int32)}
    teacher = jax.jit(model.apply)({"params": params}, later)
    memory = system.memory()
    given = Context(jnp.int32(10), None, teacher, memory)
    before = system.loss(teacher | outputs, batch, Context(jnp.int32(10), None, outputs, memory))
    memory = system.remember(memory, outputs, later, given)
    keys = memory["queue"]["keys"]
    np.testing.assert_array_equal(keys["image"][:B], teacher["image_embed"])
    np.testing.assert_array_equal(keys["valid"], [True] * B + [False] * 2)
    after = system.loss(outputs, batch, Context(jnp.int32(10), None, outputs, memory))
    # alpha is 0.4 at step 10: a cross-entropy with soft targets over 4 keys, then over 8
    sims = np.asarray(outputs["image_embed"] @ outputs["text_embed"].T, np.float64)
    more = np.asarray(outputs["image_embed"] @ teacher["text_embed"].T, np.float64)
    scale = float(outputs["logit_scale"])
    both = np.asarray(outputs["text_embed"] @ outputs["image_embed"].T, np.float64)
    both_more = np.asarray(outputs["text_embed"] @ teacher["image_embed"].T, np.float64)
    for terms, extra in ((before, False), (after, True)):
        wanted = 0.0
        for own, others in ((sims, more), (both, both_more)):
            logits = scale * (np.concatenate([own, others], 1) if extra else own)
            log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            target = 0.4 * np.exp(log_p) + 0.6 * np.eye(*logits.shape)
            wanted -= (target * log_p).sum(1) / 2
        np.testing.assert_allclose(terms["contrastive"].value, wanted, rtol=1e-4)


def test_the_gradient_of_a_match_is_that_of_the_encoder_s_attention(whole):
    model, params, batch, _ = whole
    batch = {k: x for k, x in batch.items() if k != "negative_draws"}

    def score(outputs):
        return outputs["match_logits"][:, 1].sum(), outputs["match_logits"]

    def gradients(params, batch):
        return cross_gradients(model.apply, {"params": params}, batch, score)

    _, weights, grads = jax.jit(gradients)(params, batch)
    (encoder,) = [path for path in weights if path.startswith("text_encoder")]
    assert weights[encoder].shape == grads[encoder].shape == (1, B, 2, L, 5)
    assert np.all(np.abs(grads.pop(encoder)).max((0, 2, 3, 4)) > 1e-4)
    assert not any(np.any(of_decoder) for of_decoder in grads.values())


def test_draws_of_a_row_do_not_depend_on_its_batch():
    batch = {"text": np.zeros((B, L), np.int32)}
    context = Context(jnp.int32(0), row_keys(jax.random.key(0), jnp.arange(B)), None, {})
    draws = with_draws(batch, context)["negative_draws"]
    fewer = Context(jnp.int32(0), context.rng[2:], None, {})
    np.testing.assert_array_equal(with_draws(batch, fewer)["negative_draws"], draws[2:])
    assert draws.shape == (B, 2) and draws.min() >= 0 and draws.max() < 1


def test_answers_are_generated_after_questions():
    system = make_system({"model": MODEL | PARTS["answers"]})
    batch = batch_of()
    question = {f"question{k[4:]}": batch[k] for k in ("text", "text_mask")}
    params = drawn(system.model, batch | question)
    generate = system.generate(Words(), {"max_new_tokens": 5})
    given = {k: batch[k] for k in ("image", "text", "text_mask")}
    found = generate({"params": params}, given)
    asked = generate({"params": params}, {"image": batch["image"], **question})
    np.testing.assert_array_equal(asked.tokens, found.tokens)
    np.testing.assert_array_equal(asked.scores, found.scores)
    other = given | {"text": np.roll(given["text"], 1, axis=0)}
    assert np.all(generate({"params": params}, other).scores != found.scores)
    with pytest.raises(ValueError, match="needs questions and the batch has none"):
        generate({"params": params}, {"image": batch["image"]})


@pytest.mark.parametrize(
    ("changed", "loss", "message"),
    [
        ({"encoder": False, "decoder": False, "embed_dim": None}, {}, "a BLIP has a decoder, or"),
        ({"embed_dim": None}, {}, "encoder True, decoder True, embed_dim None and answers False"),
        ({"encoder": False}, {}, "a BLIP has a decoder, or an encoder with embed_dim"),
        ({"answers": True}, {}, "a BLIP has a decoder, or an encoder with embed_dim"),
        ({"answers": True, "embed_dim": None, "decoder": False}, {}, "answers needs a decoder"),
        ({"text": {**MODEL["text"], "dept": 2}}, {}, "config.model.text.dept.*'depth'"),
        ({}, {"alpha": 1.5}, "config.loss.alpha"),
        ({}, {"queue_size": -1}, "queue_size -1 and chunk_size 0"),
        ({}, {"queue": 8}, "config.loss.queue"),
        ({"encode_token": 40}, {}, "config.model.encode_token is 40 and the vocabulary 40"),
        ({"decode_token": -1}, {}, "config.model.decode_token is -1 and the vocabulary 40"),
        ({"image": {**MODEL["image"], "pool": "none"}}, {}, "remove pool and class_token"),
        ({"image": {**MODEL["image"], "class_token": False}}, {}, "remove pool and class_token"),
        ({"negative_group": 3}, {}, "groups of 3 rows and the batch has 4"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changed, loss, message):
    with pytest.raises(ValueError, match=message):
        make_system({"model": MODEL | changed, "loss": loss, "batch_size": B})


def test_batches_without_negatives_are_refused():
    batch = batch_of()
    one = {k: x[:1] for k, x in batch.items()}
    equal = batch | {k: np.repeat(batch[k][:1], B, 0) for k in ("text", "text_mask")}
    for name in ("whole", "retrieval"):
        check = make_system({"model": MODEL | PARTS.get(name, {})}).check_batch
        check(batch)
        with pytest.raises(ValueError, match="one pair has no negatives to match: raise config.ba"):
            check(one)
        with pytest.raises(ValueError, match="All 4 texts of the batch are equal, so none is a"):
            check(equal)
    captioner = make_system({"model": MODEL | PARTS["captioner"]})
    captioner.check_batch(one), captioner.check_batch(equal)  # it matches no pairs


def test_negatives_without_mining_are_uniform(whole):
    _, params, batch, _ = whole
    params = {**params, "logit_scale": np.float32(5.0)}  # mining would take the most similar
    model = make_system({"model": MODEL | {"hard_negatives": False}}).model
    apply = jax.jit(model.apply)
    found = apply({"params": params}, batch)["mismatch_logits"][:, 0]
    # Of the three other texts, in order, the one whose third of [0, 1) has the draw.
    place = (batch["negative_draws"][:, 0] * (B - 1)).astype(int)
    other = place + (place >= np.arange(B))
    pairs = {k: batch[k][other] if k.startswith("text") else batch[k] for k in batch_of()}
    wanted = apply({"params": params}, pairs)["match_logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_texts_and_groups_that_do_not_fit_are_refused(whole):
    _, params, batch, _ = whole
    long = np.ones((B, 13), np.int32)
    model = part("retrieval")
    with pytest.raises(ValueError, match="13 tokens is longer than the model's 12"):
        jax.eval_shape(model.apply, {"params": params}, {"text": long})
    grouped = make_system({"model": MODEL | {"negative_group": 3}}).model
    one = {k: x[:1] for k, x in batch.items()}
    with pytest.raises(ValueError, match="groups of 1 rows and the batch has 1"):
        jax.eval_shape(whole[0].apply, {"params": params}, one)
    with pytest.raises(ValueError, match="groups of 3 rows and the batch has 4"):
        jax.eval_shape(grouped.apply, {"params": params}, batch)
    with pytest.raises(ValueError, match="generates texts for images and the batch has none"):
        part("captioner").apply(
            {"params": captioner_params(params)},
            {"text": batch["text"]},
            cache_length=9,
            mutable=["cache"],
        )
