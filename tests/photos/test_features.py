"""Names of classes, their features as a data set, and a CLIP trained on it."""

import types
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn import parameters
from tiny_clip import write_folder

import mmjax
from mmjax import train
from mmjax.config import defaults
from mmjax.data.builders.imagenet_classes import ImageNetClass
from mmjax.data.open_source import open_source
from mmjax.data.sources.array_records import open_records
from mmjax.data.transforms.parse import parse
from mmjax.embedder import Embedder
from mmjax.models.clip import duplicate_ids
from mmjax.models.systems import make_system
from mmjax.photos import features
from mmjax.photos.features import ClassNames, write
from mmjax.photos.names import phrasings

CLASSES = [
    ImageNetClass("n1", ("pug", "pug-dog"), "a small dog"),
    ImageNetClass("n2", ("collie",), "a silky sheep dog"),
    ImageNetClass("n3", ("daisy",), "a flower"),
    ImageNetClass("n4", ("bus", "coach"), "a vehicle"),
]
WIDTH, TEXT_WIDTH = 6, 5
RNG = np.random.default_rng(0)


def embed(texts):
    """Features that tell texts apart."""
    return np.array([np.arange(TEXT_WIDTH) + len(text) for text in texts], np.float32)


def test_texts_of_a_class():
    assert phrasings(["pug"], "a dog")[:3] == ("pug", "a photo of a pug", "a photo of the pug")
    assert phrasings(["pug"], "a dog")[4:] == ("a dog", "pug: a dog")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """A data set of eight classes, four of which are CLASSES, and the classes' vectors."""
    vectors = RNG.normal(size=(8, WIDTH)).astype(np.float32)
    target = tmp_path_factory.mktemp("photos") / "names"
    write(target, lambda: ClassNames(CLASSES * 2, vectors), embed, {"made": "by a test"}, 3)
    return target, vectors


def test_records_have_the_features_of_every_caption(names):
    target, vectors = names
    source = open_records(target)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert [source[i]["key"] for i in range(len(source))] == ["n1", "n2", "n3", "n4"] * 2
    np.testing.assert_allclose(source[2]["image_features"], unit[2][None], rtol=1e-6)
    for record in (source[0], source[3]):
        np.testing.assert_array_equal(record["text_features"], embed(record["captions"]))

    chosen = {tuple(parse("choose_features")(source[0], np.random.default_rng(i))["text_features"])
              for i in range(99)}  # fmt: skip
    assert chosen == set(map(tuple, source[0]["text_features"]))
    noisy = parse("choose_features(0.5)")(source[0], np.random.default_rng(0))["text_features"]
    assert noisy.dtype == np.float32 and tuple(noisy) not in chosen
    with pytest.raises(ValueError, match="choose_features needs text_features"):
        parse("choose_features")({"captions": ["a"]}, RNG)


GOLDEN = Path(__file__).parents[1] / "golden"


def test_features_of_images_and_of_their_copies(tmp_path, monkeypatch):
    captions = write_folder(tmp_path / "images", 5)
    size = mmjax.load(GOLDEN / "clip").image(np.zeros((9, 9, 3), np.uint8)).shape[0]
    source = {
        "kind": "features",
        "root": str(tmp_path / "features"),
        "of": {"kind": "folder", "root": str(tmp_path / "images"), "captions": "captions.jsonl"},
        "image_model": str(GOLDEN / "clip"),
        "text_model": str(GOLDEN / "minilm"),
        "transform": f"decode | resize({size}) | flip | color_jitter(0.5, 0.5, 0.5, 0.1)",
        "copies": 2,
    }
    (tmp_path / "mine.py").write_text(
        "from mmjax.config import defaults\n\n\ndef get_config():\n    config = defaults()\n"
        # The sources of evaluators too; one that is named twice is written once.
        f"    config.evals = {{'x': {{'source': {source!r}, 'train_source': {source!r}}}}}\n"
        "    return config\n"
    )
    given = {"config": str(tmp_path / "mine.py"), "target": "", "kinds": False, "overrides": ()}
    monkeypatch.setattr(features, "ARGS", types.SimpleNamespace(**given), raising=False)
    with pytest.raises(ValueError, match="There are no features in .*: run python -m"):
        open_source(source)
    features.main()
    found = open_source(source)
    assert len(found) == 5 and [found[i]["captions"] for i in range(5)] == [[c] for c in captions]

    tower = mmjax.load(GOLDEN / "clip")
    apply = jax.jit(tower.model.apply)
    chains = parse(f"decode | resize({size})"), parse(source["transform"])
    for i in (0, 4):
        example = open_source(source["of"])[i]
        images = [chains[c > 0](example, np.random.default_rng((i, c)))["image"] for c in range(3)]
        want = apply(tower.variables, {"image": np.stack(images)})["image_features"]
        np.testing.assert_allclose(found[i]["image_features"], want, atol=1e-5)
    drawn = parse("choose_features")(found[1], np.random.default_rng(0))
    rows = found[1]["image_features"]
    assert drawn["caption"] == captions[1]
    mean, rows = drawn["image_features"], found[1]["image_features"]
    far = np.linalg.norm(rows - mean, axis=1)
    between = far[:, None] + far[None] - np.linalg.norm(rows[:, None] - rows[None], axis=2)
    assert np.abs(between).min() < 1e-4  # a mean of two copies
    first = parse("first_features")(found[1], None)["image_features"]
    np.testing.assert_array_equal(first, found[1]["image_features"][0])

    with pytest.raises(ValueError, match="features with copies = 2 and the config says 3"):
        open_source({**source, "copies": 3})
    with pytest.raises(ValueError, match=r"takes no images: set image_model to another"):
        features.ImageTower(source["text_model"])
    with pytest.raises(ValueError, match="missing a required argument: 'of'"):
        features._arguments({k: source[k] for k in source if k != "of"})
    with pytest.raises(ValueError, match="unexpected keyword argument 'copy'"):
        features._arguments({**source, "copy": 3})
    tower = features.ImageTower(source["image_model"], "decode")
    with pytest.raises(ValueError, match=r"differ in size after 'decode': .* such as resize"):
        tower([np.zeros((size, 9, 3), np.uint8) for size in (9, 8)])
    with pytest.raises(ValueError, match="nothing in 'decode' is random"):
        features.ImageTower(source["image_model"], "decode", 1)


def config_of(root):
    config = defaults()
    config.batch_size, config.total_steps, config.checkpoint.every = 8, 2, 2
    config.data.train = {"kind": "array_record", "root": str(root)}
    config.data.transform = "choose_features"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 300}
    tower = {"depth": 1, "heads": 1, "mlp_dim": 8}
    config.model = {
        "name": "clip",
        "embed_dim": WIDTH,
        "lock_image": True,
        "image_proj": False,
        "proj_bias": True,
        "text_map": 7,
        "given": {"image_features": WIDTH, "text_features": TEXT_WIDTH},
        "image": {**tower, "width": WIDTH, "patch_size": 8, "image_size": 16, "pool": "mean"},
        "text": {**tower, "width": TEXT_WIDTH, "vocab_size": 300, "length": 6},
    }
    config.loss = {"kind": "softmax", "mask_duplicates": True, "alignment": True}
    config.loss_weights = {"alignment": 1.0}
    config.optim = {"name": "adamw", "learning_rate": 0.01, "freeze": ("image/.*", "text/.*")}
    return config


def test_given_features_are_those_of_the_towers():
    config = config_of("").to_dict()
    system = make_system(config)
    with pytest.raises(ValueError, match=r"text_words is read by a head: set config\.model\.head"):
        make_system({**config, "model": {**config["model"], "text_words": True}})
    model = system.model
    assert {k: x.shape for k, x in system.spec.items()} == {
        "image_features": (1, WIDTH),
        "text_features": (1, TEXT_WIDTH),
        "example_id": (1,),
    }
    zeros = {k: np.zeros(x.shape, x.dtype) for k, x in system.spec.items()}
    params = parameters(model, zeros)
    assert set(params) == {"image", "text", "text_map", "text_proj", "logit_scale"}
    batch = {
        "image": RNG.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8),
        "text": RNG.integers(0, 300, (3, 6)).astype(np.int32),
        "text_mask": np.ones((3, 6), bool),
    }
    apply = jax.jit(model.apply)
    whole = apply({"params": params}, batch)
    given = {k: whole[k] for k in ("image_features", "text_features")}
    again = apply({"params": params}, given)
    for name in ("image_embed", "text_embed"):
        np.testing.assert_allclose(again[name], whole[name], rtol=1e-6)
    x = np.asarray(given["text_features"], np.float64)
    for name in ("text_map", "text_proj"):
        x = x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
        x = np.maximum(x, 0) if name == "text_map" else x
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(whole["text_embed"], x, atol=1e-5)
    terms = system.loss(again, given | {"example_id": np.arange(3)}, None)
    want = 1 - (whole["image_embed"] * whole["text_embed"]).sum(1)
    np.testing.assert_allclose(terms["alignment"], want, atol=1e-6)
    # Other copies of the same image, with the same caption.
    rows = {k: np.asarray(x)[[0, 1, 0]] for k, x in given.items()}
    rows["image_features"][2] += 1.0
    rows["example_id"] = np.array([7, 8, 7])
    tokens = {k: batch[k][[0, 1, 0]] for k in ("text", "text_mask")}
    noisy = {**rows, **tokens, "text_features": RNG.normal(size=(3, TEXT_WIDTH))}
    for ids in (*duplicate_ids(rows), *duplicate_ids(noisy)):
        assert ids[0] == ids[2] != ids[1]


def test_a_run_on_features_is_a_clip_for_images_and_texts(names, tmp_path):
    config = config_of(names[0])
    stages = [{"channels": WIDTH, "depth": 1, "kernel": 3, "stride": 1, "expand": 1}]
    config.model.image = {"kind": "efficientnet", "stem": 4, "stages": stages, "image_size": 16}
    train.train(config, tmp_path / "run")
    loaded = mmjax.load(tmp_path / "run")
    assert loaded.transform == "decode(min_size=16) | resize(16)"
    image = loaded.image(np.zeros((40, 30, 3), np.uint8))
    text, mask = loaded.tokenizer.encode(["a pug"], loaded.text_length)
    batch = {"image": image[None], "text": text, "text_mask": mask}
    outputs = jax.jit(loaded.model.apply)(loaded.variables, batch)
    assert outputs["image_embed"].shape == outputs["text_embed"].shape == (1, WIDTH)
    assert Embedder(loaded, sizes=(1,)).attention(image) is None  # convolutions alone
