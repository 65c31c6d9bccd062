"""Part of the training source held out for evaluation by one setting."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmjax import config as configs
from mmjax.data.mixture import open_training
from mmjax.data.open_source import open_source
from mmjax.evals.evaluators import make_evaluators
from mmjax.models.systems import make_system
from mmjax.run.hold_out import evals_of


def system():
    """What a system of several losses names."""
    return SimpleNamespace(
        evaluators={
            "contrastive": {"kind": "retrieval"},
            "captioning": {"kind": "captioning", "decode": {"max_new_tokens": 7}},
            "classification": {"kind": "classification", "modalities": ("image", "audio")},
        }
    )


def config(**data):
    found = configs.defaults()
    found.model = {"name": "clip", "image": {}, "text": {"length": 8}}
    found.loss_weights = {"contrastive": 1.0}
    found.data.update(
        ConfigDict(
            {
                "cached_transform": "decode | resize(56)",
                "transform": "random_resized_crop(48) | flip | choose_caption | tokenize(8)",
                **data,
            }
        )
    )
    return found


@pytest.fixture
def images(tmp_path):
    lines = ["file_name,caption"]
    for i in range(20):
        from PIL import Image

        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"{i:02}.png")
        lines.append(f"{i:02}.png,number {i}")
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n")
    return {"kind": "folder", "root": str(tmp_path), "captions": "captions.csv"}


def test_training_and_held_out_examples_are_disjoint_and_complete(images):
    found = config(train=images, hold_out=0.25)
    training = open_training(found.data)
    keys = [training.meta(i)["key"] for i in range(len(training))]
    evals = evals_of(found, system())
    assert set(evals) == {"held_out", "held_out_loss"}
    for evaluator in evals.values():
        held_out = open_source(evaluator["source"])
        others = [held_out.meta(i)["key"] for i in range(len(held_out))]
        assert (len(keys), len(others)) == (15, 5)
        assert len({*keys, *others}) == 20


def test_the_evaluators_are_those_that_the_system_names():
    found = config(hold_out=0.1)
    evals = evals_of(found, system())
    assert evals["held_out"]["kind"] == "retrieval"
    assert evals["held_out"]["transform"] == "decode | resize(56) | resize(48)"
    whole = "decode | resize(56) | resize(48) | first_caption | tokenize(8)"
    assert evals["held_out_loss"]["transform"] == whole
    found.loss_weights = {"captioning": 1.0}
    assert evals_of(found, system())["held_out"] == {
        **evals["held_out"],
        "kind": "captioning",
        "decode": {"max_new_tokens": 7},
    }
    found.loss_weights = {"captioning": 1.0, "matching": 1.0, "contrastive": 1.0}
    several = evals_of(found, system())
    assert set(several) == {"held_out_captioning", "held_out_retrieval", "held_out_loss"}
    found.loss_weights = {"classification": 1.0}
    classifies = evals_of(found, system())["held_out"]
    assert classifies["modalities"] == ("image", "audio") and classifies["transform"] == whole
    found.loss_weights = {"something_else": 1.0}
    assert set(evals_of(found, system())) == {"held_out_loss"}
    assert not evals_of(config(), system())


# Loss terms with an evaluator of their own, in the systems that have several.
SHOWN = {
    "albef_emoji": {"contrastive"},
    "avsr_digits": {"ctc"},
    "blip_emoji": {"contrastive", "captioning"},
    "blip_nlvr2": {"classification"},
    "clap_esc10": {"contrastive"},
    "coca_emoji": {"contrastive", "captioning"},
    "flamingo_emoji": {"captioning"},
    "flava_emoji": {"contrastive"},
    "fusion_digits": {"classification"},
    "llava_emoji": {"captioning"},
    "vilt_emoji_pairs": {"classification"},
    "vqa_emoji": {"classification"},
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_systems_name_can_be_made(name, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    found = configs.load(f"configs/{name}.py", ())
    named = make_system(found).evaluators
    assert set(named) == SHOWN[name] and set(named) <= set(found.loss_weights)
    runner = SimpleNamespace(generate=lambda settings: None)
    evals = {term: {**x, "source": {}, "transform": ""} for term, x in named.items()}
    assert set(make_evaluators(evals, runner)) == set(named)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"hold_out": 1.0}, "hold_out is 1.0: use a fraction from 0 to below 1"),
        ({"hold_out": -0.1}, "hold_out is -0.1"),
        ({"hold_out": 0.1, "train": {"kind": "mixture"}}, "hold_out is for one source"),
        ({"hold_out": 0.1, "train": {"kind": "mosaics"}}, "would evaluate on images that other"),
    ],
)
def test_wrong_settings_are_named(data, words):
    with pytest.raises(ValueError, match=words):
        open_training(config(**data).data)


def test_a_name_that_is_taken_is_refused():
    found = config(hold_out=0.1)
    found.evals = {"held_out": {}}
    with pytest.raises(ValueError, match="config.evals has held_out, which config.data.hold_out"):
        evals_of(found, system())
