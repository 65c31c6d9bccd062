"""ALBEF on emoji: the images and names of clip_emoji, aligned and then fused.

    python -m mmjax.train --config=configs/albef_emoji.py --workdir=runs/albef_emoji

All losses have weight 1, and alpha rises over the first epochs, as in Li et al. 2021
(arXiv 2107.07651), section 3. The original starts from trained encoders; here there is no queue,
with which contrast from scratch does not start. Expected (one seed): recall@5 of unseen concepts 7
to 8 %, chance 0.9 %; matching stays near chance; experiments/blip_albef_emoji.md.
"""

from configs.captioner_drawings import IMAGE, SMALL
from configs.clip_emoji import get_config as clip_emoji
from configs.clip_emoji import retrieval


def get_config():
    """The config of this experiment."""
    config = clip_emoji()
    config.name = "albef_emoji"
    del config.model
    config.batch_size = 64
    config.tokenizer.vocab_size = 1024  # most of the compute would be logits of words
    vocabulary = config.tokenizer.get_ref("vocab_size")
    config.model = {
        "name": "albef",
        "embed_dim": 128,
        "dtype": "bfloat16",
        "image": {**IMAGE, "patch_dropout": 0.5},
        "text": {
            **SMALL,
            "vocab_size": vocabulary + 1,
            "mask_token": vocabulary,  # one that the tokenizer does not use
            "width": 128,
            "depth": 4,
            "fusion_depth": 2,
            "length": 16,
            "dropout": 0.1,
        },
    }
    config.loss = {"queue_size": 0, "alpha": ((0, 0.0), (100, 0.4))}
    config.loss_weights = {"contrastive": 1.0, "matching": 1.0, "masked_text": 1.0}
    # The keys of initial encoders are all alike: at first the teacher follows closely.
    config.ema.update(decay=((0, 0.5), (200, 0.98)), teacher=True)
    config.optim.learning_rate = 1e-3
    config.optim.learning_rate_multipliers = (("temperature", 0.1),)
    config.evals.unseen_test = {**retrieval("unseen_test"), "rerank": 16}
    config.baselines = ""
    return config
