"""A CLIP that trains in a second, on colored squares in a folder: for whole-system tests."""

import json

import numpy as np
from PIL import Image

from mmjax.config import defaults

COLORS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
PLACES = ("top left", "top right", "bottom left", "bottom right")


def write_folder(root, count=24):
    """`count` images of 16 px and captions.jsonl; returns the captions."""
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        color = list(COLORS)[i % 4]
        place = i // 4 % 4
        image = np.full((16, 16, 3), 255, np.uint8)
        row, column = 8 * (place // 2), 8 * (place % 2)
        image[row : row + 8, column : column + 8] = COLORS[color]
        image[0, 0] = i  # so that no two are equal
        Image.fromarray(image).save(root / f"{i:03d}.png")
        caption = f"a {color} square, {PLACES[place]}, number {i}"
        lines.append({"file_name": f"{i:03d}.png", "caption": caption})
    (root / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [line["caption"] for line in lines]


def get_config():
    """Override data.train.root and evals.all.source.root."""
    config = defaults()
    config.batch_size = 8
    config.total_steps = 6
    config.log_every = 1
    config.checkpoint.every = 2
    source = {"kind": "folder", "root": "", "captions": "captions.jsonl", "max_bad_records": 2}
    config.data.train = dict(source)
    config.data.transform = "decode | random_crop(16, padding=2) | choose_caption | tokenize(12)"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 300}
    tower = {"width": 16, "depth": 2, "heads": 2, "mlp_dim": 32}
    config.model = {
        "name": "clip",
        "embed_dim": 16,
        "image": {**tower, "patch_size": 8, "image_size": (16, 16), "dropout": 0.1},
        "text": {**tower, "vocab_size": 320, "length": 12},
    }
    config.loss = {"kind": "softmax", "implementation": "dense"}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {"name": "adamw", "learning_rate": 1e-2, "warmup_steps": 2}
    config.evals = {
        "all": {"kind": "retrieval", "source": dict(source), "transform": "decode"},
        "health": {"kind": "embedding_health", "source": dict(source), "transform": "decode"},
    }
    return config
