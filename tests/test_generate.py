"""Text on the terminal: of images, and in the format that Flamingo is trained on."""

import types

import commands
import numpy as np
import pytest
import tiny_clip
from runs import CONFIG

from mmjax import generate, text_stream
from mmjax.data.transforms.interleave import join
from mmjax.decode.settings import Settings
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained

LAYERS = {"depth": 1, "heads": 2, "mlp_dim": 64}


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    """The workdir of a captioner that has learned colors, and its images."""
    root = tmp_path_factory.mktemp("captioner")
    tiny_clip.write_folder(root / "data")
    model = {
        "name": "captioner",
        "image": {**LAYERS, "width": 32, "patch_size": 8, "image_size": (16, 16)},
        "text": {"vocab_size": 320, "width": 32, "length": 8, "decoder": LAYERS},
    }
    settings = {
        "data.train.root": root / "data",
        "data.transform": "decode | choose_caption | tokenize(8)",
        "total_steps": 200,
        "checkpoint.every": 200,
        "model": model,
        "loss": {},
        "loss_weights": {"captioning": 1.0},
        "evals": {},
    }
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    config = f"--config={CONFIG}"
    done = commands.run("-m", "mmjax.train", config, f"--workdir={root / 'run'}", *words)
    assert done.returncode == 0, done.stderr
    return root / "run", root / "data"


def test_the_command_writes_of_each_picture(captioner):
    workdir, data = captioner
    files = [str(data / f"{i:03d}.png") for i in range(4)]  # red, green, blue, black
    said = ("-m", "mmjax.generate", f"--model={workdir}")
    found = commands.run(*said, *(f"--image={file}" for file in files))
    assert found.returncode == 0, found.stderr
    lines = [line.split(": ") for line in found.stdout.strip().splitlines()]
    assert [file for file, _ in lines] == files
    # What the evaluators' way gives, for all of the images at once.
    loaded = generate.open_model(str(workdir))
    images = np.stack([loaded.image((data / f"{i:03d}.png").read_bytes()) for i in range(4)])
    settings = {"max_new_tokens": 7}  # of a window of 8 the begin token takes one
    write = make_system({"model": loaded.config}).generate(loaded.tokenizer, settings)
    texts = write(loaded.variables, {"image": images}).texts
    pieces = generate.generate(str(workdir), images=files[:2], max_new_tokens=7)
    assert ["".join(p).strip() for p in pieces] == [text.strip() for text in texts[:2]]
    assert [text for _, text in lines] == texts
    assert [text.split()[1] for text in texts] == ["red", "green", "blue", "black"]
    beams = ("--beams=2", "--no_repeat_ngram=2", "--min_new_tokens=1", "--length_penalty=0.5")
    one = commands.run(*said, f"--image={files[2]}", "--prompt=a blue", *beams)
    assert one.stdout.strip() == texts[2], one.stderr


def test_wrong_pictures_are_one_sentence(captioner, tmp_path):
    workdir, data = captioner
    said = ("-m", "mmjax.generate", f"--model={workdir}")
    none = commands.run(*said, "--prompt=a")
    assert none.returncode == 2 and "give one with --image=FILE" in none.stderr
    (tmp_path / "no.png").write_text("no image")
    for file, word in ((tmp_path / "no.png", "no.png"), (tmp_path / "gone", "No such file")):
        found = commands.run(*said, f"--image={file}")
        assert found.returncode == 2 and "Traceback" not in found.stderr
        assert f"Cannot read the image '{file}'" in found.stderr and word in found.stderr


class Words:
    """A tokenizer: a token a letter."""

    bos_id, eos_id, pad_id = 1, 2, 0

    def prompts(self, texts):
        return [(self.bos_id, *map(ord, text)) for text in texts]


def flamingo():
    config = {"name": "flamingo", "image_token": 5, "image": {}}
    empty = dict.fromkeys(["model", "params", "text_length", "transform", "report"])
    return Pretrained(config=config, tokenizer=Words(), **empty)


def test_a_prompt_of_pictures_is_a_row_as_in_training():
    images = list(np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3))
    (batch,) = generate.make_batches(flamingo(), "<image>cat<image>red bus<image>", images)
    lines = [np.array([1, *map(ord, words), 2]) for words in ("cat", "red bus")]
    text, mask, _, kept = join(lines, 1, 32, 5, open_end=True)
    assert kept == 2
    np.testing.assert_array_equal(batch["text"][batch["text_mask"]], text[mask])
    np.testing.assert_array_equal(batch["image"], np.stack(images)[None])


def test_a_prompt_s_start_and_its_last_words_have_no_end():
    image = np.zeros((2, 2, 3), np.uint8)
    (batch,) = generate.make_batches(flamingo(), "See:<image>a", [image])
    row = batch["text"][batch["text_mask"]].tolist()
    assert row == [1, *map(ord, "See:"), 5, ord("a")]
    (alone,) = generate.make_batches(flamingo(), "", [image])
    assert alone["text"][alone["text_mask"]].tolist() == [1, 5]
    with pytest.raises(
        ValueError, match="The prompt has 2 placeholders <image> and there are 1 images"
    ):
        generate.make_batches(flamingo(), "<image>a<image>", [image])


def test_no_end_token_is_written():
    tokens = [7, 2]
    loaded = types.SimpleNamespace(
        variables=None,
        model=None,
        tokenizer=types.SimpleNamespace(decode_raw=lambda ids: "".join(map(str, ids))),
    )
    stream = lambda *_: iter(np.array([[t] for t in tokens]))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_stream, "make_stream", lambda *_: stream)
        pieces = text_stream.make_text_stream(loaded, Settings(4, end_ids=(2,)))
        assert "".join(pieces({})) == "7"
