"""A published ViT whose head knows five colors, folders of them, and a config that trains it."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from mmjax import pretrained
from mmjax.config import defaults

GOLDEN = Path(__file__).parents[1] / "golden" / "vit"
COLORS = {  # in the order of the head, which is not that of the alphabet
    "red": (255, 0, 0),
    "violet": (128, 0, 200),
    "blue": (0, 0, 255),
    "green": (0, 160, 0),
    "yellow": (255, 220, 0),
}


def write_folder(root, names, count=4):
    """`count` images of 32 px in each class's folder."""
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((32, 32, 3), COLORS[name], np.uint8)
            image[0, 0] = i  # so that no two are equal
            Image.fromarray(image).save(root / name / f"{i}.png")


def write_model(folder):
    """The tower of tests/golden/vit; its head interpolates the features of the plain colors."""
    images = np.stack([np.full((32, 32, 3), color, np.uint8) for color in COLORS.values()])
    golden = pretrained.load(GOLDEN)
    features = golden.model.apply(golden.variables, {"image": images})["image_features"]
    weight = np.linalg.lstsq(np.asarray(features, np.float64), 10 * np.eye(5), rcond=None)[0]
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "preprocessor_config.json", folder)
    tensors = load_file(GOLDEN / "model.safetensors")
    tensors["classifier.weight"] = np.ascontiguousarray(weight.T.astype(np.float32))
    tensors["classifier.bias"] = np.zeros(5, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((GOLDEN / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(COLORS)}
    config["label2id"] = {name: i for i, name in enumerate(COLORS)}
    (folder / "config.json").write_text(json.dumps(config))


def get_config(root):
    """One step that changes nothing, of the model in `root`/model on the images in `root`/train."""
    root = Path(root)
    config = defaults()
    config.init_from.path = str(root / "model")
    config.model = pretrained.describe(root / "model").config
    config.batch_size, config.total_steps, config.log_every = 12, 1, 1
    config.optim = {"name": "sgd", "learning_rate": 0.0}
    config.loss_weights = {"classification": 1.0}
    config.data.transform = "decode | resize(32) | label"
    train = {"kind": "folder", "root": str(root / "train"), "data_dir": str(root / "cache")}
    config.data.train = train
    test = {"transform": config.data.transform}
    for name, kind in (("few", "classification"), ("others", "classification"), ("loss", "loss")):
        config.evals[name] = {"kind": kind, "source": train | {"root": str(root / name)}, **test}
    config.evals["loss"].source.root = str(root / "few")
    for kind in ("knn", "linear_probe"):
        few = train | {"root": str(root / "few")}
        config.evals[kind] = {"kind": kind, "train_source": train, "source": few, **test}
    config.evals.knn.k = 3
    config.evals_at_start = ("few",)
    return config
