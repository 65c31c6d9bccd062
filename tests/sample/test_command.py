"""The command that samples, on the golden U-Net and DiT of random weights."""

import commands
import numpy as np
import pytest
from parity import GOLDEN
from PIL import Image

from mmjax.pretrained import load
from mmjax.sample.__main__ import conditions
from mmjax.sample.sheet import tile
from mmjax.unclip import Part

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
    run = commands.run("-m", "mmjax.sample", UNET, f"--out={tmp_path / 'a.npy'}")
    assert run.returncode == 2 and "The model gives images" in run.stderr
    assert "Sampling" not in run.stdout + run.stderr


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


class Words:
    """A tokenizer of words of one letter, with a first and a last token."""

    def rows(self, texts, length):
        ids = [[1, *map(ord, text.split()), 2] for text in texts]
        text = np.array([(row + [0] * length)[:length] for row in ids], np.int32)
        return text, text > 0, np.array([len(row) > length for row in ids])


def test_an_empty_prompt_is_no_text_and_a_long_one_is_reported(capsys):
    loaded = load(GOLDEN / "glide")
    object.__setattr__(loaded, "text_length", 4)
    object.__setattr__(loaded, "tokenizer", Words())
    found = conditions(loaded, [], ["a", "", "a b c d"])
    np.testing.assert_array_equal(found["text_mask"].sum(1), [3, 0, 4])
    assert "'a b c d' does not fit into the model's 4 tokens" in capsys.readouterr().out
    made = Part.__new__(Part)
    made.loaded = loaded
    loaded.config["name"] = "unclip"
    np.testing.assert_array_equal(made.texts(["a", ""])["text_mask"].sum(1), [3, 0])
    loaded.config["name"] = "diffusion_prior"  # its CLIP reads an empty text as any other
    found = made.texts(["", "a b c d", "a b c d"])
    np.testing.assert_array_equal(found["text_mask"].sum(1), [2, 4, 4])
    assert capsys.readouterr().out.count("'a b c d' does not fit into 4 tokens") == 1


def test_a_sheet_fills_free_places_with_white():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    sheet = tile(images, 2)
    assert sheet.shape == (6, 8, 3)
    assert (
        (sheet[:2, 5:] == 1).all() and (sheet[4:, 5:] == 255).all() and (sheet[4:, :3] == 2).all()
    )
