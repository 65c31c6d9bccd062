"""Boxes and points as text: the tokens of big_vision, round trips, and what is no box."""

import numpy as np
import pytest

from mmjax.data.text.locations import BINS, TOKENS, read_box, read_point, write_places
from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.data.text.train_bpe import train_bpe


def test_the_bins_are_those_of_big_vision():
    """y first; round(x * 1023), clipped (pp/proj/paligemma/segmentation.py)."""
    assert write_places((0.25, 0, 1, 0.5), "bins") == "<loc0000><loc0256><loc0512><loc1023>"
    assert write_places((1.2, -0.1), "bins") == "<loc0000><loc1023>"
    assert write_places((0.25, 0, 1, 0.5), "decimals") == "[0.25, 0.00, 1.00, 0.50]"
    with pytest.raises(ValueError, match="form of boxes is 'pixels': use one of bins, decimals"):
        write_places((0, 1), "pixels")


@pytest.mark.parametrize("form, most", [("bins", 0.5 / 1023), ("decimals", 0.005)])
def test_a_round_trip_is_off_by_at_most_half_a_step(form, most):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((2000, 2, 2)), axis=1)
    corners[0] = [[0, 0], [1, 1]]
    worst = 0.0
    for box in corners.reshape(-1, 4):
        for numbers, read in ((box, read_box), (box[2:], read_point)):
            found = read(f"It is at {write_places(numbers, form)}.")
            if found is None:  # thinner than a step
                assert (box[2:] - box[:2]).min() <= 2 * most
                continue
            worst = max(worst, np.abs(found - numbers.clip(0, 1)).max())
    assert 0.9 * most < worst <= most + 1e-12


def test_what_is_read():
    box = "<loc0000><loc0256> <loc0512>\n<loc1023>"
    np.testing.assert_allclose(read_box(f"x {box} y"), np.asarray([256, 0, 1023, 512]) / 1023)
    np.testing.assert_allclose(read_box("[0,0,1,.5] or [0, 0, 1, 1]"), [0, 0, 1, 0.5])
    assert read_point(f"{box} [0.5, 1]").tolist() == [0.5, 1]
    for text in (
        "",
        "<loc0000><loc0256><loc0512>",
        "<loc0000><loc0256><loc0512><loc1024>",
        "<loc0000><loc0256><loc0512><loc1023><loc0001>",
        "<loc0500><loc0256><loc0500><loc1023>",  # no area
        "<loc512><loc1><loc2><loc3>",
        "[0.1, 0.2, 0.3]",
        "[0.1, 0.2, 0.3, 1.5]",
        "[0.1, 0.2, 0.3, 0.1.4]",
        "[-0.1, 0.2, 0.3, 0.4]",
        "[0.1, 0.2, 0.3, nan]",
        "[0.4, 0.2, 0.3, 0.4]",
        "[, , , ]",
    ):
        assert read_box(text) is None and read_point(text) is None


def test_a_trained_tokenizer_has_a_token_for_each_location(tmp_path):
    corpus = ["where is the cat?", "the cat is at"] * 3
    words = train_bpe(corpus, 1600, specials=("<image>",), locations=True)
    words.save(tmp_path)
    place = write_places((0.1, 0.2, 0.3, 0.4), "bins")
    for tokenizer in (words, load_tokenizer(tmp_path)):
        ids, offsets = tokenizer.pieces(f"the cat is at {place}<image>")
        assert [tokenizer.token(i) for i in ids[-5:-1]] == place.replace("><", "> <").split()
        assert offsets[-2][1] - offsets[-5][0] == len(place)
        assert tokenizer.decode([1, *ids, 2]) == f"the cat is at{place}"  # without the image
        assert len({tokenizer.token_id(token) for token in TOKENS}) == BINS
        assert max(map(tokenizer.token_id, TOKENS)) < tokenizer.vocab_size <= 1600
    assert train_bpe(corpus, 300).json() == train_bpe(corpus, 300, locations=False).json()
    with pytest.raises(ValueError, match="and 3 special tokens and 1024 of locations"):
        train_bpe(corpus, 1200, locations=True)
