"""SigLIP's published weights beside the original implementation: tests/golden/make_siglip.py."""

import json
import shutil

import numpy as np
import pytest
from parity import GOLDEN, close, fixture, layers_and_outputs, outputs

from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.pretrained import load
from mmjax.weights.families import siglip

golden = fixture("siglip", "siglip2")


@pytest.mark.parametrize("image", ["image", "wide", "small"])  # as trained; 3x7 and 2x2 patches
def test_image_tower_layer_by_layer(golden, image):
    loaded, want = golden
    batch = {"image": want[image]}
    blocks, found = layers_and_outputs(loaded, batch, "image")
    close(blocks, want[f"{image}_layers"][1:])
    close(found["image_embed"], want[f"{image}_embed"])


def test_text_tower_layer_by_layer_with_padding(golden):
    loaded, want = golden
    batch = {"text": want["text"], "text_mask": want["text_mask"]}
    blocks, found = layers_and_outputs(loaded, batch, "text")
    close(blocks, want["text_layers"][1:])
    close(found["text_embed"], want["text_embed"])


def test_logits_with_a_temperature_above_clips_limit(golden):
    loaded, want = golden
    found = outputs(loaded, {k: want[k] for k in ("image", "text", "text_mask")})
    logits = found["logit_scale"] * found["image_embed"] @ found["text_embed"].T
    close(logits + found["logit_bias"], want["image_logits"])
    assert found["logit_scale"] > 100


def test_rows_of_tokens_end_with_padding_and_have_no_begin_token(golden):
    words = golden[0].tokenizer
    text, mask = words.encode(["a red bus", "a cup of tea"], golden[0].text_length)
    ends = mask.sum(1) - 1
    assert (text[[0, 1], ends] == words.eos_id).all() and (text[:, -1] == words.pad_id).all()
    assert words.bos_id is None
    upper, _ = words.encode(["A RED Bus", "a cup of tea"], golden[0].text_length)
    is_gemma = words.pad_id != words.eos_id  # it alone folds case, as nothing in its files says
    assert (upper == text).all() == is_gemma


def test_files_that_cannot_be_used_are_named(tmp_path):
    def copy(name, **changed):
        folder = tmp_path / name
        shutil.copytree(GOLDEN / "siglip", folder)
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"] |= changed.pop("vision_config", {})
        (folder / "config.json").write_text(json.dumps(config | changed))
        return folder

    with pytest.raises(ValueError, match="vision_use_head false.*pooling head"):
        load(copy("headless", vision_config={"vision_use_head": False}))
    with pytest.raises(ValueError, match=r"position_embedding.weight.*\[16, 40\].*from different"):
        load(copy("size", vision_config={"image_size": 40}))
    folder = copy("sentencepiece")
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    with pytest.raises(ValueError, match="spiece.model' is damaged or no sentencepiece model"):
        load(folder)


def test_sentencepiece_alone_gives_the_ids_of_transformers(tmp_path):
    """Recorded by tests/golden/make_spiece.py."""
    want = json.loads((GOLDEN / "spiece" / "expected.json").read_text())
    words = siglip.from_sentencepiece(GOLDEN / "spiece" / "spiece.model")
    ids, _ = words.encode(want["texts"], len(want["ids"][0]))
    assert ids.tolist() == want["ids"]
    assert words.decode(ids[0]) == want["texts"][0]
    words.save(tmp_path)
    assert (load_tokenizer(tmp_path).encode(want["texts"], 16)[0] == ids).all()


@pytest.mark.parametrize("keep", [0, 100, 5_000, 240_000, 246_990])
def test_a_truncated_vocabulary_is_named(tmp_path, keep):
    whole = (GOLDEN / "spiece" / "spiece.model").read_bytes()
    (tmp_path / "spiece.model").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match="damaged or no sentencepiece model|has no token '</s>'"):
        siglip.from_sentencepiece(tmp_path / "spiece.model")


def test_a_vocabulary_of_another_kind_is_named(tmp_path):
    whole = (GOLDEN / "spiece" / "spiece.model").read_bytes()
    trainer = b"\x12\x02\x18\x02"  # trainer_spec { model_type: BPE }, which wins as it comes last
    (tmp_path / "tokenizer.model").write_bytes(whole + trainer)
    with pytest.raises(ValueError, match="no unigram model.*tokenizer.json"):
        siglip.from_sentencepiece(tmp_path / "tokenizer.model")


def test_half_precision_is_read_exactly():
    from safetensors.numpy import load_file

    stored = load_file(GOLDEN / "siglip2" / "model.safetensors")
    assert {x.dtype for x in stored.values()} == {np.dtype(np.float16)}
    table = load(GOLDEN / "siglip2").params["text"]["embedding"]
    wanted = stored["text_model.embeddings.token_embedding.weight"].astype(np.float32)
    np.testing.assert_array_equal(table, wanted)
