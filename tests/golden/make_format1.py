"""Checkpoints of format 1: a tiny run, and small models with what they give for a batch.

    git worktree add /tmp/old f528dbf
    cd /tmp/old && PYTHONPATH=/tmp/old:/tmp/old/tests python THIS_FILE OUT

Must run with that revision, the last one that writes format 1. OUT then holds `run.tar.xz` (a
CoCa's workdir at step 2 of 4), the losses of its steps, and `models.npz`: models, batches and what
they give for them. Parameters are not in it: `values` makes them from their old paths.
"""

import json
import os
import shutil
import sys
import tarfile
import zlib
from pathlib import Path

import jax
import numpy as np
import toy
from flax.core import meta
from tiny_clip import get_config, write_folder

from mmjax import config as configs
from mmjax import train
from mmjax.models import systems
from mmjax.optim import tree_paths

BERT = {"kind": "bert", **toy.TOWER, "depth": 2, "vocab_size": 64, "length": 8}
BERT.pop("remat")
DECODER = {"depth": 2, "heads": 4, "kv_heads": 2, "mlp_dim": 32, "positions": "rope"}


def cases():
    """Name -> `config.model`."""
    for name in ("siglip_emoji", "captioner_drawings", "coca_emoji", "flamingo_emoji"):
        yield name, toy.shrink(configs.load(f"configs/{name}.py")).model
    for kind in ("bottleneck", "cross_attention", "bidirectional"):
        config = configs.load("configs/fusion_digits.py")
        with config.unlocked(), config.ignore_type():
            config.model.fusion = {"kind": kind}
        yield f"fusion_{kind}", toy.shrink(config).model
    yield "language_model", {"name": "language_model", "text": toy_text() | {"decoder": DECODER}}
    yield "bert", {"name": "clip", "embed_dim": 16, "image": toy.IMAGE | {"depth": 1}, "text": BERT}


def toy_text():
    return {k: toy.TEXT[k] for k in ("vocab_size", "width", "length")}


def values(path, shape):
    """A parameter's values, from its path in format 1."""
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    return (0.3 * rng.normal(size=shape)).astype(np.float32)


def models(out):
    """What every case gives for a batch."""
    arrays = {}
    for name, model_config in cases():
        config = configs.defaults()
        with config.unlocked(), config.ignore_type():
            config.model, config.batch_size = model_config, 4
        batch = toy.batch(config)
        model = systems.make_model(config)
        init = jax.eval_shape(lambda m=model, b=batch: m.init(jax.random.key(0), b)["params"])
        init = meta.unbox(init)
        params = tree_paths.map_paths(lambda path, x: values(path, x.shape), init)
        outputs = jax.jit(lambda p, b, m=model: m.apply({"params": p}, b))(params, batch)
        arrays[f"{name}/model"] = np.asarray(json.dumps(config.model.to_dict()))
        arrays[f"{name}/shapes"] = np.asarray(json.dumps(tree_paths.shapes(init)))
        for k, x in batch.items():
            arrays[f"{name}/batch/{k}"] = np.asarray(x)
        for k, x in outputs.items():
            if getattr(x, "size", 10**9) < 5000:
                arrays[f"{name}/outputs/{k}"] = np.asarray(x)
    np.savez_compressed(out / "models.npz", **arrays)


def run_config():
    config = get_config()
    config.name, config.evals = "format1", {}
    config.total_steps, config.ema_decay = 4, 0.5
    config.checkpoint.every, config.checkpoint.keep = 2, 10
    config.data.train.root = "images"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 260}
    image = {"width": 4, "heads": 2, "mlp_dim": 4, "depth": 1, "image_size": (16, 16)}
    image |= {"patch_size": 4, "pool": "all"}
    decoder = {"depth": 2, "heads": 4, "kv_heads": 2, "head_dim": 2, "mlp_dim": 4}
    config.model = {
        "name": "coca",
        "embed_dim": 4,
        "image": image,
        "text": {"vocab_size": 260, "width": 4, "length": 12, "decoder": decoder},
        "caption_queries": 2,
        "pool_heads": 2,
    }
    config.loss_weights = {"contrastive": 1.0, "captioning": 1.0}
    return config


def run(out):
    """The run, in a folder of its own, with relative paths alone."""
    os.chdir(out)
    write_folder(Path("images"))
    train.evaluate.finish = lambda *_: {}
    train.train(configs.override(run_config(), []), "full")
    lines = [json.loads(s) for s in Path("full/metrics.jsonl").read_text().splitlines()]
    losses = {m["step"]: m["train/loss"] for m in lines if "train/loss" in m}
    Path("losses.json").write_text(json.dumps(losses) + "\n")
    with tarfile.open("run.tar.xz", "w:xz") as tar:
        # commit_success.txt, which only cloud storage needs, has the folder's whole path
        keep = lambda x: None if x.name.endswith("commit_success.txt") else x  # noqa: E731
        tar.add("full/checkpoints/2", "checkpoints/2", filter=keep)
    shutil.rmtree("full")
    shutil.rmtree("images")


if __name__ == "__main__":
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    models(out)
    run(out)
