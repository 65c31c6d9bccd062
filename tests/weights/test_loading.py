"""Loading: onto a mesh, in bfloat16, and what is refused."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs
from safetensors.numpy import load_file, save_file

import mmjax
from mmjax import sharding
from mmjax.embedder import open_embedder
from mmjax.generate import open_model
from mmjax.run.tokenizer import make_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A copy of a golden folder to damage."""
    return shutil.copytree(GOLDEN / "clip", tmp_path / "model")


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_sharded_while_it_is_read():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    loaded = mmjax.load(GOLDEN / "clip", mesh=mesh)
    kernel = loaded.params["image"]["transformer"]["layers"]["mlp"]["up"]["kernel"]
    assert kernel.sharding == sharding.named(mesh, "layers", "embed", "mlp")
    assert kernel.addressable_shards[0].data.shape == (2, 20, 24)
    want = expected("clip")
    with jax.set_mesh(mesh):
        found = outputs(loaded, {"image": want["image"]})
    close(found["image_embed"], want["image_embed"])


def test_bfloat16_on_request():
    loaded = mmjax.load(GOLDEN / "clip", dtype="bfloat16")
    layers = loaded.params["text"]["transformer"]["layers"]
    assert layers["mlp"]["up"]["kernel"].dtype == "bfloat16"
    assert layers["mlp"]["up"]["bias"].dtype == "float32"
    want = expected("clip")
    found = outputs(loaded, {"text": want["text"], "text_mask": want["text_mask"]})["text_embed"]
    assert found.dtype == np.float32
    close(found, want["text_embed"], 0.03)  # bfloat16 has 8 bits
    with pytest.raises(ValueError, match="float16.*float32, bfloat16"):
        mmjax.load(GOLDEN / "clip", dtype="float16")


def test_report_names_every_tensor(folder):
    ids = "text_model.embeddings.position_ids"
    change(folder, lambda tensors: tensors.update({ids: np.arange(12)}))
    report = mmjax.load(folder).report
    for name in load_file(folder / "model.safetensors"):
        row = re.sub(r"layers\.\d", "layers.{i}", name)
        assert any(row in line for line in report.splitlines()), name
    assert f"unused  {ids}" in report
    assert "1 unused" in report.splitlines()[0]


def test_picture_as_the_model_reads_it():
    picture = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    prepared = mmjax.load(GOLDEN / "clip").image(picture)
    assert prepared.shape == (24, 24, 3) and prepared.dtype == np.uint8


def drop(name):
    return lambda folder: change(folder, lambda tensors: tensors.pop(name))


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def mislabelled(folder):
    (folder / "model.safetensors").write_bytes(b"\x80\x02}q\x00." * 9)


def edited(**changes):
    def edit(folder):
        config = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            section, _, last = key.rpartition("__")
            (config[section] if section else config)[last] = value
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def more_tokens(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["more"] = 99
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop("text_projection.weight"), "Missing tensors: text_projection.weight. Unused"),
        (truncate, "truncated or not a safetensors file"),
        (pickled, "'pytorch_model.bin' is a pickle, which can run any code and is never loaded"),
        (mislabelled, "is a pickle under another name"),
        (edited(model_type="clop"), "type 'clop'.*families can be loaded: .*clip.*'clip'?"),
        (edited(text_config__hidden_act="tanhh"), "text_config.hidden_act is 'tanhh'"),
        (edited(text_config__intermediate_size=40), r"the shape \[2, 32, 48\].*has \[2, 32, 40\]"),
        (edited(vision_config__num_hidden_layers=3), r"Missing tensors: vision_model.*layers\.2"),
        (more_tokens, "tokenizer in .* has 100 tokens and the model's vocabulary 99"),
        (lambda folder: (folder / "config.json").unlink(), "is not a model: .*config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json' is damaged"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON dict"),
        (lambda folder: (folder / "config.json").write_text("{}"), "a model of type None; these"),
        (edited(model_type=None), "describes a model of type None; these families can be loaded"),
        (edited(model_type=3), "describes a model of type 3; these"),
        (edited(model_type=["clip"]), r"describes a model of type \['clip'\]; these"),
        (edited(text_config=5), "config.json' has text_config 5, which must be an object"),
        (edited(vision_config=[]), r"config.json' has vision_config \[\], which must be an object"),
        (edited(projection_dim="16"), "has projection_dim '16', where a value like 512 is needed"),
        (edited(text_config__hidden_size="32"), "text_config' has hidden_size '32', where a value"),
        (edited(text_config__layer_norm_eps="x"), "has layer_norm_eps 'x', where a value like 1e"),
        (edited(vision_config__hidden_act=[1]), r"has hidden_act \[1\], where a value like"),
        (edited(vision_config__image_size=[24]), r"has image_size \[24\], where a value like 224"),
        (edited(vision_config__patch_size=[8, 4]), r"has patch_size \[8, 4\]; only .*square"),
        (lambda folder: shutil.rmtree(folder), "There is no folder"),
    ],
)
def test_what_is_refused(folder, damage, words):
    damage(folder)
    with pytest.raises(ValueError, match=words) as error:
        mmjax.load(folder)
    assert "\n" not in str(error.value)


def test_every_use_of_a_missing_tokenizer_names_its_files(folder):
    words = "put tokenizer.json, or vocab.json and merges.txt there"
    (folder / "tokenizer.json").unlink()
    loaded = mmjax.load(folder)
    assert words in loaded.report.splitlines()[-1]
    gpt2 = shutil.copytree(GOLDEN / "gpt2", folder.parent / "gpt2")
    (gpt2 / "tokenizer.json").unlink()
    for use in (
        lambda: open_embedder(folder),
        lambda: make_tokenizer({"kind": "pretrained", "path": str(folder)}),
        lambda: open_model(gpt2),
    ):
        with pytest.raises(ValueError, match=words):
            use()


def test_what_is_missing_keeps_its_initial_value_where_that_is_asked_for(folder):
    whole = mmjax.load(folder)

    def edit(tensors):
        del tensors["text_projection.weight"]
        tensors["head.weight"] = np.zeros((3, 4), np.float32)

    change(folder, edit)
    found = mmjax.load(folder, strict=False)
    assert "1 missing, 1 unused" in found.report.splitlines()[0]
    assert "missing text_projection.weight: initial text_proj/kernel" in found.report
    assert "unused  head.weight" in found.report
    assert found.params["text_proj"]["kernel"].std() > 0
    for name in ("image", "text"):
        jax.tree.map(np.testing.assert_array_equal, found.params[name], whole.params[name])


RENAMED = json.loads((GOLDEN / "transformers5" / "names.json").read_text())


@pytest.mark.parametrize("name", RENAMED)
def test_names_that_transformers_5_gives_to_tensors(tmp_path, name):
    """As saved by transformers 5.23 with save_original_format=False: make_transformers5.py."""
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    before = load_file(folder / "model.safetensors")
    after = {
        new: before[old][start : start + rows] if rows else before[old]
        for new, (old, start, rows) in RENAMED[name].items()
    }
    save_file({k: np.ascontiguousarray(x) for k, x in after.items()}, folder / "model.safetensors")
    found, whole = mmjax.load(folder), mmjax.load(GOLDEN / name)
    assert found.config == whole.config
    jax.tree.map(np.testing.assert_array_equal, found.params, whole.params)


def test_left_over_tensors_are_named_with_the_nearest(folder):
    def rename(tensors):
        tensors["text_projection.weigth"] = tensors.pop("text_projection.weight")

    change(folder, rename)
    with pytest.raises(ValueError, match="'text_projection.weigth' is similar to"):
        mmjax.load(folder)
