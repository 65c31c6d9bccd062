"""CLIP on openclipart: drawings by 500 authors with their titles and keywords.

    python -m mmjax.train --config=configs/clip_openclipart.py --workdir=runs/clip_openclipart

The Debian package openclipart-svg is downloaded with `apt-get`.
Held out by author and title. Expected (3 seeds): recall@5 6 to 7 % among 290 drawings of other
authors, chance 1.7 %; experiments/clip_openclipart.md.
"""

from configs.clip_emoji import get_config as clip_emoji


def openclipart(split):
    """A split of the openclipart set."""
    return {"kind": "tfds", "name": "openclipart", "split": split}


def get_config():
    """The config of this experiment."""
    config = clip_emoji()
    config.name = "clip_openclipart"
    config.data.train = openclipart("train")
    config.data.cached_transform = "decode | resize(72)"
    config.data.transform = (
        "random_resized_crop(48, scale=(0.5, 1)) | flip"
        " | color_jitter(0.3, 0.3, 0.3, 0.05) | choose_caption(template_p=0.0) | tokenize(16)"
    )
    config.evals = {
        split: {
            "kind": "retrieval",
            "source": openclipart(split),
            "transform": "decode | resize(48)",
            "captions_per_image": 1,
        }
        for split in ("validation", "test")
    }
    config.evals.validation_loss = {
        "kind": "loss",
        "source": openclipart("validation"),
        "transform": "decode | resize(48) | first_caption | tokenize(16)",
    }
    config.validation = ("validation", "validation_loss")
    config.baselines = ""
    return config
