"""CLAP's loss beside two plain cross-entropies, and what it refuses."""

import numpy as np
import pytest
from scipy.special import log_softmax
from toy import TEXT, means

from mmjax.models.clap import contrastive
from mmjax.models.systems import make_system
from mmjax.variables import abstract_variables

RNG = np.random.default_rng(0)
AUDIO = {"frames": 30, "mels": 8, "image_size": 16, "width": 8, "depths": (1, 1), "heads": (1, 2)}
CONFIG = {"name": "clap", "embed_dim": 8, "audio": {**AUDIO, "window": 2}}
TEXT = {k: x for k, x in TEXT.items() if k != "remat"} | {"depth": 1}


def unit(*shape):
    x = RNG.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def outputs(rows):
    scales = {"logit_scale": np.float32(4.0), "logit_scale_text": np.float32(9.0)}
    return {"audio_embed": unit(rows, 6), "text_embed": unit(rows, 6), **scales}


def test_each_direction_has_its_own_scale_and_absent_rows_are_left_out():
    given, present = outputs(7), np.array([1, 1, 0, 1, 1, 0, 1], bool)
    batch = {"audio_present": present, "text_present": np.ones(7, bool)}
    found = means(contrastive(), given, batch)
    logits = (given["audio_embed"] @ given["text_embed"].T)[present][:, present]
    losses = [np.diag(log_softmax(scale * z, 1)) for scale, z in ((4.0, logits), (9.0, logits.T))]
    np.testing.assert_allclose(found["contrastive"], -np.mean(losses), rtol=1e-5)
    right = [np.mean(z.argmax(1) == np.arange(5)) for z in (logits, logits.T)]
    assert [float(found[f"{x}_accuracy"]) for x in ("audio_to_text", "text_to_audio")] == [
        pytest.approx(x) for x in right
    ]


def test_equal_texts_are_no_negatives():
    given = outputs(4)
    batch = {"example_id": np.arange(4, dtype=np.int32)}
    batch["text"] = np.array([[1, 2], [3, 4], [1, 2], [5, 6]], np.int32)
    found = means(contrastive(mask_duplicates=True), given, batch)
    logits = given["audio_embed"] @ given["text_embed"].T
    logits[[0, 2], [2, 0]] = -np.inf
    losses = [np.diag(log_softmax(scale * z, 1)) for scale, z in ((4.0, logits), (9.0, logits.T))]
    np.testing.assert_allclose(found["contrastive"], -np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mels": 7}, "image_size is 16: it must be a multiple of mels 7"),
        ({"patch_size": 5}, r"patch_size x 2\^\(stages - 1\) = 10"),
        ({"window": 4}, "window is 4 and the last stage has 2 tokens a side: use a smaller"),
        ({"frames": 33}, "frames is 33, and an image of 16 holds 32 frames of 8 mels"),
        ({"heads": (1,)}, "heads .1,. .* give as many heads as depths"),
        ({"remat": "some"}, "remat 'some'"),
    ],
)
def test_sizes_that_do_not_fit_are_named(wrong, message):
    config = {**CONFIG, "text": TEXT, "audio": {**CONFIG["audio"], **wrong}}
    system = make_system({"model": config, "loss": {}})
    with pytest.raises(ValueError, match=message):
        abstract_variables(system.model, system.spec)
