"""ViViT and VideoMAE beside the original code: tests/golden/make_video_vit.py; loading, saving."""

import dataclasses
import json
import shutil

import drawn
import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, fixture, layers_and_outputs, outputs

from mmjax.losses.tube_masks import tube_masks
from mmjax.models.masked_video import MaskedVideo
from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.system import average
from mmjax.weights.tensor_file import Safetensors

PRETRAINING = ("videomae_encoder", "videomae_pixels")
NAMES = ("vivit", "vivit_features", "videomae", "videomae_first", *PRETRAINING)
golden = fixture(*NAMES)


def prepared(loaded, raw):
    """The frames [B, T, h, w, 3] uint8 of videos."""
    return np.stack([[loaded.image(frame) for frame in video] for video in raw])


def test_the_frames_are_prepared_as_by_the_original(golden):
    loaded, want = golden
    video = prepared(loaded, want["raw"]).astype(np.float32) / 255
    mean, std = (
        np.asarray(x, np.float32) for x in (loaded.model.image_mean, loaded.model.image_std)
    )
    pixels = np.moveaxis((video - mean) / std, -1, 2)
    np.testing.assert_allclose(pixels, want["pixels"], atol=1e-5)


def test_layer_by_layer_and_at_the_end(golden):
    loaded, want = golden
    video = prepared(loaded, want["raw"])
    blocks, found = layers_and_outputs(loaded, {"video": video})
    close(blocks, want["layers"][1:])
    if "logits" in want:
        close(found["logits"], want["logits"])
    elif loaded.model.pool == "mean" or loaded.model.pre_logits:
        close(found["video_features"], want["features"])


@pytest.mark.parametrize("name", PRETRAINING)
def test_masked_tubelets_and_their_loss_are_those_of_the_original(name):
    loaded, want = load(GOLDEN / name), expected(name)
    normalize = name == "videomae_encoder"
    loss = {"mask_ratio": 0.5, "normalize": normalize}
    system = make_system({"model": loaded.config, "loss": loss, "batch_size": 0})
    masked = want["masked"]
    batch = {"video": prepared(loaded, want["raw"])}
    batch["video_visible"] = np.stack([np.flatnonzero(~row) for row in masked]).astype(np.int32)
    found = outputs(loaded, batch)
    for row, gone, theirs in zip(found["video_pixels"], masked, want["reconstruction"]):
        close(row[gone], theirs)
    terms = system.loss(found, {**batch, "video_masked": masked}, None)
    np.testing.assert_allclose(average(terms["masked_video"])[0], want["loss"][0], rtol=1e-5)
    # Invalid frames are neither attended to nor predicted.
    frames = np.arange(4) < 2
    some = {**batch, "video_mask": np.stack([frames, frames])}
    other = {**some, "video": np.where(frames[:, None, None, None], batch["video"], 7)}
    seen = np.repeat(frames[:: loaded.model.tubelet[0]], np.prod(loaded.model.grid[1:]))
    a, b = (outputs(loaded, x)["video_pixels"] for x in (some, other))
    np.testing.assert_allclose(a[:, seen], b[:, seen], atol=1e-6)
    a, b = (
        average(
            system.loss({"video_pixels": p}, {**x, "video_masked": masked}, None)["masked_video"]
        )
        for p, x in ((a, some), (b, other))
    )
    np.testing.assert_allclose(a[0], b[0], rtol=1e-6)


def test_a_tube_is_masked_at_all_times():
    grid, keys = (3, 2, 5), jax.random.split(jax.random.key(0), 400)
    visible, masked = jax.jit(lambda k: tube_masks(k, grid, 7))(keys)
    visible, masked = np.asarray(visible), np.asarray(masked)
    assert visible.shape == (400, 9) and masked.shape == (400, 30)
    for row, gone in zip(visible, masked):
        np.testing.assert_array_equal(row, np.flatnonzero(~gone))
    tubes = masked.reshape(400, 3, 10)
    assert (tubes == tubes[:, :1]).all() and (tubes.sum(-1) == 7).all()
    assert np.abs(tubes[:, 0].mean(0) - 0.7).max() < 0.1  # every place as often as another
    again = tube_masks(keys[5:6], grid, 7)[1]
    np.testing.assert_array_equal(again[0], masked[5])  # of its own key alone
    for ratio in (0.05, 1.0):
        with pytest.raises(ValueError, match="of the 10 places of a frame"):
            MaskedVideo(mask_ratio=ratio).masked(grid)


@pytest.mark.parametrize("name", NAMES)
def test_saved_tensor_by_tensor(name, tmp_path):
    before = load(GOLDEN / name)
    save_pretrained(before, tmp_path / "saved")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "saved")
    assert theirs.shapes == ours.shapes
    for tensor in theirs.shapes:
        wide = theirs.read(tensor).astype(np.float32)
        np.testing.assert_array_equal(ours.read(tensor), wide)
    after = load(tmp_path / "saved")
    assert after.transform == before.transform
    means = [x.pop(k) for x in (after.config, before.config) for k in ("image_mean", "image_std")]
    np.testing.assert_allclose(means[:2], means[2:], rtol=1e-6)
    assert after.config == before.config


def test_files_that_cannot_be_used_are_named(tmp_path):
    folder = shutil.copytree(GOLDEN / "vivit", tmp_path / "vivit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tubelet_size": [2, 8]}))
    with pytest.raises(ValueError, match="tubelet_size .2, 8.: three numbers are needed"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_frames": 7}))
    with pytest.raises(ValueError, match="7 frames of 24x16 pixels is not a multiple"):
        load(folder)


SMALL = {"name": "video_vit", "frames": 4, "image_size": (8, 8), "tubelet": (2, 4, 4)}
SMALL |= {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 24}


def test_what_no_published_model_has_is_refused(tmp_path):
    base = load(GOLDEN / "vivit")
    model = make_system({"model": SMALL | {"temporal_depth": 1}, "loss": {}, "batch_size": 0}).model
    with pytest.raises(ValueError, match="no temporal_depth 1"):
        save_pretrained(dataclasses.replace(base, model=model), tmp_path / "x")


def count(**fields):
    """The number of parameters of a model of these settings."""
    system = make_system({"model": {"name": "video_vit", **fields}, "loss": {}, "batch_size": 0})
    batch = {k: np.zeros(s.shape, s.dtype) for k, s in system.spec.items()}
    shapes = jax.eval_shape(lambda: system.model.init(jax.random.key(0), batch))
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))


def test_published_sizes():
    """VivitForVideoClassification and VideoMAEForVideoClassification of 400 classes."""
    assert count(num_classes=400) == 88_954_000
    videomae = {"frames": 16, "position": "sinusoids", "pool": "mean", "final_norm": "features"}
    assert count(num_classes=400, key_bias=False, **videomae) == 86_534_800
    pretraining = {**videomae, "final_norm": "none", "decoder": {}}  # VideoMAEForPreTraining
    assert count(key_bias=False, **pretraining) == 94_209_408
    released = {**pretraining, "final_norm": "tokens"}  # use_mean_pooling=False
    assert count(key_bias=False, **released) == 94_209_408 + 2 * 768


def slow(params, x, heads):
    """A block of the transformer on tokens [N, D], with full attention."""

    def norm(x, p):
        centered = x - x.mean(-1, keepdims=True)
        return centered / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    y = norm(x, params["norm_attention"])
    maps = params["attention"]
    q, k, v = np.moveaxis(
        np.einsum("nd,dchw->nchw", y, maps["qkv"]["kernel"]) + maps["qkv"]["bias"], 1, 0
    )
    out = np.zeros((len(x), *q.shape[1:]))
    for h in range(heads):
        scores = q[:, h] @ k[:, h].T / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, h] = weights / weights.sum(-1, keepdims=True) @ v[:, h]
    x = x + np.einsum("nhw,hwd->nd", out, maps["out"]["kernel"]) + maps["out"]["bias"]
    y = norm(x, params["norm_mlp"]) @ params["mlp"]["up"]["kernel"] + params["mlp"]["up"]["bias"]
    y = np.asarray(jax.nn.gelu(y, approximate=False), np.float64)
    return x + y @ params["mlp"]["down"]["kernel"] + params["mlp"]["down"]["bias"], norm


def test_a_factorized_encoder_is_two_transformers():
    fields = SMALL | {"temporal_depth": 1, "num_classes": 3}
    model = make_system({"model": fields, "loss": {}, "batch_size": 0}).model
    rng = np.random.default_rng(0)
    batch = {"video": rng.integers(0, 256, (2, 4, 8, 8, 3), np.uint8)}
    batch["video_mask"] = np.array([[True] * 4, [True, True, False, False]])
    params = drawn.parameters(model, batch)
    found = jax.jit(model.apply)({"params": params}, batch)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    spatial, temporal = (
        jax.tree.map(lambda x: x[0], p[name]["layers"]) for name in ("transformer", "temporal")
    )
    for row in range(2):
        frames, times = batch["video"][row] / 127.5 - 1, []
        for t in range(2 if row == 0 else 1):  # the second video has one valid tubelet in time
            tokens = [p["class_token"] + p["class_position"]]
            for i in range(2):
                for j in range(2):
                    block = frames[2 * t : 2 * t + 2, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                    stem = p["stem"]["projection"]
                    token = block.reshape(-1) @ stem["kernel"] + stem["bias"]
                    tokens.append(token + p["position"]["table"][i, j])
            x, norm = slow(spatial, np.stack(tokens), 2)
            times.append(norm(x[0], p["spatial_norm"]) + p["time"]["table"][t])
        x, norm = slow(
            temporal, np.stack([p["time_class_token"] + p["time_class_position"], *times]), 2
        )
        features = norm(x[0], p["norm"])
        np.testing.assert_allclose(found["video_features"][row], features, atol=1e-5)
        logits = features @ p["head"]["kernel"] + p["head"]["bias"]
        np.testing.assert_allclose(found["logits"][row], logits, atol=1e-5)
