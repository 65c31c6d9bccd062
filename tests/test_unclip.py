"""python -m mmjax.unclip: what the decoder gets; parts of two CLIPs are refused."""

import types

import numpy as np
import pytest

from mmjax import unclip as module
from mmjax.unclip import SHARED, Part, check_same_clip


def part(*arrays):
    """A part whose CLIP has these parameters."""
    params = {name: {"kernel": np.asarray(x, np.float32)} for name, x in zip(SHARED, arrays)}
    made = Part.__new__(Part)
    made.loaded = types.SimpleNamespace(params={**params, "backbone": {"x": np.ones(2)}})
    return made


def test_a_prior_of_another_clip_is_refused():
    check_same_clip(part([1, 2], [3]), part([1, 2], [3]))
    with pytest.raises(ValueError, match="prior was trained on another CLIP than the decoder"):
        check_same_clip(part([1, 2], [3]), part([1, 2.0000002], [3]))


def test_what_is_between_images_starts_from_the_noise_of_the_images(monkeypatch):
    rng = np.random.default_rng(0)
    embed = rng.normal(size=(2, 5)).astype(np.float32)
    embed /= np.linalg.norm(embed, axis=1, keepdims=True)
    noise = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    decoder = types.SimpleNamespace(
        loaded=types.SimpleNamespace(image=lambda data: np.full((4, 4, 3), data[0], np.uint8)),
        inverted=lambda batch, settings: noise[: len(batch["image"])],
    )
    monkeypatch.setattr(module, "ARGS", types.SimpleNamespace(count=3), raising=False)
    monkeypatch.setattr(module, "image_embeddings", lambda prior, images: embed[: len(images)])
    monkeypatch.setattr(module, "text_embeddings", lambda prior, texts: embed)
    found = module.embeddings(decoder, None, [b"a", b"b"], [], {})
    np.testing.assert_allclose(found["image_embed"][[0, 2]], embed, atol=1e-6)
    np.testing.assert_allclose(found["start"][[0, 2]], noise, atol=1e-5)
    length = np.linalg.norm(found["start"].reshape(3, -1), axis=1)
    np.testing.assert_allclose(length[1], (length[0] + length[2]) / 2, rtol=1e-5)
    found = module.embeddings(decoder, None, [b"a"], ["a cat", "a red cat"], {})
    np.testing.assert_allclose(found["image_embed"][0], embed[0], atol=1e-6)
    np.testing.assert_array_equal(found["start"], np.repeat(noise[:1], 3, 0))
