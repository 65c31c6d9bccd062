"""open_clip's own layout beside open_clip: tests/golden/make_open_clip.py."""

import json
import shutil

import numpy as np
import pytest
from parity import GOLDEN, close, expected, fixture, layers, layers_and_outputs, outputs
from safetensors.numpy import load_file

from mmjax.data.transforms import parse as transforms
from mmjax.decode.generate import make_generate
from mmjax.decode.settings import Settings
from mmjax.pretrained import load
from mmjax.weights.families import open_clip
from mmjax.weights.published import Published

NAMES = ("open_clip", "open_clip_custom")

golden = fixture(*NAMES)


def test_both_towers_layer_by_layer(golden):
    loaded, want = golden
    close(layers(loaded, {"image": want["image"]}, "image"), want["image_layers"])
    text = {name: want[name] for name in ("text", "text_mask")}
    close(layers(loaded, text, "text"), want["text_layers"])


def test_embeddings_and_scale(golden):
    loaded, want = golden
    found = outputs(loaded, {name: want[name] for name in ("image", "text", "text_mask")})
    for name in ("image_embed", "text_embed", "logit_scale"):
        close(found[name], want[name])
    if loaded.config["logit_bias_init"] is not None:
        assert np.isfinite(found["logit_bias"]) and found["logit_bias"] != 0


def test_texts_are_padded_with_0(golden):
    text, mask = golden[0].tokenizer.encode(["a red bus"], 10)
    assert text[0, 0] == 1 and text[0, mask.sum() - 1] == 2 and not text[~mask].any()


def test_how_images_are_brought_to_size():
    squashed, cut = (load(GOLDEN / name).transform for name in NAMES)
    assert squashed == "decode | resize((24, 16), 'bicubic')"
    assert cut == "decode | resize_short(24, 'bicubic') | center_crop((24, 24), 'even')"


@pytest.mark.parametrize(("mode", "size"), [("shortest", 32), ("squash", [24, 16])])
def test_pixels_are_those_of_its_image_transform(mode, size):
    settings = {"size": size, "resize_mode": mode, "interpolation": "bicubic"}
    found = Published(GOLDEN, {"vision_cfg": {}}, settings, None)
    prepare = transforms.parse(open_clip.transform(found))
    want = load_file(GOLDEN / "preprocessing" / "open_clip.safetensors")
    files = [key.removeprefix(f"{mode}/") for key in want if key.startswith(mode)]
    assert len(files) == 4
    for file in files:
        example = {"image": (GOLDEN / "preprocessing" / file).read_bytes()}
        ours = prepare(example, np.random.default_rng(0))["image"]
        np.testing.assert_array_equal(ours, want[f"{mode}/{file}"], file)


@pytest.fixture(scope="module")
def coca():
    return load(GOLDEN / "open_clip_coca"), expected("open_clip_coca")


def test_coca_layer_by_layer_and_what_it_gives(coca):
    loaded, want = coca
    found, given = layers_and_outputs(loaded, {"image": want["image"]}, "image")
    close(found, want["image_layers"])
    close(given["image_embed"], want["image_embed"])
    batch = {name: want[name] for name in ("image", "text", "text_mask")}
    given = outputs(loaded, batch)
    close(given["text_embed"], want["text_embed"])
    seen = want["text_mask"]  # open_clip lets padding look at padding
    close(given["text_logits"][seen], want["text_logits"][seen])
    unimodal = layers(loaded, {name: want[name] for name in ("text", "text_mask")}, "unimodal")
    close(unimodal[:, :, :-1], want["text_layers"])  # there without the class token


def test_coca_writes_as_its_logits_say(coca):
    """With a cache, and from the start of a text: what the golden logits make most probable."""
    loaded, want = coca
    settings = Settings(4, end_ids=(), pad_id=0)
    prompts = {"image": want["image"], "text": want["text"][:, :3]}
    prompts["text_mask"] = np.ones((3, 3), bool)
    written = np.asarray(make_generate(loaded.model, settings)(loaded.variables, prompts).tokens)[
        :, 0
    ]
    row = np.concatenate([want["text"][:, :3], written], axis=1)
    logits = outputs(loaded, {"image": want["image"], "text": row})["text_logits"]
    np.testing.assert_array_equal(logits[:, 2:-1].argmax(-1), written)


@pytest.mark.parametrize(
    ("part", "settings", "words"),
    [
        (
            "vision_cfg",
            {"layers": [1, 1, 1, 1], "image_size": 32},
            "Missing tensors: .*visual.attnpool",
        ),
        ("vision_cfg", {"timm_model_name": "convnext_base"}, "timm_model_name 'convnext_base'"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "text_cfg.hf_model_name 'roberta-base'"),
        ("text_cfg", {"pool_type": "first"}, "pool_type 'first'.*'argmax', 'eos', 'last'"),
        ("text_cfg", {"width": "16"}, "text_cfg' has width '16', where a value like 512 is needed"),
        ("vision_cfg", {"patch_size": 0}, "vision_cfg' has patch_size 0, where a value like 16"),
        ("vision_cfg", {"head_width": 4096}, "vision_cfg.head_width 4096, of a width of"),
        ("vision_cfg", {"norm_kwargs": 5}, "has norm_kwargs 5, where a value like {} is needed"),
        ("text_cfg", {"layers": 4}, "Missing tensors: transformer.resblocks.3"),
        ("text_cfg", {"vocab_size": 280}, r"the shape \[300, 16\].*has \[280, 16\]"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path, part, settings, words):
    folder = shutil.copytree(GOLDEN / "open_clip", tmp_path / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"][part] |= settings
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words) as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_cfg": 5}, "has vision_cfg 5, which must be an object"),
        ({"text_cfg": None}, r"\['text_cfg'\] missing in model_cfg"),
        ({"embed_dim": "16"}, "model_cfg' has embed_dim '16'"),
    ],
)
def test_sections_of_another_type_are_refused_in_a_sentence(tmp_path, changes, words):
    folder = shutil.copytree(GOLDEN / "open_clip", tmp_path / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"] |= changes
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load(folder)
