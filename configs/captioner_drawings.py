"""Captions of drawings: a ViT and a text decoder, trained on emoji and openclipart.

    python -m mmjax.train --config=configs/captioner_drawings.py --workdir=runs/captioner_drawings

Held out: emoji concepts, openclipart authors and titles, and all of tuxpaint, another collection.
The Debian packages of openclipart and tuxpaint are downloaded with `apt-get`. Expected (three
seeds): CIDEr-D 0.47 ± 0.03 on emoji (shuffled captions 0.11, the nearest training image's caption
0.69); starting from the image tower of a CLIP run (--config.init_from.path=runs/clip_emoji
"--config.init_from.only=('image/.*',)") 0.51 ± 0.02. See experiments/captioning/README.md.
"""

from configs.clip_emoji import emoji
from configs.clip_openclipart import openclipart
from mmjax.config import defaults

SMALL = {"heads": 4, "mlp_dim": 512, "activation": "gelu_tanh"}
SIZES = {"width": 128, "depth": 4, "patch_size": 8, "image_size": (48, 48)}
IMAGE = {**SMALL, **SIZES, "stem": "conv"}


def tuxpaint(split):
    """A split of the tuxpaint stamps."""
    return {"kind": "tfds", "name": "tuxpaint", "split": split}


def captioning(source, train):
    """Beam search over `source`, with the nearest training image's caption as baseline."""
    return {
        "kind": "captioning",
        "source": source,
        "transform": "decode | resize(48)",
        "decode": {"max_new_tokens": 15, "beams": 3},
        "train_source": train,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "captioner_drawings"
    config.batch_size = 128
    config.total_steps = 1000
    config.log_every = 20
    config.checkpoint.every = 250

    train = {"kind": "joined", "sources": (emoji("train"), openclipart("train"))}
    config.data.train = train
    config.data.cached_transform = "decode | resize(56)"
    config.data.transform = (
        "random_resized_crop(48, scale=(0.6, 1)) | color_jitter(0.3, 0.3, 0.3, 0.03, p=0.5)"
        " | choose_caption(template_p=0.0) | tokenize(16)"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 4096}

    vocabulary = config.tokenizer.get_ref("vocab_size")
    words = {"vocab_size": vocabulary, "width": 128, "length": 16}
    config.model = {
        "name": "captioner",
        "dtype": "bfloat16",
        "image": {**IMAGE, "patch_dropout": 0.25},
        "text": {**words, "decoder": {**SMALL, "depth": 3, "dropout": 0.2}},
    }
    config.loss = {"label_smoothing": 0.1}
    config.loss_weights = {"captioning": 1.0}
    config.ema.decay = 0.99
    config.optim = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 80,
        "b2": 0.98,
        "weight_decay": 0.2,
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        "emoji": captioning(emoji("unseen_test"), emoji("train")),
        "openclipart": captioning(openclipart("test"), train),
        "tuxpaint": captioning(tuxpaint("test"), train),
    }
    return config
