"""LLaVA beside the original: tests/golden/make_llava.py."""

import json
import shutil

import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs, towers_and_outputs
from safetensors.numpy import save_file

from mmjax.decode.generate import make_generate
from mmjax.decode.settings import Settings
from mmjax.pretrained import describe, load, save_pretrained
from mmjax.weights.families import llava
from mmjax.weights.tensor_file import Safetensors

NAMES = ("llava", "llava_siglip")
USED = {"llava": 2, "llava_siglip": 1}  # blocks of the image tower, of three


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return request.param, load(GOLDEN / request.param), expected(request.param)


def rows(image):
    """The images of three rows: two, one and none."""
    none = np.zeros_like(image[0])
    images = np.stack([image[:2], [image[2], none], [none, none]])
    return {"image": images, "image_mask": np.array([[1, 1], [1, 0], [0, 0]], bool)}


def test_every_layer_and_the_logits_of_rows_with_two_one_and_no_images(golden):
    name, loaded, want = golden
    images = rows(np.stack([loaded.image(x) for x in want["image"]]))
    batch = {**images, "text": want["text"], "text_mask": want["text_mask"]}
    seen = want["text_mask"]
    (tower, text), given = towers_and_outputs(loaded, batch, ("image",), ("text",))
    used = tower[:, :3]  # the others are absent
    assert len(used) == USED[name]
    close(used, want["image_layers"][1 : len(used) + 1])
    close(text[:-1, seen], want["text_layers"][1:-1, seen])  # the last one is after the norm
    close(given["text_logits"][seen][:, ::3], want["text_logits"][seen])
    alone = outputs(loaded, {"image": want["image"]})["image_tokens"]
    close(alone.reshape(-1, 24), want["image_tokens"].reshape(-1, 24))


def test_what_it_writes_with_a_cache(golden):
    _, loaded, want = golden
    written, start = want["written"], 22
    settings = Settings(written.shape[1] - start, end_ids=(), pad_id=0)
    prompts = {"text": written[:, :start], "text_mask": np.ones((1, start), bool)}
    prompts["image"] = want["image"][None, :2]
    found = make_generate(loaded.model, settings)(loaded.variables, prompts)
    np.testing.assert_array_equal(np.asarray(found.tokens)[0, 0], written[0, start:])


def renamed(folder, name, rename):
    """A golden folder whose tensors have other names."""
    shutil.copytree(GOLDEN / name, folder)
    given = Safetensors(folder)
    tensors = {rename(k): given.read(k) for k in given.shapes}
    save_file(tensors, folder / "model.safetensors")
    return folder


def of_hub(name):
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def of_transformers_5(name):
    name = name.replace("language_model.model.", "language_model.")
    name = f"model.{name}".replace("model.language_model.lm_head", "lm_head")
    return name.replace("vision_tower.", "vision_tower.vision_model.")


@pytest.mark.parametrize("rename", [of_hub, of_transformers_5])
def test_all_names_of_the_same_tensors(golden, rename, tmp_path):
    name, loaded, _ = golden
    shapes = Safetensors(renamed(tmp_path / "x", name, rename)).shapes
    ours = {llava.canonical(k): v for k, v in shapes.items()}
    theirs = {llava.canonical(k): v for k, v in Safetensors(GOLDEN / name).shapes.items()}
    assert ours == theirs
    if name == "llava":
        again = load(tmp_path / "x")
        assert again.config == loaded.config
        np.testing.assert_array_equal(
            again.params["projector"]["out"]["kernel"], loaded.params["projector"]["out"]["kernel"]
        )


def test_saved_and_loaded_again(golden, tmp_path):
    name, loaded, _ = golden
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "out")
    assert ours.shapes == {of_hub(k): v for k, v in theirs.shapes.items()}
    for tensor in theirs.shapes:
        np.testing.assert_array_equal(ours.read(of_hub(tensor)), theirs.read(tensor))
    before, after = (
        json.loads((x / "config.json").read_text()) for x in (GOLDEN / name, tmp_path / "out")
    )
    for setting in llava.SETTINGS.keys() | {"architectures", "tie_word_embeddings"}:
        assert after[setting] == before[setting], setting
    processor = json.loads((tmp_path / "out" / "processor_config.json").read_text())
    assert processor["num_additional_image_tokens"] == (name == "llava")
    again = describe(tmp_path / "out")
    assert again.config == loaded.config and again.transform == loaded.transform


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_feature_layer": [-2, -1]}, r"has vision_feature_layer \[-2, -1\]; only models"),
        ({"vision_feature_layer": -4}, "feature_layer of a ViT of 3 blocks is -4: give 1 to 3"),
        ({"image_token_index": 300}, "image_token is 300 and the vocabulary has 284"),
        ({"vision_config": {"model_type": "dinov2"}}, "an image tower of type 'dinov2'"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "vision_use_head True"),
        (
            {"text_config": {"model_type": "gemma"}},
            "a decoder of type 'gemma'; llama, ",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(changes, words, tmp_path):
    folder = shutil.copytree(GOLDEN / "llava", tmp_path / "x")
    settings = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        both = isinstance(value, dict)
        settings[key] = {**settings[key], **value} if both else value
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=words) as error:
        describe(folder)
    assert "\n" not in str(error.value)
