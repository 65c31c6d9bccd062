"""CoCa on emoji: the images and names of clip_emoji, embedded and captioned by one model.

    python -m mmjax.train --config=configs/coca_emoji.py --workdir=runs/coca_emoji

Loss weights 1 and 2 as in Yu et al. 2022 (arXiv 2205.01917), section 3.2. Expected (three seeds):
recall@5 on unseen concepts 8 and 11 %, near clip_emoji's; CIDEr-D 0.25 (shuffled captions 0.13);
see experiments/captioning/README.md.
"""

from configs.captioner_drawings import IMAGE, SMALL, captioning
from configs.clip_emoji import emoji
from configs.clip_emoji import get_config as clip_emoji


def get_config():
    """The config of this experiment."""
    config = clip_emoji()
    config.name = "coca_emoji"
    del config.model
    vocabulary = config.tokenizer.get_ref("vocab_size")
    words = {"vocab_size": vocabulary, "width": 128, "length": 16}
    config.model = {
        "name": "coca",
        "embed_dim": 128,
        "dtype": "bfloat16",
        "caption_queries": 16,
        "image": {**IMAGE, "patch_dropout": 0.5},
        "text": {**words, "decoder": {**SMALL, "depth": 4, "dropout": 0.1}},
    }
    config.loss_weights = {"contrastive": 1.0, "captioning": 2.0}
    config.evals.captions = captioning(emoji("unseen_test"), emoji("train"))
    config.baselines = ""
    return config
