"""VideoBERT at the size of the paper: BERT-large over words and 20,736 video tokens.

    python -m mmjax.cluster_video --config=configs/videobert.py --batch=4096 --iterations=2000
    python -m mmjax.train --config=configs/videobert.py --workdir=runs/videobert \
        --config.data.train.root=PATH

Sun et al. 2019 (arXiv 1904.01766): 4 levels of 12 clusters of 1.5-second clips, one transformer
over `[CLS] text [>] video [SEP]`. The paper clusters the features of an S3D and starts from BERT's
weights; here a clip is its pixels, and with `video_features` in the examples those features.
PATH is a folder of videos with captions.jsonl (see data/sources/videos.py); of recordings cut at
their sentences, wrap it in {"kind": "neighbors", "group": ...} and put join_next() first, as in the
paper. Published, from scratch in mmjax not trained: zero-shot on YouCook II, verbs 43.3 % and
objects 33.7 % in the top 5 (table 2).
"""

from mmjax.config import defaults

CODES, FRAMES, LENGTH = 12**4, 16, 64
STEPS = (
    "random_frames(32) | each_frame('resize(24)') | video_tokens('runs/clusters', clip=2)"
    f" | first_caption | tokenize({LENGTH})"
)


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 128
    config.total_steps = 500_000
    config.log_every = 100
    config.checkpoint.every = 10_000

    config.data.train = {"kind": "videos", "root": ""}
    config.data.transform = STEPS
    config.tokenizer = {
        "kind": "file",
        "path": "data/bert/tokenizer.json",
        "pad_token": "[PAD]",
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
    }
    config.model = {
        "name": "videobert",
        "text": {
            "vocab_size": 30_522,
            "width": 1024,
            "depth": 24,
            "heads": 16,
            "mlp_dim": 4096,
            "length": LENGTH,
            "dropout": 0.1,
        },
        "codes": CODES,
        "frames": FRAMES,
        "start": 101,
        "end": 102,
        "separator": 1,  # [unused0]
        "mask": 103,
        "remat": "full",
        "dtype": "bfloat16",
    }
    config.loss = {"mask_ratio": 0.15}
    config.loss_weights = {"masked_text": 1.0, "masked_video": 1.0, "matching": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-5,
        "schedule": "linear",
        "warmup_steps": 5000,
        "weight_decay": 0.01,
        "grad_clip_norm": 1.0,
    }
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config
