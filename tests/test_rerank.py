"""Re-ranking by a CLIP: its own cosines, and the CLIP of another run refused."""

import numpy as np
import pytest
from small_clip import small_clip

from mmjax.embedder import Embedder
from mmjax.pretrained import save_pretrained
from mmjax.rerank import Reranker, with_reranker


def test_scores_are_the_cosines_of_the_clip(tmp_path):
    loaded = small_clip()
    embedder = Embedder(loaded, sizes=(4,))
    ranks = Reranker(embedder, loaded.tokenizer)
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 20, 20, 3), np.uint8)
    texts = ["a red bus", "", "tea"]
    text, mask = loaded.tokenizer.encode(texts, 9)
    found = ranks(images, {"text": text, "text_mask": mask})
    for row in (0, 2):
        image = embedder.images([loaded.image(x) for x in images[row]])
        want = image @ embedder.texts([texts[row]])[0]
        np.testing.assert_allclose(found[row], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0)

    save_pretrained(loaded, tmp_path / "clip")
    settings = {"candidates": 2, "rerank": str(tmp_path / "clip")}
    opened = with_reranker(settings, loaded.tokenizer)
    assert opened["candidates"] == 2 and isinstance(settings["rerank"], str)
    again = opened["rerank"](images, {"text": text, "text_mask": mask})
    np.testing.assert_allclose(again, found, atol=1e-5)
    known = {"rerank_fingerprint": opened["rerank"].fingerprint}
    assert "rerank_fingerprint" not in with_reranker({**settings, **known}, loaded.tokenizer)
    with pytest.raises(ValueError, match="rerank_fingerprint is abc, and the model in"):
        with_reranker({**settings, "rerank_fingerprint": "abc"}, loaded.tokenizer)
    assert with_reranker({"top_k": 3}, None) == {"top_k": 3}
