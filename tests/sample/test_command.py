"""The command that samples, on the golden U-Net and DiT of random weights."""

import commands
import numpy as np
import pytest
from parity import GOLDEN
from PIL import Image

from mmjax.pretrained import load
from mmjax.sample.__main__ import conditions
from mmjax.sample.sheet import tile

UNET = f"--model={GOLDEN / 'unet_adm'}"


def test_images_are_a_grid_of_which_more_may_follow(tmp_path):
    base = ("-m", "mmjax.sample", UNET, "--steps=2", "--class=1", "--class=3", "--frames=2")
    run = commands.run(*base, "--count=4", f"--out={tmp_path / 'a.png'}")
    assert run.returncode == 0, run.stderr
    assert "a.png: 4 samples" in run.stdout
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (2 * 10 - 2, 2 * 14 - 2, 3)  # a column per class, 2 pixels between
    assert Image.open(tmp_path / "a_frames.png").size == (2 * 14 - 2, 4 * 10 - 2)
    run = commands.run(*base, "--count=7", "--batch_size=4", f"--out={tmp_path / 'b.png'}")
    assert run.returncode == 0, run.stderr
    more = np.asarray(Image.open(tmp_path / "b.png"))
    np.testing.assert_array_equal(more[:18], sheet)
    assert (more[-8:, :12] != sheet[-8:, :12]).any() and (more[-8:, 14:] == 255).all()


def test_latents_are_an_array(tmp_path):
    base = ("-m", "mmjax.sample", f"--model={GOLDEN / 'dit'}", "--steps=2", "--guidance=3")
    run = commands.run(*base, "--count=2", f"--out={tmp_path / 'x.npy'}")
    assert run.returncode == 0, run.stderr
    assert np.load(tmp_path / "x.npy").shape == (2, 6, 6, 4)


def test_what_it_cannot_do_is_said_in_a_sentence(tmp_path):
    base = ("-m", "mmjax.sample", UNET, f"--out={tmp_path / 'a.png'}")
    run = commands.run(*base, "--guidance=2")
    assert run.returncode == 2 and "never saw an image without its class" in run.stderr
    assert not (tmp_path / "a.png").exists()


def test_conditions_are_those_of_the_model():
    unet, plain = load(GOLDEN / "unet_adm"), load(GOLDEN / "unet_ddpm")
    np.testing.assert_array_equal(conditions(unet, ["3", "0"], [])["label"], [3, 0])
    np.testing.assert_array_equal(conditions(unet, [], [])["label"], range(5))
    assert conditions(plain, [], []) == {}
    with pytest.raises(ValueError, match="--class=9 is no class of the model, which has: 0 to 4"):
        conditions(unet, ["9"], [])
    with pytest.raises(ValueError, match="has no classes: leave --class out"):
        conditions(plain, ["1"], [])
    with pytest.raises(ValueError, match="takes no text: leave --prompt out"):
        conditions(unet, [], ["a cat"])


def test_a_sheet_fills_free_places_with_white():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    sheet = tile(images, 2)
    assert sheet.shape == (6, 8, 3)
    assert (
        (sheet[:2, 5:] == 1).all() and (sheet[4:, 5:] == 255).all() and (sheet[4:, :3] == 2).all()
    )
