"""Evaluators of image tokenizers and of models of their codes, on stand-ins for models."""

import numpy as np
import pytest
from shapes import make_runner

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.metrics.reconstruction import psnr

SIDE, GRID, CODES = 16, (2, 4), 64


class Noise(Source):
    """Images that are constant over patches of 8 x 4 pixels, with a code for each."""

    def __init__(self, n=12, seed=0, codes=CODES):
        rng = np.random.default_rng(seed)
        self.name, self.class_names, self.n = "noise", None, n
        self.codes = rng.integers(0, codes, (n, *GRID)).astype(np.int32)
        self.image = (3 * self.codes).repeat(8, 1).repeat(4, 2)[..., None].repeat(3, 3)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        text = np.array([1, i, 2], np.int32)
        image = self.image[i].astype(np.uint8)
        return {"image": image, "text": text, "text_mask": text >= 0}


def codes_of(batch):
    return np.asarray(batch["image"])[:, ::8, ::4, 0].astype(np.int32) // 3


def evaluate(embed, kind, **settings):
    runner = make_runner(Noise, embed=embed, codes=CODES)
    settings = {"kind": kind, "source": {}, "transform": "", **settings}
    return dict(make_evaluators({"x": settings}, runner)["x"].run({}))


def test_reconstructions_and_the_usage_of_the_codebook(capsys):
    def embed(variables, batch):
        image = (batch["image"].astype(np.float32) + 10) / 255
        return {"image_codes": codes_of(batch), "reconstruction": image}

    found, source = evaluate(embed, "reconstruction"), Noise()
    assert found["psnr"] == pytest.approx(20 * np.log10(255 / 10))
    assert found["bits_per_image"] == 8 * 6
    values, counts = np.unique(source.codes, return_counts=True)
    p = counts / counts.sum()
    assert found["codes_used"] == len(values)
    assert found["code_perplexity"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    # Each patch has one color: its mean is that, and enlarging blurs the edges alone.
    assert 15 < found["downsampled/psnr"] < 60 and found["downsampled/ssim"] > 0.5
    assert not capsys.readouterr().out

    def collapsed(variables, batch):
        return {**embed(variables, batch), "image_codes": np.minimum(codes_of(batch), 0)}

    assert evaluate(collapsed, "reconstruction")["code_perplexity"] == 1
    warned = capsys.readouterr().out
    assert "collapsed: 1 of 64 codes are used in 12 images" in warned
    assert "raise the weight of 'kl', or config.loss.revive" in warned  # experiments/dalle_emoji.md


def test_a_flat_image_survives_downsampling():
    def embed(variables, batch):
        return {"image_codes": codes_of(batch), "reconstruction": batch["image"] / 255}

    found = evaluate(embed, "reconstruction", source={"codes": 1})
    assert np.isinf(found["psnr"]) and np.isinf(found["downsampled/psnr"])
    image = np.zeros((1, 4, 4, 3), np.uint8)
    assert psnr(image, image + 255)[0] == pytest.approx(0)


def test_bits_per_code_beside_unigrams():
    def embed(variables, batch):
        """Knows the codes of the text's own image with p = 1/2, and others with 1/1024."""
        codes = codes_of(batch).reshape(len(batch["image"]), -1)
        own = Noise().codes.reshape(12, -1)[batch["text"][:, 1] % 12]
        return {"image_codes": codes, "image_losses": np.where(codes == own, 1, 10) * np.log(2.0)}

    train = {"n": 40, "seed": 1}
    found = evaluate(embed, "image_tokens", train_source=train)
    assert found["bits_per_code"] == pytest.approx(1) and found["bits_per_image"] == 8
    assert 9 < found["shuffled/bits_per_code"] <= 10
    seen, held_out = (Noise(**x).codes.reshape(-1, 8) for x in (train, {}))
    unigram = (np.bincount(seen.reshape(-1), minlength=CODES) + 1) / (seen.size + CODES)
    # Smoothed over the codes that occur; the largest does.
    assert seen.max() == CODES - 1
    want = -np.log2(unigram[held_out]).mean()
    assert found["unigram/bits_per_code"] == pytest.approx(want)
    at = [
        [
            (np.sum(seen[:, j] == held_out[i, j]) + 100 * unigram[held_out[i, j]]) / 140
            for j in range(8)
        ]
        for i in range(12)
    ]
    assert found["position/bits_per_code"] == pytest.approx(-np.log2(at).mean())
