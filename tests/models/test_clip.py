import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from drawn import parameters
from flax.core import meta
from ml_collections import ConfigDict

from mmjax import sharding
from mmjax.models.clip import row_ids
from mmjax.models.systems import make_system
from mmjax.variables import initial_params

RNG = np.random.default_rng(0)
B, LENGTH, VOCAB = 8, 12, 64
BATCH = {
    "image": RNG.integers(0, 256, (B, 16, 24, 3), dtype=np.uint8),
    "text": RNG.integers(0, VOCAB, (B, LENGTH)).astype(np.int32),
    "text_mask": np.arange(LENGTH)[None] < RNG.integers(2, LENGTH + 1, (B, 1)),
    "example_id": np.arange(B, dtype=np.int32),
}
IMAGE = {
    "width": 32,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 64,
    "patch_size": 8,
    "image_size": (16, 24),
}
TEXT = {"width": 32, "depth": 2, "heads": 4, "mlp_dim": 64, "vocab_size": VOCAB, "length": LENGTH}


def config(image=None, text=None, loss=None, **fields):
    towers = {"image": IMAGE | (image or {}), "text": TEXT | (text or {})}
    model = {"name": "clip", "embed_dim": 16, **towers, **fields}
    return ConfigDict({"model": model, "loss": loss or {}})


def make(**kwargs):
    """A model and drawn parameters of it."""
    model = make_system(config(**kwargs)).model
    return model, parameters(model, BATCH)


def initialized(**kwargs):
    system = make_system(config(**kwargs))
    return system.model, initial_params(system.model, system.spec, seed=0)


def run(model, params, batch, **kwargs):
    """The model's outputs; jitted, as compiling each operation alone is slow."""
    return jax.jit(lambda p, b: model.apply({"params": p}, b, **kwargs))(params, batch)


def gradients(model, params, lens, **kwargs):
    """Gradient of the sum of one output, times fixed weights."""

    def f(params):
        y = model.apply({"params": params}, BATCH, **kwargs)[lens]
        return jnp.sum(y * np.random.default_rng(1).normal(size=y.shape).astype(np.float32))

    return jax.jit(jax.grad(f))(params)


def size_of(tree):
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


OPENAI = {"norm_epsilon": 1e-5, "activation": "quick_gelu"}


@pytest.mark.parametrize(
    "image, text, embed_dim, parameters",
    [  # openai/CLIP: ViT-B/32, ViT-B/16 and ViT-L/14, as open_clip's model profile counts them
        ({"variant": "B/32"}, {"variant": "B"}, 512, 151_277_313),
        ({"variant": "B/16"}, {"variant": "B"}, 512, 149_620_737),
        ({"variant": "L/14"}, {"variant": "L"}, 768, 427_616_513),
    ],
)
def test_parameter_counts_are_the_published_ones(image, text, embed_dim, parameters):
    image = {"patch_bias": False, "pre_norm": True, **OPENAI, **image}
    text = {"vocab_size": 49408, "length": 77, **OPENAI, **text}
    model = {"name": "clip", "embed_dim": embed_dim, "image": image, "text": text}
    system = make_system(ConfigDict({"model": model}))
    batch = {k: jnp.zeros(v.shape, v.dtype) for k, v in system.spec.items()}
    init = lambda: system.model.init(jax.random.key(0), batch)["params"]  # noqa: E731
    assert sum(p.size for p in jax.tree.leaves(jax.eval_shape(init))) == parameters


def test_outputs_are_unit_length_and_one_modality_is_enough():
    model, params = initialized(logit_bias_init=-10.0)
    both = run(model, params, BATCH)
    for name in ("image_embed", "text_embed"):
        assert both[name].shape == (B, 16) and both[name].dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(both[name], axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(both["logit_scale"], 1 / 0.07, rtol=1e-5)
    assert both["logit_bias"] == -10
    for modality, absent in (("image", "text"), ("text", "image")):
        alone = {k: v for k, v in BATCH.items() if k.startswith(modality)}
        outputs = run(model, params, alone)
        assert f"{absent}_embed" not in outputs
        np.testing.assert_allclose(
            outputs[f"{modality}_embed"], both[f"{modality}_embed"], atol=1e-6
        )


def test_a_causal_text_ends_at_its_end_token():
    model, params = make()
    embed = lambda text: run(  # noqa: E731
        model, params, {"text": text, "text_mask": BATCH["text_mask"]}
    )["text_embed"]
    mask = BATCH["text_mask"]
    other_padding = np.where(mask, BATCH["text"], 0).astype(np.int32)
    np.testing.assert_allclose(embed(BATCH["text"]), embed(other_padding), atol=1e-6)
    other_start = BATCH["text"].copy()
    other_start[:, 0] = (other_start[:, 0] + 1) % VOCAB
    assert (np.abs(embed(BATCH["text"]) - embed(other_start)).max(1) > 1e-5).all()


@pytest.mark.parametrize("pool", ["mean", "map", "end"])
def test_masked_padding_is_not_seen_by_a_bidirectional_text(pool):
    model, params = make(text={"causal": False, "mask_padding": True, "pool": pool})
    mask = BATCH["text_mask"]
    texts = (BATCH["text"], np.where(mask, BATCH["text"], 0).astype(np.int32))
    a, b = (run(model, params, {"text": t, "text_mask": mask})["text_embed"] for t in texts)
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_locked_image_learns_nothing_and_is_not_dropped_out():
    image = {"dropout": 0.5, "patch_dropout": 0.5}
    model, params = make(image=image, lock_image=True)
    kwargs = {"train": True, "rngs": {"dropout": jax.random.key(0)}}
    grads = gradients(model, params, "image_embed", **kwargs)
    assert size_of(grads["image"]) == 0 and size_of(grads["image_proj"]) > 0
    trained = run(model, params, BATCH, **kwargs)["image_embed"]
    np.testing.assert_allclose(trained, run(model, params, BATCH)["image_embed"], atol=1e-6)
    free, _ = make(image=image)
    assert size_of(gradients(free, params, "image_embed", **kwargs)["image"]) > 0


def test_without_a_projection_the_widths_must_agree():
    with pytest.raises(ValueError, match="Without config.model.image_proj.*32 must be embed_dim"):
        make(image_proj=False)
    _, params = make(image_proj=False, text_proj=True, proj_bias=True, embed_dim=32)
    assert "image_proj" not in params and params["text_proj"]["bias"].shape == (32,)


def test_the_scale_of_a_file_is_used_as_it_is_and_updates_keep_it_below_100():
    """transformers 5.23 and open_clip 3.3 use exp(5.0) = 148.4; open_clip clips after an update."""
    model, params = initialized(logit_scale_init=5.0)
    np.testing.assert_allclose(run(model, params, BATCH)["logit_scale"], 148.413159, rtol=1e-6)
    assert make_system(config()).limits == {"logit_scale": pytest.approx(4.605170186)}
    assert make_system(config(logit_scale_max=np.inf)).limits == {}


@functools.cache
def on_one_device(dtype):
    """(gradient function, its arguments, its result, boxed parameters) of CLIP with its loss."""
    system = make_system(config(image={"depth": 1}, text={"depth": 1}, dtype=dtype))
    model, params = system.model, parameters(system.model, BATCH)

    def f(params, batch):
        outputs = model.apply({"params": params}, batch, train=True)
        return toy.means(system.loss, outputs, batch)["contrastive"]

    boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), BATCH)["params"])
    return f, params, jax.jit(jax.value_and_grad(f))(params, BATCH), boxed


@pytest.mark.parametrize(
    ("mesh", "dtype", "tolerance"),
    [
        ({"data": 8}, "float32", 1e-5),
        ({"data": 2, "fsdp": 2, "tensor": 2}, "float32", 1e-5),
        ({"fsdp": 4, "tensor": 2}, "float32", 1e-5),
        ({"data": 2, "fsdp": 2, "tensor": 2}, "bfloat16", 1e-4),
    ],
)
def test_loss_and_gradients_are_the_same_on_every_mesh(mesh, dtype, tolerance):
    f, params, (expected, expected_grads), boxed = on_one_device(dtype)
    mesh = sharding.make_mesh(mesh)
    with jax.set_mesh(mesh):
        is_box = lambda x: isinstance(x, meta.AxisMetadata)  # noqa: E731
        lies = jax.tree.map(lambda x: sharding.named(mesh, *x.names), boxed, is_leaf=is_box)
        args = jax.device_put(params, lies), jax.device_put(BATCH, sharding.batch_sharding(mesh))
        value, grads = jax.jit(jax.value_and_grad(f))(*args)
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    scale = size_of(expected_grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * scale), grads, expected_grads
    )


def test_bf16_gradients_point_where_fp32_does():
    _, params = make()
    flat = lambda g: np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)])  # noqa: E731
    a, b = (
        flat(gradients(make_system(config(dtype=d)).model, params, "image_embed"))
        for d in ("float32", "bfloat16")
    )
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert 0.999 < cosine < 1 - 1e-9


def embeds(batch):
    x, y = RNG.normal(size=(2, batch, 4)).astype(np.float32)
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    return unit(x), unit(y)


def test_softmax_loss_by_its_formula():
    x, y = embeds(B)
    outputs = {"image_embed": x, "text_embed": y, "logit_scale": np.float32(5)}
    terms = toy.means(make_system(config()).loss, outputs, BATCH)
    logits = 5 * x.astype(np.float64) @ y.T
    log_p = lambda axis: logits - np.log(np.exp(logits).sum(axis, keepdims=True))  # noqa: E731
    expected = -(np.diag(log_p(0)).mean() + np.diag(log_p(1)).mean()) / 2
    np.testing.assert_allclose(terms["contrastive"], expected, rtol=1e-5)
    assert terms["logit_scale"] == 5 and "logit_bias" not in terms


def test_duplicates_are_counted_by_image_and_by_caption():
    text = BATCH["text"].copy()
    mask = np.ones_like(BATCH["text_mask"])
    text[3] = text[1]  # one caption twice: pairs (1, 3) and (3, 1)
    ids = np.asarray([0, 1, 2, 3, 4, 5, 5, 7], np.int32)  # one image twice: (5, 6) and (6, 5)
    x, y = embeds(B)
    outputs = {"image_embed": x, "text_embed": y, "logit_scale": np.float32(5)}
    batch = {"text": text, "text_mask": mask, "example_id": ids}
    terms = make_system(config(loss={"mask_duplicates": True})).loss(outputs, batch, None)
    assert terms["masked_pairs"] == 4
    assert "masked_pairs" not in make_system(config()).loss(outputs, batch, None)


def test_row_ids_agree_just_where_rows_do():
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 3, (400, 5)).astype(np.int32)  # 243 possible rows: many repeats
    mask = np.arange(5)[None] < rng.integers(1, 6, (400, 1))
    ids = np.asarray(row_ids(rows, mask))
    keys = [tuple(r[m]) for r, m in zip(rows, mask)]
    same = np.asarray([[a == b for b in keys] for a in keys])
    np.testing.assert_array_equal(ids[:, None] == ids[None, :], same)


def test_spec_names_what_model_and_loss_read():
    spec = make_system(config(loss={"mask_duplicates": True})).spec
    assert {k: (v.shape, str(v.dtype)) for k, v in spec.items()} == {
        "image": ((1, 16, 24, 3), "uint8"),
        "text": ((1, LENGTH), "int32"),
        "text_mask": ((1, LENGTH), "bool"),
        "example_id": ((1,), "int32"),
    }
    assert "example_id" not in make_system(config()).spec


def test_typing_errors_name_their_place():
    for wrong, place in (
        ({"image": {"patchsize": 8}}, "config.model.image.patchsize.*'patch_size'"),
        ({"text": {"casual": True}}, "config.model.text.casual.*'causal'"),
        ({"embed": 3}, "config.model.embed .*'embed_dim'"),
    ):
        with pytest.raises(ValueError, match=place):
            make_system(config(**wrong))
    with pytest.raises(ValueError, match="config.loss.kid.*'kind'"):
        make_system(config(loss={"kid": "softmax"}))


def test_hard_negatives_are_texts_beside_the_others():
    system = make_system(config(loss={"hard_negatives": True, "mask_duplicates": True}))
    assert {"text_negative", "text_negative_mask"} <= system.spec.keys()
    params = parameters(system.model, BATCH)
    # The first image's negative is the second one's caption; the last image has none.
    text, mask = (np.roll(BATCH[k], -1, 0) for k in ("text", "text_mask"))
    text[1:, 0] = (text[1:, 0] + 1) % VOCAB
    mask = mask & (np.arange(B) < B - 1)[:, None]
    batch = {**BATCH, "text_negative": text, "text_negative_mask": mask}
    found = run(system.model, params, batch)
    alone = run(system.model, params, {**BATCH, "text": text, "text_mask": mask})
    plain = run(system.model, params, BATCH)
    for name in ("text_embed", "text_features", "image_embed"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found["text_negative_embed"][:-1], alone["text_embed"][:-1], rtol=1e-5, atol=1e-6
    )
    logits = {
        name: float(found["logit_scale"]) * np.asarray(found["image_embed"]) @ np.asarray(x).T
        for name, x in (("own", found["text_embed"]), ("more", found["text_negative_embed"]))
    }
    applies = np.ones((B, B), bool)
    applies[:, -1] = applies[1, 0] = False
    more = np.exp(np.where(applies, logits["more"], -np.inf))
    own = np.diagonal(logits["own"])
    images = np.log(np.exp(logits["own"]).sum(1) + more.sum(1)) - own
    texts = np.log(np.exp(logits["own"]).sum(0)) - own
    terms = toy.means(system.loss, found, batch)
    np.testing.assert_allclose(terms["contrastive"], np.mean(images + texts) / 2, rtol=1e-5)


def test_hard_negatives_need_a_text_tower_that_is_trained():
    with pytest.raises(ValueError, match="config.loss.hard_negatives needs a text tower"):
        make_system(config(loss={"hard_negatives": True}, head={"inner": 8}))
