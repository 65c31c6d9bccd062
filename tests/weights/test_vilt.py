"""ViLT beside transformers at several image sizes in one batch: tests/golden/make_vilt.py."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers_and_outputs, outputs
from safetensors.numpy import load_file, save_file

from mmjax.data.transforms.image_ops import pad_together
from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.variables import abstract_variables
from mmjax.weights import image_processor
from mmjax.weights.families import vilt
from mmjax.weights.published import Published

NAMES = ("vilt", "vilt_words", "vilt_vqa", "vilt_nlvr2", "vilt_retrieval", "vilt_tokens")
HEADS = {
    "vilt_words": "text_prediction",
    "vilt_vqa": "logits",
    "vilt_nlvr2": "logits",
    "vilt_retrieval": "match_logits",
    "vilt_tokens": "token_logits",
}


def inputs(want):
    names = ("text", "text_mask", "text_segment", "image", "image_size")
    return {name: want[name] for name in names if name in want}


def valid_tokens(tokens, mask):
    """Each row's tokens that are not masked, in order."""
    return [row[seen] for row, seen in zip(tokens, mask)]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vilt_nlvr2"])
def test_every_layer_of_images_of_several_sizes(name):
    """transformers packs the valid patches to the left; ours stay where they are in the array."""
    loaded, want = load(GOLDEN / name), expected(name)
    blocks, found = layers_and_outputs(loaded, inputs(want))
    length = want["text"].shape[1]
    mask = np.concatenate([want["text_mask"], found["image_tokens_mask"]], axis=1)
    counts = found["image_tokens_mask"].sum(1)
    patch = loaded.config["image"]["patch_size"]
    assert counts.tolist() == (1 + (-(-want["image_size"] // patch)).prod(1)).tolist()
    for ours, theirs in zip(blocks, want["layers"][1:], strict=True):
        packed = np.arange(theirs.shape[1] - length)[None] < counts[:, None]
        packed = np.concatenate([want["text_mask"], packed], axis=1)
        for a, b in zip(valid_tokens(ours, mask), valid_tokens(theirs, packed), strict=True):
            close(a, b)


def test_tokens_and_pooled_features_of_the_plain_model():
    loaded, want = load(GOLDEN / "vilt"), expected("vilt")
    assert loaded.config["image"]["max_patches"] == 30
    found = outputs(loaded, inputs(want))
    close(found["fused_features"], want["pooled"])
    close(found["text_tokens"], want["tokens"][:, :12])
    for row, seen, theirs in zip(
        found["image_tokens"], found["image_tokens_mask"], want["tokens"][:, 12:]
    ):
        close(row[seen], theirs[: seen.sum()])


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    loaded, want = load(GOLDEN / name), expected(name)
    seen = want["text_mask"] if name in ("vilt_words", "vilt_tokens") else slice(None)
    close(outputs(loaded, inputs(want))[HEADS[name]][seen], want["logits"][seen])
    named = name in ("vilt_vqa", "vilt_tokens")
    assert loaded.class_names == (("no", "yes", "2", "red", "a cat") if named else None)


def test_padding_has_no_effect():
    loaded, want = load(GOLDEN / "vilt_vqa"), expected("vilt_vqa")
    given = inputs(want)
    before = outputs(loaded, given)["logits"]
    rows, columns = np.mgrid[:40, :40]
    for i, (height, width) in enumerate(given["image_size"]):
        outside = (rows >= height) | (columns >= width)
        image = given["image"].copy()
        image[i, outside] = 255 - image[i, outside]
        np.testing.assert_array_equal(outputs(loaded, {**given, "image": image})["logits"], before)
    alone = {k: x[1:2] for k, x in given.items()}
    height, width = alone.pop("image_size")[0]
    alone["image"] = alone["image"][:, :height, :width]
    close(outputs(loaded, alone)["logits"], before[1:2])


def test_a_missing_image_or_text_is_masked():
    loaded, want = load(GOLDEN / "vilt_vqa"), expected("vilt_vqa")
    given = inputs(want)
    words = outputs(loaded, {k: given[k] for k in ("text", "text_mask")})["logits"]
    present = np.asarray([True, False, True, False])
    some = outputs(loaded, {**given, "image_present": present})["logits"]
    close(some, np.where(present[:, None], want["logits"], words))
    gone = {**given, "text_present": present}
    other = {**gone, "text": np.where(present[:, None], given["text"], given["text"][:, ::-1])}
    other["text"][:, 0] = given["text"][:, 0]
    close(outputs(loaded, gone)["logits"], outputs(loaded, other)["logits"])


@pytest.mark.parametrize("name", NAMES)
def test_saved_again_it_is_the_same_folder(tmp_path, name):
    loaded = load(GOLDEN / name)
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = (load_file(x / "model.safetensors") for x in (GOLDEN / name, tmp_path / "out"))
    assert theirs.keys() == ours.keys()
    for tensor, array in theirs.items():
        np.testing.assert_array_equal(ours[tensor], array)
    for file in ("config.json", "preprocessor_config.json"):
        before, after = (
            json.loads((x / file).read_text()) for x in (GOLDEN / name, tmp_path / "out")
        )
        for setting in before.keys() & after.keys() - {"pad_token_id", "label2id"}:
            assert after[setting] == before[setting], setting
        needed = {"architectures", "num_images", "max_image_length", "size_divisor", "do_pad"}
        assert needed & before.keys() <= after.keys()
    back = load(tmp_path / "out")
    assert back.config == loaded.config and back.transform == loaded.transform
    assert back.class_names == loaded.class_names
    rows = [x.tokenizer.encode(["A red bus", "tea"], 10)[0].tolist() for x in (loaded, back)]
    assert rows[0] == rows[1] and rows[0][0][0] == 2


def test_images_are_those_of_the_image_processor():
    loaded, want = load(GOLDEN / "vilt"), expected("vilt")
    assert loaded.transform == "decode | resize_between(24, 39, 8, 'bicubic')"
    raw = [x for name, x in sorted(want.items()) if name.startswith("raw_")]
    order = sorted(range(4), key=lambda i: f"raw_{('31x57', '90x33', '24x24', '20x71')[i]}")
    batch = pad_together([loaded.image(x) for x in raw])
    assert batch["image_size"].tolist() == [[8, 32], [24, 24], [16, 32], [32, 8]]
    rows, columns = (np.arange(32)[None] < batch["image_size"][:, i, None] for i in (0, 1))
    mask = rows[:, :, None] & columns[:, None]
    np.testing.assert_array_equal(mask, want["pixel_mask"][order])
    values = (batch["image"] / 127.5 - 1) * mask[..., None]
    np.testing.assert_allclose(values.transpose(0, 3, 1, 2), want["pixel_values"][order], atol=1e-5)


def test_names_of_older_files(tmp_path):
    """transformers 4: the bias of the word head, the tied table again, and position ids."""
    folder = shutil.copytree(GOLDEN / "vilt_words", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["mlm_score.bias"] = tensors.pop("mlm_score.decoder.bias")
    embeddings = "vilt.embeddings.text_embeddings"
    tensors["mlm_score.decoder.weight"] = tensors[f"{embeddings}.word_embeddings.weight"].copy()
    tensors[f"{embeddings}.position_ids"] = np.arange(14)[None]
    save_file(tensors, folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text(
        '{"feature_extractor_type": "ViltFeatureExtractor", "size": 24, "size_divisor": 8}'
    )
    loaded, want = load(folder), load(GOLDEN / "vilt_words")
    assert loaded.transform == want.transform and loaded.config == want.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, want.params)


COUNTS = {  # ../shared/countables.toml; transformers 5.23
    "whole": 111_595_008,
    "transformer/stem/norm": 87_416_064,
}


def test_sizes_are_the_published_ones(tmp_path):
    found = count({"pooler.dense.weight": (768, 768)}, tmp_path)
    assert sum(found.values()) == COUNTS["whole"]
    part = found["transformer"] + found["stem"] + found["norm"]
    assert part == COUNTS["transformer/stem/norm"]


def count(heads, tmp_path):
    """Parameters by part of the model that an empty config.json describes."""
    tensors = types.SimpleNamespace(name="none", shapes=heads)
    found = Published(tmp_path, {"model_type": "vilt"}, {}, tensors)
    found, _ = image_processor.complete(found, vilt.image_source(found))
    system = make_system({"model": vilt.model_config(found)})
    params = abstract_variables(system.model, system.spec)["params"]
    return {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in params.items()}


def test_without_a_file_images_are_resized_to_whole_patches(tmp_path):
    folder = shutil.copytree(GOLDEN / "vilt_vqa", tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    loaded = load(folder)
    assert loaded.transform == load(GOLDEN / "vilt_vqa").transform


def copied(tmp_path, name, file="config.json", **settings):
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    changed = json.loads((folder / file).read_text()) | settings
    (folder / file).write_text(json.dumps(changed))
    return folder


def test_what_cannot_be_loaded_or_saved_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="has num_channels 1; models with another value than 3"):
        load(copied(tmp_path / "a", "vilt", num_channels=1))
    with pytest.raises(ValueError, match="has max_image_length '9': it must be a whole number"):
        load(copied(tmp_path / "c", "vilt", max_image_length="9"))
    with pytest.raises(ValueError, match=r"size {'height': 8} and size_divisor 8; 'shortest_edge'"):
        load(copied(tmp_path / "b", "vilt", "preprocessor_config.json", size={"height": 8}))
    loaded = load(GOLDEN / "vilt")
    for change, words in (
        ({"transform": "decode | resize(24)"}, "not resized by resize_between alone, as a Vilt"),
        ({"transform": "decode | resize_between(24, 40, 8)"}, "up to 40 pixels, and with 24 .* 39"),
    ):
        with pytest.raises(ValueError, match=words):
            save_pretrained(dataclasses.replace(loaded, **change), tmp_path / "out")
    for fields, words in (
        ({"matching": 2}, r"no matching 2 \(not 1\)"),
        ({"words": True, "num_classes": 2}, "no heads of several kinds True"),
        ({"pooler": False}, r"no pooler False \(not True\)"),
    ):
        model = loaded.model.clone(**fields)
        with pytest.raises(ValueError, match=words):
            save_pretrained(dataclasses.replace(loaded, model=model), tmp_path / "other")
    with pytest.raises(ValueError, match="no image_size"):
        image = {**loaded.config["image"], "image_size": (24, 16)}
        model = loaded.model.clone(image=image)
        save_pretrained(dataclasses.replace(loaded, model=model), tmp_path / "another")
