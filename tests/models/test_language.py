"""The language model as a system: it trains by the one loop, and refuses what it cannot learn."""

import json

import commands
import jax
import numpy as np
import pytest
import tiny_clip
import toy
from flax.core import meta

from mmjax import config as configs
from mmjax import generate
from mmjax.data.source import Source
from mmjax.models.systems import make_system
from mmjax.run import experiment
from mmjax.train import train

LENGTH = 8


def get_config(root):
    config = configs.defaults()
    config.name, config.batch_size, config.total_steps, config.log_every = "toy", 8, 40, 10
    config.mesh = {"data": 8, "fsdp": 1, "tensor": 1}
    config.data.train = {"kind": "folder", "root": str(root), "captions": "captions.jsonl"}
    config.data.transform = f"choose_caption | tokenize({LENGTH})"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 300}
    decoder = {"depth": 1, "heads": 2, "mlp_dim": 32, "positions": "rope", "norm": "rms"}
    text = {"vocab_size": 300, "width": 16, "length": LENGTH, "decoder": decoder}
    config.model = {"name": "language_model", "text": text}
    config.loss_weights = {"captioning": 1.0}
    config.optim = {"name": "adamw", "learning_rate": 3e-2}
    return config


def test_gradients_do_not_depend_on_what_is_padded_and_every_parameter_learns(tmp_path):
    config = get_config(tmp_path)
    system = make_system(config)
    model = system.model
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTH)[None] < np.asarray([8, 3])[:, None]
    text = rng.integers(0, 300, (2, LENGTH), np.int32)
    init = lambda: meta.unbox(model.init(jax.random.key(0), {"text": text}))["params"]  # noqa: E731
    params = jax.jit(init)()

    def grads(text):
        batch = {"text": text, "text_mask": mask}

        def value(params):
            outputs = model.apply({"params": params}, batch)
            return toy.means(system.loss, outputs, batch)["captioning"]

        return jax.jit(jax.grad(value))(params)

    found, other = grads(text), grads(np.where(mask, text, 0))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        found["text"]["decoder"],
        other["text"]["decoder"],
    )
    for path, g in jax.tree_util.tree_leaves_with_path(found):
        name = jax.tree_util.keystr(path)
        assert np.abs(g).max() > 0, name


class Silent(Source):
    """A source of texts without a token."""

    name, class_names = "silent", None

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return {"text": np.zeros(4, np.int32), "text_mask": np.zeros(4, bool)}


def test_a_batch_without_a_supervised_token_is_refused_on_the_host(tmp_path):
    config = get_config(tmp_path)
    config.data.transform = ""
    batches = experiment.training_batches(config.lock(), make_system(config), Silent(), None, 0)
    with pytest.raises(ValueError, match="No token of the batch is supervised"):
        next(batches)


def test_it_learns_the_captions_and_writes_them(tmp_path):
    captions = tiny_clip.write_folder(tmp_path / "data")
    train(get_config(tmp_path / "data").lock(), tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [v["train/captioning"] for v in map(json.loads, lines) if "train/captioning" in v]
    assert losses[-1] < 0.5 * losses[0]
    # the command continues a caption as no other text begins
    said = ("-m", "mmjax.generate", f"--model={tmp_path / 'run'}", "--prompt=a red")
    # more tokens than the window holds: one sentence, and no stack trace
    found = commands.run(*said, "--max_new_tokens=64")
    assert found.returncode == 2 and "window of 8" in found.stderr, found.stderr
    found = commands.run(*said)  # as many as there is room for
    assert found.returncode == 0 and found.stdout.startswith("a red square,"), found
    assert captions[0].startswith("a red square,")
    loaded = generate.open_model(str(tmp_path / "run"))
    with pytest.raises(ValueError, match="A 'language_model' takes no images: leave --image"):
        generate.make_batches(loaded, "a red", [np.zeros((8, 8, 3), np.uint8)])
