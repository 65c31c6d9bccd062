"""AudioCLIP and CLIP's residual networks beside the original: tests/golden/make_audioclip.py."""

import functools
from pathlib import Path

import drawn as draws
import jax
import numpy as np
import pytest
from flax import traverse_util
from named_draws import Drawn
from parity import close, expected
from safetensors.numpy import load_file

from mmjax.models.audioclip import PAIRS, contrastive
from mmjax.models.esresnext import GroupedBottleneck, StageAttention
from mmjax.models.resnet import PooledBottleneck
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained, load, save_pretrained
from mmjax.system import STATISTICS, average
from mmjax.variables import abstract_variables
from mmjax.weights.convert import read_params
from mmjax.weights.families import audioclip
from mmjax.weights.published import Published

CONFIG = {
    "name": "audioclip",
    "embed_dim": 24,
    "audio": {
        "features": 24,
        "samples": 4007,
        "fft": 256,
        "window": 200,
        "hop": 61,
        "layers": (1, 2, 1, 1),
        "groups": 4,
        "group_width": 16,
    },
    "image": {"layers": (1, 2, 1, 1), "width": 8, "heads": 4, "features": 24, "image_size": 64},
    "text": {
        "width": 16,
        "depth": 2,
        "heads": 2,
        "mlp_dim": 64,
        "vocab_size": 99,
        "length": 10,
        "activation": "quick_gelu",
        "norm_epsilon": 1e-5,
    },
}
WANT = expected("audioclip")


@functools.cache
def run():
    """Outputs, the result of every block, and the outputs and statistics of training."""
    system = make_system({"model": CONFIG, "loss": {}})
    model, given = system.model, abstract_variables(system.model, system.spec)
    target = {**given["params"], STATISTICS: given[STATISTICS]}
    table = audioclip.rows(model)
    tensors = Drawn(table, traverse_util.flatten_dict(target, sep="/"))
    params, _ = read_params(tensors, table, target)
    variables = {"params": params, STATISTICS: params.pop(STATISTICS)}
    batch = {k: WANT[k] for k in ("waveform", "image", "text", "text_mask")}
    kinds = GroupedBottleneck | StageAttention | PooledBottleneck

    @jax.jit
    def every(variables, batch):
        outputs, kept = model.apply(
            variables,
            batch,
            capture_intermediates=lambda module, _: isinstance(module, kinds),
            mutable=["intermediates"],
        )
        trained = model.apply(variables, batch, train=True, mutable=[STATISTICS])
        return outputs, kept["intermediates"], trained

    return jax.tree.map(np.asarray, every(variables, batch))


def column(x):
    """The middle column of a stage's result, as much as the golden file has."""
    return x[:, :, x.shape[2] // 2, :64]


def test_towers_layer_by_layer():
    _, found, _ = run()
    for tower, theirs in (("audio", "audio_layer"), ("image", "image_layer")):
        for stage, depth in enumerate(CONFIG[tower]["layers"]):
            (block,) = found[tower][f"stage{stage}_block{depth - 1}"]["__call__"]
            close(column(block), WANT[f"{theirs}{stage + 1}"])
    for place in (1, 4):
        (weights,) = found["audio"][f"attend{place}"]["__call__"]
        close(column(weights), WANT[f"audio_att{place + 1}"])


def test_features_of_all_three_towers():
    found = run()[0]
    for name in ("audio", "image"):
        close(found[f"{name}_features"], WANT[f"{name}_features"])
    unit = WANT["text_features"] / np.linalg.norm(WANT["text_features"], axis=1, keepdims=True)
    close(found["text_embed"], unit)
    close(found["filter_norm"], WANT["filter_norm"])


def test_training_uses_the_batch_and_keeps_its_statistics():
    found, written = run()[2]
    for name in ("audio", "image"):  # each of the norms by three rows amplifies the rounding
        close(found[f"{name}_features"], WANT[f"train_{name}_features"], 3e-5)
    flat = traverse_util.flatten_dict(dict(written[STATISTICS]["audio"]), sep="/")
    system = make_system({"model": CONFIG, "loss": {}})
    names = {row.ours[0]: row.theirs[0] for row in audioclip.rows(system.model)}
    for path, value in flat.items():
        close(value[:16], WANT[f"train/{names[f'{STATISTICS}/audio/{path}']}"])
    assert len(flat) == 2 * (1 + 5 * 3 + 4 + 5)


def embeds_of(logits):
    """Embeddings whose products are the logits of each pair: one pair at a time."""
    return logits.astype(np.float32), np.eye(3, dtype=np.float32)


@pytest.mark.parametrize("present", [np.ones(3, bool), np.array([True, False, True])])
def test_each_pair_has_the_mean_of_both_directions_of_rows_that_have_it(present):
    logits = {("audio", "image"): "ai", ("audio", "text"): "at", ("image", "text"): "it"}
    means, rows = {}, np.flatnonzero(present)
    for pair, short in logits.items():
        one, other = embeds_of(WANT[f"logits_{short}"])
        outputs = {f"{m}_embed": np.eye(3, dtype=np.float32) for m in ("audio", "image", "text")}
        outputs |= {f"{pair[0]}_embed": one, f"{pair[1]}_embed": other}
        outputs |= dict.fromkeys(PAIRS.values(), np.float32(1))
        terms = contrastive()(outputs, {"audio_present": present}, None)
        means[pair] = float(average(terms["_".join(pair)])[0])
        kept = rows if "audio" in pair else np.arange(3)
        z = WANT[f"logits_{short}"][np.ix_(kept, kept)].astype(np.float64)
        losses = [np.log(np.exp(x).sum(1)) - np.diag(x) for x in (z, z.T)]
        assert means[pair] == pytest.approx(np.mean(losses), rel=1e-5)
    if present.all():  # AudioCLIP's code: a sum by the factorial of the number of pairs
        assert np.mean(list(means.values())) == pytest.approx(float(WANT["loss"][0]), rel=1e-5)
        assert 2 * means["image", "text"] == pytest.approx(float(WANT["loss_it"][0]), rel=1e-5)


def test_every_modality_may_be_alone():
    system = make_system({"model": CONFIG, "loss": {}})
    given = abstract_variables(system.model, system.spec)
    for name, keys in {"audio": ["waveform"], "text": ["text", "text_mask"]}.items():
        found = jax.eval_shape(system.model.apply, given, {k: WANT[k] for k in keys})
        assert {k for k in found if k.endswith("embed")} == {f"{name}_embed"}


def test_settings_come_back():
    found = Published(Path("none"), {"model_type": "audioclip"}, None, None)
    config = audioclip.model_config(found)
    written = audioclip.published_config(make_system({"model": config, "loss": {}}).model)
    assert audioclip.model_config(found._replace(config=written)) == config
    assert (
        written.items()
        >= {
            k: list(x) if k == "vision_layers" else x for k, x in audioclip.SETTINGS.items()
        }.items()
    )
    small = make_system({"model": CONFIG, "loss": {}}).model
    with pytest.raises(ValueError, match="'audioclip', which has no audio.layers"):
        audioclip.published_config(small)


def test_a_clip_with_a_residual_network_is_saved_as_by_open_clip(tmp_path):
    image = {"kind": "resnet", **CONFIG["image"]}
    config = {"name": "clip", "embed_dim": 24, "image_proj": False}
    config |= {"image": image, "text": CONFIG["text"]}
    system = make_system({"model": config, "loss": {}})
    assert system.mutable == (STATISTICS,) and "batch norm" in system.couples_rows
    given = draws.drawn(abstract_variables(system.model, system.spec))
    params, memory = given["params"], {STATISTICS: given[STATISTICS]}
    steps = "decode | resize_short(64, 'bicubic') | center_crop((64, 64), 'even')"
    model = Pretrained(config, system.model, params, None, 10, steps, "", memory=memory)
    save_pretrained(model, tmp_path / "out")
    names = load_file(tmp_path / "out" / "open_clip_model.safetensors").keys()
    assert {"visual.layer2.0.downsample.1.running_var", "visual.attnpool.q_proj.bias"} <= names
    assert "visual.bn1.num_batches_tracked" in names
    again = load(tmp_path / "out")
    assert again.transform == steps
    assert again.model.image_tower(parent=None) == system.model.image_tower(parent=None)
    for a, b in zip(jax.tree.leaves(again.variables), jax.tree.leaves(model.variables)):
        np.testing.assert_array_equal(a, b)
