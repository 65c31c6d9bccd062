r"""The default model for photographs on sets that it never saw, beside a ridge and random maps.

    python experiments/photos/evaluate.py RUN RUN ... \
        --cifar10=cifar10.tar.gz --wheels scikit_image-*.whl scikit_learn-*.whl --cache=DIR

RUN are workdirs of configs/lit_photos.py, of several seeds. Image features are computed once and
kept in the cache. Nothing is trained or selected on these images, but the linear probe.

cifar10: zero-shot accuracy on the 10,000 test images, resized to the model's size.
photos: photographs in the wheels, each retrieved by its words among the names of the 1,000 ImageNet
  classes and 200 names of other synsets of ImageNet.
tuxpaint: the stamps that are PNG, most of them photographs, found by their captions: recall@1 and
  recall@5 of text to image over stamps with different captions.
"""

import argparse
import io
import json
import statistics
import tarfile
import zipfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from mmjax import pretrained
from mmjax.data.builders.debian import find_tree
from mmjax.data.builders.imagenet_classes import imagenet_classes, synset_names
from mmjax.data.builders.tuxpaint import DEBIAN_PACKAGE, FOLDER, read_stamp
from mmjax.data.cache import data_root
from mmjax.evals.linear_probe import linear_probe
from mmjax.evals.zero_shot import classifier_weights
from mmjax.photos.features import IMAGE_MODEL, TEXT_MODEL, TextTower, class_vectors

# What is to be seen on the photographs of scikit-image and scikit-learn.
PHOTOS = {
    "astronaut.png": "astronaut",
    "brick.png": "brick wall",
    "camera.png": "photographer",
    "chelsea.png": "cat",
    "china.jpg": "temple",
    "clock_motion.png": "clock",
    "coffee.png": "cup of coffee",
    "coins.png": "coins",
    "color.png": "color wheel",
    "flower.jpg": "flower",
    "grass.png": "grass",
    "gravel.png": "gravel",
    "hubble_deep_field.jpg": "galaxies",
    "moon.png": "moon",
    "motorcycle_left.png": "motorcycle",
    "page.png": "page of a book",
    "retina.jpg": "retina",
    "rocket.jpg": "rocket",
}
DISTRACTORS, RIDGE, BATCH, PROBED = 200, 0.3, 50, 1000


def unit(x):
    """Rows of length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


# ---- image features, computed once


def features_of(name, cache, images, model):
    """[N, D] of (key, encoded image) pairs, kept in cache/name.npz, and the keys."""
    path = cache / f"{name}.npz"
    if not path.exists():
        apply = jax.jit(model.model.apply)
        keys, rows, batch = [], [], []

        def flush():
            padded = np.stack(batch + batch[-1:] * (BATCH - len(batch)))
            outputs = apply(model.variables, {"image": padded})
            rows.append(np.asarray(outputs["image_features"])[: len(batch)])
            batch.clear()

        size = model.model.train_size
        for key, data in images:
            image = Image.open(io.BytesIO(data)).convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            batch.append(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)))
            keys.append(key)
            if len(batch) == BATCH:
                flush()
        if batch:
            flush()
        np.savez(path, features=np.concatenate(rows), keys=np.array(keys))
    found = np.load(path)
    return found["features"], found["keys"]


def cifar_images(archive, split):
    """(class/file, bytes) of a split."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and f"/{split}/" in member.name:
                yield member.name.split(f"/{split}/")[1], tar.extractfile(member).read()


def wheel_images(wheels):
    """(file name, bytes) of PHOTOS."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] in PHOTOS:
                    yield name.rpartition("/")[2], archive.read(name)


def stamp_images(root):
    """(caption, bytes) of tuxpaint's PNG stamps, one for each caption."""
    tree = find_tree(DEBIAN_PACKAGE, FOLDER, "*.txt", root, data_root())
    seen = set()
    for text in sorted(tree.rglob("*.txt")):
        stamp, image = read_stamp(tree, text), text.with_suffix(".png")
        if stamp is not None and image.exists() and stamp.caption not in seen:
            seen.add(stamp.caption)
            yield stamp.caption, image.read_bytes()


# ---- text maps: texts -> unit vectors in the space of the image features


def trained(workdir):
    """The maps of a run."""
    params = pretrained.load(workdir).params

    def embed(features):
        layers = [params[name] for name in ("text_map", "text_proj") if name in params]
        for i, layer in enumerate(layers):
            features = np.maximum(features, 0) if i else features
            features = features @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        return unit(features)

    return embed


def ridge(texts, vectors):
    """Ridge regression from unit features of "a photo of a NAME" to the classes' vectors."""
    x, mean = unit(texts), unit(texts).mean(axis=0)
    x = x - mean
    target = vectors - vectors.mean(axis=0)
    kernel = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ target)
    return lambda features: unit((unit(features) - mean) @ kernel + vectors.mean(axis=0))


def random_map(width, outputs, seed):
    """A random linear map."""
    kernel = np.random.default_rng(seed).standard_normal((width, outputs))
    return lambda features: unit(features @ kernel)


# ---- the sets


class Known:
    """A text tower that keeps the features of every text, as all maps are asked the same ones."""

    def __init__(self, tower):
        self._tower, self._rows = tower, {}

    def __call__(self, texts):
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        self._rows |= dict(zip(new, self._tower(new))) if new else {}
        return np.stack([self._rows[text] for text in texts])


def measure(embed, tower, sets):
    """{metric: value} of a text map."""
    images, labels, names = sets["cifar10"]
    found = {}

    def texts(given):
        return embed(tower(given))

    for preset in ("photo", "plain"):
        weights = classifier_weights(texts, names, preset)
        right = (images @ weights.T).argmax(1) == labels
        suffix = "" if preset == "photo" else ", names alone"
        found[f"cifar10 accuracy{suffix}"] = right.mean()

    images, words, others = sets["photos"]
    weights = classifier_weights(texts, [*words, *others], ("a photo of a {}",))
    scores = images @ weights.T
    own = scores[np.arange(len(words)), np.arange(len(words))]
    scores[:, : len(words)] = -np.inf  # other photographs' words are no distractors
    rank = (scores >= own[:, None]).sum(1)
    found |= {f"photos recall@{k}": (rank < k).mean() for k in (1, 5)}
    found["photos median rank"] = float(np.median(rank)) + 1

    images, captions = sets["tuxpaint"]
    scores = texts(list(captions)) @ images.T
    rank = (scores >= np.diag(scores)[:, None]).sum(1) - 1
    return found | {f"tuxpaint recall@{k}": (rank < k).mean() for k in (1, 5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--wheels", nargs="+", required=True)
    parser.add_argument("--tuxpaint", default=None, help="an unpacked package")
    parser.add_argument("--cache", required=True, type=Path)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)

    model, tower = pretrained.load(IMAGE_MODEL), Known(TextTower(TEXT_MODEL))
    cifar, keys = features_of("cifar10", args.cache, cifar_images(args.cifar10, "test"), model)
    names = sorted({key.split("/")[0] for key in keys})
    labels = np.array([names.index(key.split("/")[0]) for key in keys])
    photos, files = features_of("photos", args.cache, wheel_images(args.wheels), model)
    stamps, captions = features_of("tuxpaint", args.cache, stamp_images(args.tuxpaint), model)

    classes = imagenet_classes()
    class_names = [one.names[0] for one in classes]
    known = {one.synset for one in classes}
    rest = sorted({names[0] for key, names in synset_names().items() if key not in known})
    chosen = np.random.default_rng(0).choice(len(rest), DISTRACTORS, replace=False)
    words = [PHOTOS[file] for file in files]
    others = [*class_names, *(rest[i] for i in chosen)]
    others = [name for name in others if name not in words]
    sets = {
        "cifar10": (unit(cifar), labels, names),
        "photos": (unit(photos), words, others),
        "tuxpaint": (unit(stamps), captions),
    }
    vectors = class_vectors(IMAGE_MODEL)
    texts = tower([f"a photo of a {name}" for name in class_names])
    maps = {"ridge": [ridge(texts, vectors)]}
    maps["random"] = [random_map(texts.shape[1], vectors.shape[1], seed) for seed in range(3)]
    maps["trained"] = [trained(run) for run in args.runs]
    maps["mean of these"] = [lambda x: unit(sum(embed(x) for embed in maps["trained"]))]
    rows = {name: [measure(one, tower, sets) for one in several] for name, several in maps.items()}
    for metric in rows["ridge"][0]:
        line = [f"{metric:32s}"]
        for name, several in rows.items():
            values = [row[metric] for row in several]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            line.append(f"{name} {statistics.mean(values):.3f}{spread}")
        print("   ".join(line), flush=True)
    order = np.random.default_rng(0).permutation(len(cifar))
    train, test = order[:PROBED], order[PROBED:]
    scores, _ = linear_probe(cifar[train], labels[train], cifar[test], len(names))
    print(f"linear probe on {PROBED:,} of the CIFAR-10 images, on the others:", end=" ")
    print(f"{(scores.argmax(1) == labels[test]).mean():.3f}")
    (args.cache / "results.json").write_text(json.dumps(rows, indent=1, default=float))


if __name__ == "__main__":
    main()
