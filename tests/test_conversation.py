"""Prompts of a LLaVA for the command that generates, beside the processors of transformers."""

import types
from pathlib import Path

import numpy as np
import pytest
from parity import GOLDEN, expected
from PIL import Image

from configs import llava_emoji
from mmjax import chat, conversation, generate, pretrained
from mmjax.data.transforms.converse import named_template
from mmjax.decode.generate import check_prompts
from mmjax.models.llava import Llava
from mmjax.pretrained import describe
from mmjax.tools.table import TOOLS


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, want = tmp_path_factory.mktemp("images"), expected("idefics3")
    for name in ("wide", "square"):
        Image.fromarray(want[name]).save(folder / f"{name}.png")
    return [str(folder / "wide.png"), str(folder / "square.png")]


def written(loaded, batch):
    ids = batch["text"][0][batch["text_mask"][0]]
    return loaded.tokenizer._backend.decode(ids.tolist(), skip_special_tokens=False)


def test_a_prompt_with_tiles_is_that_of_the_processor(files):
    loaded, want = describe(GOLDEN / "idefics3"), expected("idefics3")
    turn = conversation.first_turn("<image>a red bus<image>two small dogs", 2)
    batch = conversation.make_batch(loaded, turn, files)
    np.testing.assert_array_equal(batch["image"][0], want["tiles"])
    text = written(loaded, batch)
    body = loaded.tokenizer._backend.decode(want["text"][0].tolist(), skip_special_tokens=False)
    assert text.endswith(f"User:{body}<end_of_utterance>\nAssistant:")


def test_a_llava_answers_a_prompt_and_a_conversation(files):
    (pieces,) = generate.generate(
        str(GOLDEN / "llava"), "what?", files[:1], max_new_tokens=4, min_new_tokens=4
    )
    first = "".join(pieces)
    turns = generate.chat(
        str(GOLDEN / "llava"), ["what?", "why?"], files[:1], max_new_tokens=4, min_new_tokens=4
    )
    answers = ["".join(pieces) for pieces in turns]
    assert answers[0] == first and len(answers) == 2
    (alone,) = generate.generate(str(GOLDEN / "llava"), "what?", max_new_tokens=4)
    assert "".join(alone) != first


def test_an_answer_with_the_place_of_an_image_does_not_end_a_conversation(monkeypatch):
    monkeypatch.setattr(
        chat, "make_text_stream", lambda *_: lambda batch, seed: iter(["a<im", "age>"])
    )
    turns = generate.chat(str(GOLDEN / "llava"), ["what?", "why?"], max_new_tokens=4)
    assert ["".join(pieces) for pieces in turns] == ["a<image>"] * 2


def test_a_conversation_with_tools(monkeypatch, files):
    """A crop becomes an image of the conversation, and a loop of calls ends."""
    said = ["<tool crop>0, 0, 0.5, 0.5</tool> more", "<tool sum>1</tool>", "a corner", "again"]
    prompts = []

    def make_text_stream(loaded, settings):
        assert len(settings.processors) == 1

        def stream(batch, seed):
            prompts.append(written(loaded, batch))
            return iter([said.pop(0) if said else "<tool calculator>1 + 1</tool>"])

        return stream

    monkeypatch.setattr(chat, "make_text_stream", make_text_stream)
    monkeypatch.setattr(Llava, "window", 2000)
    turns = generate.chat(
        str(GOLDEN / "llava"), ["what?", "why?", "sum?"], files[:1], tools=TOOLS, max_new_tokens=4
    )
    first = "".join(next(turns))
    assert "[crop: <image>]" in first and "[sum: error: there is no tool 'sum'" in first
    assert first.endswith("a corner") and prompts[1].count("<image>") == 2 * 9
    assert "more" not in prompts[1] and "".join(next(turns)) == "again"
    assert "".join(next(turns)).count("[calculator: 2]") == chat.MOST_CALLS


@pytest.mark.parametrize("window", [75, 100])
def test_a_result_that_leaves_no_room_ends_no_conversation(monkeypatch, files, window):
    """In the larger window an error takes its place; in the smaller one the answer ends."""
    said = ["<tool add>?</tool>", "so <im<image>age> it"]

    monkeypatch.setattr(
        chat, "make_text_stream", lambda *_: lambda *_: iter([said.pop(0)] if said else [])
    )
    monkeypatch.setattr(Llava, "window", window)
    tools = {"add": lambda arguments, images: "long " * 99}
    turns = ["what?", "why?"]
    text, after = map("".join, generate.chat(str(GOLDEN / "llava"), turns, files[:1], tools=tools))
    assert f"[add: {chat.NO_ROOM}]" in text
    assert text.endswith("it") == (window == 100) and after.endswith("it") == (window == 75)


def test_a_turn_that_does_not_fit_is_left_out_and_the_conversation_goes_on(
    monkeypatch, files, capsys
):
    prompts = []

    def make_text_stream(loaded, settings):
        def stream(batch, seed):
            check_prompts(loaded.model, settings, batch)
            prompts.append(written(loaded, batch))
            return iter(["well"])

        return stream

    monkeypatch.setattr(chat, "make_text_stream", make_text_stream)
    folder = str(GOLDEN / "llava")
    turns = ["what?", "word " * 99, "an <image> more", "why?"]
    generate.converse(generate.chat(folder, turns, files[:1], max_new_tokens=2))
    shown = capsys.readouterr()
    assert shown.out.split() == ["well", "well"]
    first, second = shown.err.splitlines()
    assert first.startswith("error: A prompt of ") and first.endswith("; this turn is left out.")
    assert "its text has 2 <image> and it comes with 1 images; this turn is left" in second
    assert "word" not in prompts[-1] and prompts[-1].endswith("well</s>USER: why? ASSISTANT:")
    with pytest.raises(ValueError, match="No turn has an answer: see above"):
        generate.converse(generate.chat(folder, turns[1:2]))
    # What no other turn would change ends the command.
    for settings, images, message in (
        ({"temperature": -1.0}, [], "decode.temperature is -1.0"),
        ({"max_new_tokens": 99}, [], "exceed the model's window"),
        ({}, ["none.png"], "Cannot read the image 'none.png'"),
    ):
        with pytest.raises(ValueError, match=message):
            next(generate.chat(folder, turns, images, **settings))
    for tools, audio, message in (
        (["crop"], ["a.wav"], "--audio is for the tools"),
        (["speech"], [], "The tool 'speech' reads a recording"),
        (["speech"], ["none.wav"], "There is no recording 'none.wav'"),
    ):
        with pytest.raises(ValueError, match=message):
            generate.check_recordings(tools, audio)


def test_tools_hear_the_recordings_and_see_the_images(monkeypatch, files):
    said = ["<tool hear>now</tool>", "well"]
    monkeypatch.setattr(chat, "make_text_stream", lambda *_: lambda *_: iter([said.pop(0)]))
    monkeypatch.setattr(Llava, "window", 2000)
    tools = {"hear": lambda words, given: f"{words} {given.audio[-1]} {given.image()[1:4]}"}
    turns = generate.chat(
        str(GOLDEN / "llava"), ["what?"], files[:1], tools=tools, audio=["a.wav", "b.wav"]
    )
    assert "[hear: now b.wav b'PNG']" in "".join(next(turns))


def test_the_prompts_of_a_paligemma_and_of_a_llava(files):
    loaded = describe(GOLDEN / "paligemma")
    batch = conversation.make_batch(loaded, conversation.first_turn("a bus", 1), files[:1])
    assert written(loaded, batch) == "<image>" * 9 + "<bos>a bus\n"
    loaded = describe(GOLDEN / "llava")
    batch = conversation.make_batch(loaded, conversation.first_turn("a bus", 1), files[:1])
    assert written(loaded, batch).endswith("USER: " + "<image>" * 9 + "\n\na bus ASSISTANT:")
    for prompt, images, words in (
        ("<image><image>", files[:1], "its text has 2 <image> and it comes with 1 images"),
        ("", [], "turn 0, by the user, is empty"),
        ("a", ["none.png"], r"^Cannot read the image 'none.png': No such file or directory\.$"),
        ("a", [__file__], r"test_conversation.py': [\d,]+ bytes that start .*\)\.$"),
    ):
        with pytest.raises(ValueError, match=words):
            turn = conversation.first_turn(prompt, len(images))
            conversation.make_batch(loaded, turn, images)
    with pytest.raises(ValueError, match="holds a 'language_model': --chat takes a 'llava'"):
        next(generate.chat(str(GOLDEN / "llama"), ["a"]))
    with pytest.raises(ValueError, match="paligemma' has no chat template: ask it one --prompt"):
        next(generate.chat(str(GOLDEN / "paligemma"), ["a"], files[:1]))


def test_a_run_is_asked_in_the_template_of_its_training(monkeypatch, files):
    """Its tokenizer, of the corpus, has none of its own."""
    config = llava_emoji.get_config()
    config.evals = {}
    words = describe(GOLDEN / "llava").tokenizer
    words.chat_template = None
    stores = types.SimpleNamespace(close=lambda: None)
    saved = types.SimpleNamespace(
        config=config, checkpoints=stores, tokenizer=words, class_names=None
    )
    monkeypatch.setattr(pretrained, "open_checkpoint", lambda workdir: saved)
    loaded = pretrained._from_run(Path("run"), None, "float32", arrays=False, int8=False)
    batch = conversation.make_batch(loaded, conversation.first_turn("a bus", 1), files[:1])
    assert written(loaded, batch).endswith("USER: " + "<image>" * 9 + "\na bus ASSISTANT:")
    assert named_template(["decode", "ask | converse(9, 3, 1, 1, 4, 'chatml')"]).count("im_start")
    assert named_template(["decode | converse(9)", "converse(9, template='plain')"]) == ""
