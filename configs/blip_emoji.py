"""BLIP on emoji: the images and names of clip_emoji, embedded, matched and captioned by one model.

    python -m mmjax.train --config=configs/blip_emoji.py --workdir=runs/blip_emoji

The three losses, the momentum teacher and the shared text transformer of Li et al. 2022
(arXiv 2201.12086), section 3, at toy size, without the queue, with which contrast from scratch does
not start. Retrieval is evaluated before and after re-ranking by the matching head. Expected (2
seeds): recall@5 of unseen concepts 8 to 9 %, chance 0.9 %; matching stays near chance;
experiments/blip_albef_emoji.md.
"""

from configs.captioner_drawings import captioning
from configs.clip_emoji import emoji
from configs.clip_emoji import get_config as clip_emoji


def get_config():
    """The config of this experiment."""
    config = clip_emoji()
    config.name = "blip_emoji"
    del config.model
    config.batch_size = 64
    config.tokenizer.vocab_size = 1024  # most of the compute would be logits of words
    words = config.tokenizer.get_ref("vocab_size")
    sizes = {"width": 128, "heads": 4, "mlp_dim": 512, "activation": "gelu_tanh"}
    drawn = {"patch_size": 8, "stem": "conv", "image_size": (48, 48)}
    config.model = {
        "name": "blip",
        "embed_dim": 128,
        "dtype": "bfloat16",
        "image": {**sizes, **drawn, "depth": 4, "patch_dropout": 0.5},
        "text": {**sizes, "vocab_size": words + 2, "length": 16, "depth": 2, "dropout": 0.1},
        "encode_token": words,
        "decode_token": words + 1,
    }
    # The keys of initial encoders are all alike, and the paper's are trained: here the teacher
    # follows closely at first, and there is no queue.
    config.ema.update(decay=((0, 0.5), (200, 0.98)), teacher=True)
    config.loss = {"alpha": ((0, 0.0), (200, 0.4)), "queue_size": 0}
    config.loss_weights = {"contrastive": 1.0, "matching": 1.0, "captioning": 1.0}
    config.optim.learning_rate = 1e-3
    for split in ("unseen_test", "unseen_test_openmoji"):
        config.evals[split].rerank = 16
    config.evals.captions = captioning(emoji("unseen_test"), emoji("train"))
    config.baselines = ""
    return config
