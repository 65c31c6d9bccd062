"""Re-ranking by a CLIP: its own cosines decide, and the CLIP of another run is refused."""

import numpy as np
import pytest
from small_clip import small_clip

from mmjax.embedder import open_embedder
from mmjax.pretrained import save_pretrained
from mmjax.rerank import chooser, cosines, decoded


def test_the_candidate_of_the_highest_cosine(tmp_path):
    loaded = small_clip()
    path = str(tmp_path / "clip")
    save_pretrained(loaded, path)
    embedder, words = open_embedder(path), loaded.tokenizer
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 20, 20, 3), np.uint8)
    texts = ["a red bus", "", "tea"]
    batch = dict(zip(("text", "text_mask"), words.encode(texts, 9)))
    assert decoded(words, batch) == texts
    found = cosines(embedder, images, texts)
    np.testing.assert_array_equal(found[1], 0)
    for row in (0, 2):
        image = embedder.images([embedder.loaded.image(x) for x in images[row]])
        want = image @ embedder.texts([texts[row]])[0]
        np.testing.assert_allclose(found[row], want, rtol=1e-5, atol=1e-6)

    settings = {"candidates": 2, "top_k": 3, "rerank": path}
    left, choose = chooser({**settings, "rerank_fingerprint": embedder.fingerprint}, words)
    assert left == {"candidates": 2, "top_k": 3}
    given = {"candidates": images, "log_p": np.arange(6.0).reshape(3, 2)}
    chosen, best = choose(given, batch), found.argmax(1)
    np.testing.assert_array_equal(chosen["image"], images[np.arange(3), best])
    np.testing.assert_array_equal(chosen["log_p"], 2 * np.arange(3) + best)
    np.testing.assert_allclose(chosen["score"], found.max(1), atol=1e-5)
    with pytest.raises(ValueError, match="rerank_fingerprint is abc, and the model in"):
        chooser({**settings, "rerank_fingerprint": "abc"}, words)
    with pytest.raises(ValueError, match="candidates is 2 and sample.rerank is not set"):
        chooser({"candidates": 2}, words)
    left, choose = chooser({"top_k": 3, "rerank": "nowhere"}, None)
    assert left == {"top_k": 3} and choose({"image": 1}, {}) == {"image": 1}
