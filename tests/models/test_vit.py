import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from drawn import parameters
from ml_collections import ConfigDict

from mmjax.layers.pixels import normalize
from mmjax.models.classification import classification
from mmjax.models.systems import make_system

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)
TINY = {"width": 16, "depth": 2, "heads": 2, "mlp_dim": 32, "patch_size": 8}


def make(**fields):
    fields = {"image_size": (16, 24), **TINY, **fields}
    model = make_system({"model": {"name": "vit", **fields}}).model
    return model, parameters(model, {"image": IMAGE[:1]})


def features(model, params, image):
    """image_features; jitted, as compiling each operation alone is slow."""
    return jax.jit(lambda p: model.apply({"params": p}, {"image": image}))(params)["image_features"]


def count(**fields):
    """Number of parameters; allocates nothing."""
    system = make_system(ConfigDict({"model": {"name": "vit", **fields}}))
    batch = {k: jnp.zeros(v.shape, v.dtype) for k, v in system.spec.items()}
    params = jax.eval_shape(lambda: system.model.init(jax.random.key(0), batch)["params"])
    return sum(p.size for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "fields, parameters",
    [
        # timm: vit_tiny/small/base/large_patch16_224
        ({"variant": "Ti/16"}, 5_717_416),
        ({"variant": "S/16"}, 22_050_664),
        ({"variant": "ViT-B/16"}, 86_567_656),
        ({"variant": "B/32"}, 88_224_232),
        ({"variant": "L/16"}, 304_326_632),
        # timm: vit_base_patch16_384
        ({"variant": "B/16", "image_size": 384}, 86_859_496),
    ],
)
def test_parameter_counts_are_the_published_ones(fields, parameters):
    assert count(num_classes=1000, **fields) == parameters


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "mean"},
        {"pool": "map", "position": "sincos2d"},
        {"pool": "cls", "stem": "conv", "pre_norm": True},
    ],
)
@pytest.mark.parametrize("size", [(16, 24), (24, 16), (40, 8)])
def test_every_form_takes_every_size(fields, size):
    model, params = make(num_classes=5, **fields)
    image = RNG.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    y = jax.jit(lambda p: model.apply({"params": p}, {"image": image}))(params)
    assert y["image_features"].shape == (2, 16) and y["logits"].shape == (2, 5)
    assert np.isfinite(y["image_features"]).all()


def test_pixels_are_normalised_by_mean_and_deviation():
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
    ours = normalize(jnp.asarray(IMAGE), mean, std)
    expected = (IMAGE.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_tokens_in_front_of_the_patches_are_never_given_back():
    more = {"class_token": True, "registers": 3}
    for pool in ("mean", "map", "none"):
        model, params = make(pool=pool, **more)
        assert {"class_token", "class_position", "registers"} < params.keys()
        y = jax.jit(lambda p, model=model: model.apply({"params": p}, {"image": IMAGE}))(params)
        assert [x.shape for x in y.values()] == [(4, 6, 16) if pool == "none" else (4, 16)]
    model, params = make(pool="cls_mean", num_classes=5, registers=3)
    y = model.apply({"params": params}, {"image": IMAGE})
    assert y["image_features"].shape == (4, 32) and y["logits"].shape == (4, 5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"distillation": "teacher"}, "distillation of a ViT is 'teacher'; use 'none'"),
        ({"distillation": "token", "pool": "mean"}, "pool 'cls', not 'mean'"),
        ({"distillation": "head"}, "two heads: set num_classes"),
        ({"pool": "none", "num_classes": 3}, "unset num_classes"),
    ],
)
def test_settings_that_do_not_fit_each_other(fields, words):
    with pytest.raises(ValueError, match=words):
        make(**fields)


def test_mean_pooling_without_positions_ignores_the_order_of_patches():
    model, params = make(pool="mean")
    params["position"]["table"] *= 0
    swapped = np.concatenate([IMAGE[:, :, 8:], IMAGE[:, :, :8]], axis=2)
    a, b = (features(model, params, i) for i in (IMAGE, swapped))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_patch_dropout_only_in_training_and_shortens_the_sequence():
    model, params = make(patch_dropout=0.5)
    kwargs = {"mutable": ["intermediates"], "rngs": {"dropout": jax.random.key(0)}}

    def lengths(train):
        apply = lambda p: model.apply({"params": p}, {"image": IMAGE}, train=train, **kwargs)  # noqa: E731
        _, sown = jax.eval_shape(apply, params)
        return jax.tree.leaves(sown)[0].shape[-1]

    assert lengths(False) == 1 + 6 and lengths(True) == 1 + 3


def test_bf16_is_near_fp32():
    model, params = make()
    a, b = features(model, params, IMAGE), features(make(dtype="bfloat16")[0], params, IMAGE)
    assert b.dtype == jnp.float32
    assert 1e-4 < np.abs(a - b).max() < 0.1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_cross_entropy(smoothing):
    logits = RNG.normal(size=(5, 3)).astype(np.float32)
    label = np.asarray([0, 2, 1, 1, 0], np.int32)
    loss = classification(label_smoothing=smoothing)
    ours = toy.means(loss, {"logits": logits}, {"label": label})
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = np.full((5, 3), smoothing / 3)
    target[np.arange(5), label] += 1 - smoothing
    np.testing.assert_allclose(ours["classification"], -(target * log_p).sum(-1).mean(), rtol=1e-5)
    assert ours["accuracy"] == np.float32((logits.argmax(-1) == label).mean())
    soft = toy.means(loss, {"logits": logits}, {"label_probs": np.eye(3, dtype=np.float32)[label]})
    np.testing.assert_allclose(soft["classification"], ours["classification"], rtol=1e-6)


def test_errors_name_the_value_and_the_nearest_setting():
    with pytest.raises(ValueError, match="config.model.widht.*'width'"):
        make(widht=3)
    with pytest.raises(ValueError, match="stem of a ViT is 'cnn'"):
        make(stem="cnn")
    with pytest.raises(ValueError, match="16x20 is not a multiple of patch_size 8"):
        make(image_size=(16, 20))
    with pytest.raises(ValueError, match="config.model.name is 'vti'.*Did you mean 'vit'"):
        make_system({"model": {"name": "vti"}})
    with pytest.raises(ValueError, match="needs 'label' or 'label_probs'"):
        classification()({"logits": np.zeros((1, 2))}, {}, None)


def test_labels_are_read_where_there_is_a_head_and_those_beyond_it_refused():
    model = {"name": "vit", **TINY, "image_size": (16, 24)}
    assert "label" not in make_system({"model": model}).spec
    system = make_system({"model": model | {"num_classes": 3}})
    assert system.spec["label"].shape == (1,)
    system.check_batch({"label": np.array([0, -1, 2])})  # -1: an example without a label
    with pytest.raises(ValueError, match="label 3 and the head 3 classes .*config.model.num_cl"):
        system.check_batch({"label": np.array([0, 3, 2])})
