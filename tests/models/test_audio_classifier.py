"""Audio classifiers: the Keyword Transformer beside a NumPy reference, sizes, patches, errors."""

import operator

import drawn
import jax
import numpy as np
import pytest
from scipy import special

from mmjax.models.audio_classifier import AudioClassifier, overlapping_patches
from mmjax.models.systems import make_system
from mmjax.variables import abstract_variables

KEYWORDS = {
    "patch_size": (1, 40),
    "stride": (1, 40),
    "frames": 98,
    "bins": 40,
    "norm": "post",
    "qkv_bias": False,
    "distillation": False,
    "head_norm": False,
}
RNG = np.random.default_rng(0)


def keyword_transformer(p, audio):
    """The logits of one example [T, F], as in section 2 of the paper, and its official code."""

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def attend(x, p):
        q, k, v = np.einsum("ld,dnhe->nhle", x, p["qkv"]["kernel"])
        weights = special.softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]), axis=-1)
        return np.einsum("hle,hed->ld", weights @ v, p["out"]["kernel"]) + p["out"]["bias"]

    def mlp(x, p):
        x = x @ p["up"]["kernel"] + p["up"]["bias"]
        x = x * 0.5 * (1 + special.erf(x / np.sqrt(2)))
        return x @ p["down"]["kernel"] + p["down"]["bias"]

    x = audio @ p["stem"]["kernel"] + p["stem"]["bias"] + p["position"]["table"][:, 0]
    x = np.concatenate([(p["class_token"] + p["class_position"])[None], x])
    layers = p["transformer"]["layers"]
    for i in range(len(layers["norm_mlp"]["scale"])):
        layer = jax.tree.map(operator.itemgetter(i), layers)
        x = norm(x + attend(x, layer["attention"]), layer["norm_attention"])
        x = norm(x + mlp(x, layer["mlp"]), layer["norm_mlp"])
    return x[0] @ p["head"]["kernel"] + p["head"]["bias"]


def test_a_keyword_transformer_beside_its_reference():
    sizes = {"width": 12, "depth": 2, "heads": 3, "mlp_dim": 20, "num_classes": 4}
    model = AudioClassifier(**KEYWORDS | {"frames": 7} | sizes)
    audio = RNG.normal(size=(2, 7, 40)).astype(np.float32)
    params = drawn.parameters(model, {"audio": audio})
    found = jax.jit(lambda p, x: model.apply({"params": p}, {"audio": x}))(params, audio)
    plain = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    want = np.stack([keyword_transformer(plain, x) for x in audio.astype(np.float64)])
    np.testing.assert_allclose(found["logits"], want, atol=1e-5 * abs(want).max())


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (KEYWORDS | {"variant": "KWT-1", "num_classes": 12}, 607_308),  # the paper's tables:
        (KEYWORDS | {"variant": "KWT-2", "num_classes": 12}, 2_394_252),  # 607k, 2,394k and
        (KEYWORDS | {"variant": "KWT-3", "num_classes": 12}, 5_360_844),  # 5,361k
        ({"variant": "B", "num_classes": 527}, 86_594_063),  # transformers 5.23, ASTConfig()
    ],
    ids=["KWT-1", "KWT-2", "KWT-3", "AST"],
)
def test_published_sizes(model, count):
    system = make_system({"model": {"name": "audio_classifier", **model}})
    assert (
        sum(
            x.size for x in jax.tree.leaves(abstract_variables(system.model, system.spec)["params"])
        )
        == count
    )


def test_patches_overlap():
    audio = RNG.normal(size=(2, 11, 9)).astype(np.float32)
    patches = np.asarray(overlapping_patches(audio, (4, 3), (3, 2), (3, 4)))
    for t in range(3):
        for f in range(4):
            want = audio[:, 3 * t : 3 * t + 4, 2 * f : 2 * f + 3].reshape(2, -1)
            np.testing.assert_array_equal(patches[:, t, f], want)


def test_other_lengths_than_in_training():
    model = AudioClassifier(
        width=8, depth=1, heads=2, mlp_dim=8, frames=40, bins=20, patch_size=(8, 8), stride=(6, 6)
    )
    batch = {"audio": np.zeros((1, 40, 20), np.float32)}
    params = drawn.parameters(model, batch)
    for frames in (8, 40, 75):
        batch = {"audio": np.zeros((1, frames, 20), np.float32)}
        out = jax.eval_shape(lambda p, b: model.apply({"params": p}, b), params, batch)
        assert out["audio_features"].shape == (1, 8) and set(out) == {"audio_features"}
    batch = {"audio": np.zeros((1, 7, 20), np.float32)}
    with pytest.raises(ValueError, match="7 frames and 20 bins is smaller than a patch of 8 x 8"):
        jax.eval_shape(lambda p, b: model.apply({"params": p}, b), params, batch)


def test_wrong_settings():
    def make(loss=None, **fields):
        return make_system({"model": {"name": "audio_classifier", **fields}, "loss": loss or {}})

    with pytest.raises(ValueError, match="Unknown model variant 'KWT-4'|is not of the form"):
        make(variant="KWT-4").model.sizes  # noqa: B018
    with pytest.raises(ValueError, match="smaller than a patch of 16 x 16"):
        make(variant="B", bins=10)
    assert "label" in make(variant="B", num_classes=3).spec
    several = make({"independent": True}, variant="B", num_classes=3)
    assert several.spec["label_probs"].shape == (1, 3) and "label" not in several.spec
    assert several.evaluators["classification"]["kind"] == "multi_label"
    with pytest.raises(ValueError, match="stride is .0, 10.: it must be at least 1"):
        make(variant="B", stride=(0, 10))
