"""Classification of clip art by image and text, together and each alone.

    python -m mmjax.train --config=configs/fusion_openclipart.py --workdir=runs/fusion_openclipart

The category is a drawing's folder in the collection: 14 folders with at least 20 drawings; splits
share no author and no title. About half of the captions (title and keywords) contain a word of the
folder's name; all such words are removed. Expected (3 seeds): late fusion 68 % with both and with
text alone, 34 % with the image alone; the majority class (signs and symbols) is 86 of 267 test
drawings, 32 %. See experiments/fusion/README.md.
"""

from mmjax.config import defaults

CLASSES = (
    *("signs_and_symbols", "computer", "food", "animals", "people", "recreation", "office"),
    *("tools", "transportation", "geography", "plants", "buildings", "education", "electronics"),
)
STEMS = "sign symbol computer food animal recreation office tool transport plant building"
WORDS = (
    *(word + s for word in STEMS.split() for s in ("", "s")),
    *("people", "transportation", "geography", "education", "electronic", "electronics"),
)
TEXT = f"drop_words({WORDS}) | tokenize(24)"


def openclipart(split):
    """A split of the set, restricted to `CLASSES`."""
    return {
        "kind": "tfds",
        "name": "openclipart",
        "split": split,
        "label_key": "category",
        "classes": CLASSES,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 300
    config.log_every = 20
    config.checkpoint.every = 300

    config.data.train = openclipart("train")
    config.data.cached_transform = "decode | resize(64)"
    config.data.transform = (
        "random_resized_crop(64, scale=(0.6, 1)) | flip | color_jitter(0.4, 0.4, 0.4, 0.03)"
        f" | longest_caption | {TEXT} | label"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 4096}

    config.model = {
        "name": "multimodal",
        "width": 96,
        "heads": 4,
        "mlp_dim": 192,
        "activation": "gelu_tanh",
        "encoder_depth": 1,
        "dropout": 0.1,
        "image": {"image_size": (64, 64), "patch_size": 8},
        "text": {"vocab_size": config.tokenizer.get_ref("vocab_size"), "length": 24},
        "fusion": {"kind": "late", "depth": 2, "modality_dropout": 0.3},
        "num_classes": len(CLASSES),
    }
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 30,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    transform = f"decode | resize(64) | longest_caption | {TEXT} | label"
    test = {"kind": "classification", "source": openclipart("test"), "transform": transform}
    for name, absent in {"both": (), "image_only": ("text",), "text_only": ("image",)}.items():
        config.evals[name] = {**test, "modalities": ("image", "text"), "absent": absent}
    return config
